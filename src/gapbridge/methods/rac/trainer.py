"""The RAC trainer."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...examples.example import ExampleSet
from ...examples.tokens import stop_tokens
from ...training.method import CEN_2025, SelfGenerationTrainer
from .config import RACConfig
from .contexts import DraftCounts, build_drafts, cue_for, rac_dataset


class RACTrainer(SelfGenerationTrainer):
    """
    Trainer for reference-answer-based correction (RAC): the model answers by itself, and learns to get from its own
    answer to the reference answer.

    It takes what [`~trl.SFTTrainer`] takes, with a [`RACConfig`]; see
    [`~gapbridge.self_generation.SelfGenerationTrainer`] for the arguments. `eval_loss` is the loss of the first answer
    (prompt → reference), `eval_own_loss` that of the correction (prompt, own draft, request → reference).
    """

    _tag_names = ["trl", "rac", "gapbridge"]
    _name = "RAC"
    _paper = CEN_2025
    config_class = RACConfig

    def build_rows(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: ExampleSet,
        args: RACConfig,
        directory: Path,
        *,
        evaluation: bool,
    ) -> tuple[Dataset, DraftCounts]:
        cue = cue_for(tokenizer, examples, args, stop_tokens(tokenizer, model))
        store = build_drafts(model, tokenizer, examples, args, directory)
        share = 0.0 if evaluation else args.reference_rows
        return rac_dataset(examples, store, args, cue, tokenizer.eos_token_id, reference_rows=share)
