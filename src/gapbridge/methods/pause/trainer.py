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
from ...training.rows import IGNORE, Row, reference_row
from .answering import paused_answers
from .config import PauseFields
from .paper import GOYAL_2024
from .pause_token import add_pauses, trains_pause
from .rows import cut_row, mask_pauses, with_random_pauses


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
    holds the `rows`, their `pauses`, and for random placement in how many rows there is no room for all of them
    (`short`), how many pauses are `missing` there, and how many rows are `cut` to `max_length` with them.
    """

    _tag_names = ["trl", "pause", "gapbridge"]
    _name = "Pause"
    _paper = GOYAL_2024
    config_class = PauseConfig
    count_names = ("rows", "pauses", "short", "missing", "cut")
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
                    limit = args.row_limit("eval" if evaluation else "train")
                    row = cls._at_random(row, pause, args, limit, counts)
                mask_pauses(row, pause)
                counts["pauses"] += row["input_ids"].count(pause)
            counts["rows"] += 1
            yield row

    @staticmethod
    def _at_random(row: Row, pause: int, args: PauseConfig, limit: int | None, counts: Counts) -> Row:
        """The row with its share of pauses; where they leave no room it is cut, or has fewer of them."""
        length = len(row["input_ids"])
        wanted = round(args.pause_fraction * length)
        room = wanted if limit is None else min(wanted, limit - length)
        if limit is not None and room < wanted and args.truncate_long_rows:
            cut = cut_row(with_random_pauses(row, pause, wanted, args.seed), limit)
            if any(label != IGNORE for label in cut["labels"]):
                counts["cut"] += 1
                return cut
        counts["short"] += room < wanted
        counts["missing"] += wanted - room
        return with_random_pauses(row, pause, room, args.seed)

    @classmethod
    def describe(cls, counts: Counts) -> str:
        short = f", {counts['short']} rows without room for all" if counts["short"] else ""
        cut = f", {counts['cut']} rows cut with them" if counts["cut"] else ""
        return f"{counts['pauses']} pauses in {counts['rows']} rows{short}{cut}"

    @classmethod
    def warnings(cls, counts: Counts, args: PauseConfig) -> list[str]:
        if counts["missing"] <= counts["pauses"]:
            return []
        return [
            f"only {counts['pauses']} of {counts['pauses'] + counts['missing']} pauses have room within max_length "
            f"{args.max_length}, so that this is nearly SFT. Set truncate_long_rows: true, which cuts rows as the "
            "paper does, or raise max_length"
        ]


METHOD = PauseTrainer
