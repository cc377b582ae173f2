"""The pause trainer (Goyal et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...data.example import IGNORE_INDEX, ExampleSet
from ...data.pauses import PauseSettings, pause_id, record_pauses, recorded_pauses
from ...training.decoding_mode import DecodingMode
from ...training.hooks import ExamplesWithGenerations, RowsWithStats
from ...training.method import GapTrainerMixin
from ...training.rows import Row, sft_row
from .config import PauseArgs
from .inference import paused_answers
from .pause_token import add_pauses, extend_lora_for_pause
from .rows import mask_pauses, with_random_pauses
from .stats import PauseStats


_PAPER = {
    "title": "Think before you speak: Training Language Models With Pause Tokens",
    "id": "2310.02226",
    "citation": (
        "@inproceedings{goyal2024think,\n"
        "    title     = {{Think before you speak: Training Language Models With Pause Tokens}},\n"
        "    author    = {Goyal, Sachin and Ji, Ziwei and Rawat, Ankit Singh and Menon, Aditya Krishna and Kumar, "
        "Sanjiv and Nagarajan, Vaishnavh},\n"
        "    booktitle = {The Twelfth International Conference on Learning Representations},\n"
        "    year      = 2024\n"
        "}"
    ),
}


@dataclass
class PauseConfig(PauseArgs, SFTConfig):
    """Configuration for [`PauseTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.pause.config.PauseArgs`]."""


class PauseTrainer(GapTrainerMixin, SFTTrainer):
    """
    Trainer for pause tokens: the model answers after `num_pause_tokens` copies of a learnt token, over which it can go
    on computing, and learns everything but to write them.

    It takes what [`~trl.SFTTrainer`] takes, with a [`PauseConfig`]; see [`~gapbridge.training.method.GapTrainerMixin`]
    for the arguments. Model and tokenizer get the token in place, and with `peft_config` the adapter trains its rows.
    `stats` holds [`~gapbridge.methods.pause.stats.PauseStats`].
    """

    _tag_names = ["trl", "pause", "gapbridge"]
    _name = "Pause"
    _paper = _PAPER
    config_class = PauseConfig
    stats_class = PauseStats
    sft_equivalent_config = {"num_pause_tokens": 0}
    answer_modes = {
        "pause": DecodingMode(
            help="the answer after a number of pauses of one's own choice; models that were trained with pauses",
            options={"num_pause_tokens": "pauses between prompt and answer; default: as many as in training"},
            settings=lambda args: {"num_pause_tokens": None},
            answer=paused_answers,
            any_model=False,
        )
    }

    @classmethod
    def setup_model(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: PauseConfig) -> None:
        """Add the pause token to tokenizer and model; without pauses add nothing."""
        known = recorded_pauses(tokenizer)
        if args.has_pauses:
            add_pauses(model, tokenizer, token=args.pause_token, count=args.pauses_after_prompt)
        elif known is not None:
            record_pauses(tokenizer, PauseSettings(known.token, 0))

    @classmethod
    def refused_configs(cls, args: PauseConfig, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
        """A new token gets its rows before the weights are divided."""
        known = tokenizer is not None and recorded_pauses(tokenizer) is not None
        return ("zero3",) if args.has_pauses and not known else ()

    @classmethod
    def trainer_arguments(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: PauseConfig,
        peft_config: PeftConfig | None,
    ) -> dict[str, Any]:
        """A new adapter trains the token's rows, too."""
        return {} if peft_config is None else {"peft_config": extend_lora_for_pause(peft_config, model, tokenizer)}

    @classmethod
    def build_rows(
        cls,
        pairs: ExamplesWithGenerations,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: PauseConfig,
        *,
        evaluation: bool = False,
    ) -> RowsWithStats:
        """A row an example: pauses stand after its prompt already, or are put at random places."""
        pause = pause_id(tokenizer)
        for example, _ in pairs:
            row, stats = sft_row(example), PauseStats(rows=1)
            if pause is not None:
                if args.at_random:
                    row, placed = _at_random(row, pause, args)
                    stats += placed
                mask_pauses(row, pause)
                stats += PauseStats(pauses=row["input_ids"].count(pause))
            yield [row], stats


METHOD = PauseTrainer


def _at_random(row: Row, pause: int, args: PauseConfig) -> tuple[Row, PauseStats]:
    """The row with its share of pauses; where they leave no room it is cut, or has fewer of them."""
    length, limit = len(row["input_ids"]), args.row_limit()
    wanted = round(args.pause_fraction * length)
    room = wanted if limit is None else min(wanted, limit - length)
    if limit is not None and room < wanted and args.truncate_overlong:
        # The paper inserts 0.1 N pauses into N tokens and keeps N.
        longer = with_random_pauses(row, pause, wanted, args.seed)
        cut = {**longer, **{name: longer[name][:limit] for name in ("input_ids", "labels", "sampled")}}
        if any(label != IGNORE_INDEX for label in cut["labels"]):
            return cut, PauseStats(truncated=1)
    row = with_random_pauses(row, pause, room, args.seed)
    return row, PauseStats(incomplete=room < wanted, missing_pauses=wanted - room)
