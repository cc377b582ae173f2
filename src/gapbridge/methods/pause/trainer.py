"""The pause trainer (Goyal et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...examples.example import ExampleSet
from ...examples.pauses import Pauses, pause_id, record_pauses, recorded_pauses
from ...training.building import Pairs
from ...training.method import AnswerMode, Counts, Method
from ...training.rows import Row, reference_row
from .answering import paused_answers
from .config import PauseFields
from .paper import GOYAL_2024
from .pause_token import add_pauses, trains_pause
from .rows import mask_pauses, with_random_pauses


@dataclass
class PauseConfig(PauseFields, SFTConfig):
    """Configuration for [`PauseTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.pause.config.PauseFields`]."""


class PauseTrainer(Method, SFTTrainer):
    """
    Trainer for pause tokens: the model answers after `num_pause_tokens` copies of a learnt token, over which it can go
    on computing, and learns everything but to write them.

    It takes what [`~trl.SFTTrainer`] takes, with a [`PauseConfig`]; see [`~gapbridge.training.method.Method`] for the
    arguments. Model and tokenizer get the token in place, and with `peft_config` the adapter trains its rows. `counts`
    holds the `rows`, their `pauses`, and in how many there is no room for all of them (`short`, random placement).
    """

    _tag_names = ["trl", "pause", "gapbridge"]
    _name = "Pause"
    _paper = GOYAL_2024
    config_class = PauseConfig
    count_names = ("rows", "pauses", "short")
    degenerate = {"num_pause_tokens": 0}
    answer_modes = {
        "paused": AnswerMode(
            help="the answer after a number of pauses of one's own choice; models that were trained with pauses",
            options={"num_pause_tokens": "pauses between prompt and answer; default: as many as in training"},
            settings=lambda args: {"num_pause_tokens": None},
            answer=paused_answers,
            any_model=False,
        )
    }

    @classmethod
    def prepare(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: PauseConfig) -> None:
        """Add the pause token to tokenizer and model; without pauses add nothing."""
        known = recorded_pauses(tokenizer)
        if args.has_pauses:
            count, init = args.pauses_after_prompt, args.pause_init
            add_pauses(model, tokenizer, token=args.pause_token, count=count, init=init, seed=args.seed)
        elif known is not None:
            record_pauses(tokenizer, Pauses(known.token, 0))

    @classmethod
    def refused_configs(cls, args: PauseConfig, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
        """A new token gets its rows before the weights are divided."""
        known = tokenizer is not None and recorded_pauses(tokenizer) is not None
        return ("zero3",) if args.has_pauses and not known else ()

    @classmethod
    def new_adapter(
        cls,
        config: PeftConfig,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: PauseConfig,
    ) -> PeftConfig:
        return trains_pause(config, model, tokenizer)

    @classmethod
    def rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: PauseConfig,
        counts: Counts,
        *,
        evaluation: bool = False,
    ) -> Iterator[Row]:
        """A row an example: pauses stand after its prompt already, or are put at random places."""
        pause = pause_id(tokenizer)
        for example, _ in pairs:
            row = reference_row(example)
            if pause is not None:
                if args.at_random:
                    wanted = round(args.pause_fraction * len(row["input_ids"]))
                    limit = args.row_limit("eval" if evaluation else "train")
                    room = wanted if limit is None else limit - len(row["input_ids"])
                    counts["short"] += room < wanted
                    row = with_random_pauses(row, pause, min(wanted, room), args.seed)
                mask_pauses(row, pause)
                counts["pauses"] += row["input_ids"].count(pause)
            counts["rows"] += 1
            yield row

    @classmethod
    def describe(cls, counts: Counts) -> str:
        short = f", {counts['short']} rows without room for all" if counts["short"] else ""
        return f"{counts['pauses']} pauses in {counts['rows']} rows{short}"


METHOD = PauseTrainer
