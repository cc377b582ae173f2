"""DPO as a method: TRL's trainer on pairs of answers as ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from ...examples.preferences import Preference, PreferenceSet, build_preferences
from ...examples.tokens import stop_tokens
from ...training.preferences import PreferenceMethod, pair_row
from ...training.rows import Row
from .config import DPOFields


@dataclass
class PreferenceConfig(DPOFields, DPOConfig):
    """Configuration for [`PreferenceTrainer`]: everything of [`~trl.DPOConfig`], and the keys of
    [`~gapbridge.methods.dpo.config.DPOFields`]."""


class PreferenceTrainer(PreferenceMethod, DPOTrainer):
    """
    [`~trl.DPOTrainer`] with the guards, the checks of data and the runs of the other methods; one round, nothing
    drawn.

    It takes what [`~trl.DPOTrainer`] takes, with a [`PreferenceConfig`] and preference data in one of the forms of
    `gapbridge.examples.preferences.build_preferences`; see [`~gapbridge.training.method.Method`] for the arguments.
    `ref_model` may be given; by default it is a copy of the model.
    """

    _tag_names = ["trl", "dpo", "gapbridge"]
    config_class = PreferenceConfig
    learns_from = "preferences"
    example_set = PreferenceSet

    @classmethod
    def read(
        cls,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None,
        args: Any,
        source: str,
        *,
        max_length: int | None,
        assistant_turns: str | None = None,
    ) -> PreferenceSet:
        """The pairs of a data set. Each is asked for once, whatever `assistant_turns` says."""
        return build_preferences(
            dataset,
            tokenizer,
            stops=stop_tokens(tokenizer, model),
            max_length=max_length,
            on_bad_rows=args.on_bad_rows,
            truncate_long_rows=args.truncate_long_rows and max_length is not None,
            num_proc=args.dataset_num_proc,
            source=source,
            date=args.template_date,
            chat_template_kwargs=args.chat_template_kwargs,
        )

    @classmethod
    def plain_row(cls, example: Preference) -> Row:
        return pair_row(example.id, example.prompt, example.chosen, example.rejected)


METHOD = PreferenceTrainer
