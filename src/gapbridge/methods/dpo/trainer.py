"""DPO as a method: TRL's trainer on pairs of answers as ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from ...data.preferences import PreferenceSet, build_preferences
from ...training.hooks import tokenization_arguments
from ...training.preference_trainer import PreferenceTrainerMixin, pair_row
from ...training.rows import Row
from .config import DPOArgs


@dataclass
class GapDPOConfig(DPOArgs, DPOConfig):
    """Configuration for [`GapDPOTrainer`]: everything of [`~trl.DPOConfig`], and the keys of
    [`~gapbridge.methods.dpo.config.DPOArgs`]."""


class GapDPOTrainer(PreferenceTrainerMixin, DPOTrainer):
    """
    [`~trl.DPOTrainer`] with the guards, the checks of data and the runs of the other methods; one round, nothing
    sampled.

    It takes what [`~trl.DPOTrainer`] takes, with a [`GapDPOConfig`] and preference data in one of the forms of
    `gapbridge.data.preferences.build_preferences`; see [`~gapbridge.training.method.GapTrainerMixin`] for the
    arguments. `ref_model` may be given; by default it is a copy of the model.
    """

    _tag_names = ["trl", "dpo", "gapbridge"]
    config_class = GapDPOConfig
    data_format = "preferences"
    example_set = PreferenceSet

    @classmethod
    def load_examples(
        cls,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None,
        args: Any,
        source: str,
        *,
        max_length: int | None,
        train_on_assistant_turns: str | None = None,
    ) -> PreferenceSet:
        """The pairs of a data set. Each is asked for once, whatever `train_on_assistant_turns` says."""
        return build_preferences(
            dataset, tokenizer, source=source, **tokenization_arguments(tokenizer, model, args, max_length)
        )

    @classmethod
    def sft_row(cls, example: Any) -> Row:
        return pair_row(example.id, example.prompt, example.chosen, example.rejected)


METHOD = GapDPOTrainer
