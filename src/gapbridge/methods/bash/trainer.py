"""The BASH trainer."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...examples.example import ExampleSet
from ...training.method import CEN_2025, SelfGenerationTrainer
from .config import BASHConfig
from .contexts import MixingCounts, bash_dataset, build_contexts


class BASHTrainer(SelfGenerationTrainer):
    """
    Trainer for batch-scheduled sampling (BASH): the model learns the reference token at every position of a context
    into which its own tokens are mixed.

    It takes what [`~trl.SFTTrainer`] takes, with a [`BASHConfig`]; see
    [`~gapbridge.self_generation.SelfGenerationTrainer`] for the arguments. `eval_own_loss` is the loss on held-out
    contexts mixed like the training ones.
    """

    _tag_names = ["trl", "bash", "gapbridge"]
    _name = "BASH"
    _paper = CEN_2025
    config_class = BASHConfig

    def build_rows(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: ExampleSet,
        args: BASHConfig,
        directory: Path,
        *,
        evaluation: bool,
    ) -> tuple[Dataset | None, MixingCounts | None]:
        if evaluation and args.mixture_coefficient == 0:
            return None, None  # the reference contexts, evaluated already
        return bash_dataset(examples, build_contexts(model, tokenizer, examples, args, directory))
