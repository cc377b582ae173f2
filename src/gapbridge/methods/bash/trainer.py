"""The BASH trainer (Cen et al. 2025, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...data.example import ExampleSet
from ...data.hash_sampling import hash_uniform
from ...store.generate_shards import GenerationSpec
from ...training.arguments import EVAL
from ...training.citations import CEN_2025
from ...training.hooks import ExamplesWithGenerations, RowsWithStats
from ...training.method import GapTrainerMixin
from ...training.rows import sft_row
from .config import BASHArgs
from .mixed_contexts import mixed_contexts
from .rows import bash_row, mask_labels_after_replacement, reference_inputs
from .stats import BASHStats


@dataclass
class BASHConfig(BASHArgs, SFTConfig):
    """Configuration for [`BASHTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.bash.config.BASHArgs`]."""


class BASHTrainer(GapTrainerMixin, SFTTrainer):
    """
    Trainer for batch-scheduled sampling (BASH): the model learns the reference token at every position of a context
    into which its own tokens are mixed.

    It takes what [`~trl.SFTTrainer`] takes, with a [`BASHConfig`]; see [`~gapbridge.training.method.GapTrainerMixin`]
    for the arguments. `eval_generated_loss` is the loss on held-out contexts mixed like the training ones. `stats`
    holds [`~gapbridge.methods.bash.stats.BASHStats`].
    """

    _tag_names = ["trl", "bash", "gapbridge"]
    _name = "BASH"
    _paper = CEN_2025
    config_class = BASHConfig
    generates_contexts = True
    stats_class = BASHStats
    sft_equivalent_config = {"mixture_coefficient": 0.0}

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig
    ) -> GenerationSpec | None:
        if args.sft_fraction == 1:
            return None  # every row is plain
        return mixed_contexts(model, tokenizer, examples, args)

    @classmethod
    def build_rows(
        cls,
        pairs: ExamplesWithGenerations,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: BASHConfig,
        *,
        evaluation: bool = False,
    ) -> RowsWithStats:
        """A row an example: mixed, or plain for the share `sft_fraction`; in evaluation all mixed, all with loss."""
        for example, record in pairs:
            plain = args.sft_fraction > 0 and not evaluation
            if plain and hash_uniform(example.id, args.seed, "plain") < args.sft_fraction:
                yield [sft_row(example)], BASHStats(sft_rows=1)
                continue
            tokens, sampled = record["tokens"], record["sampled"]
            row = bash_row(
                example.prompt, tokens, example.completion_ids, example.template_suffix_ids, example.loss_mask
            )
            row["labels"][: len(example.prompt)] = example.prompt_labels()
            count = 0 if evaluation else args.num_masked_labels_after_replacement
            masked = mask_labels_after_replacement(row, count) if count else 0
            replaced = sum(a != b for a, b in zip(tokens, example.completion_ids, strict=True))
            stats = BASHStats(sum(example.loss_mask), sum(sampled), replaced, masked_labels=masked)
            generated = [*[False] * len(example.prompt), *sampled, *[False] * len(example.template_suffix_ids)]
            yield [{"id": example.id, **row, "sampled": generated}], stats

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor | Any], *args: Any, **kwargs: Any) -> Any:
        """As in [`~trl.SFTTrainer`], in the round's last steps on the reference contexts if so configured."""
        if model.training and self._on_references():
            inputs = {**inputs, "input_ids": reference_inputs(inputs["input_ids"], inputs["labels"])}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _on_references(self) -> bool:
        """Whether this step is one of `final_sft_epochs`; a resumed run's trainer state says so, too."""
        final = self.args.final_sft_epochs
        if not final:
            return False
        steps = round(self.state.max_steps * final / self.args.num_train_epochs)
        return bool(self.state.max_steps - self.state.global_step <= steps)

    @classmethod
    def tokens_of(cls, row: dict[str, Any]) -> list[list[int]]:
        """A row as it is sampled, and as `final_sft_epochs` trains it."""
        ids = row["input_ids"]
        return [ids, reference_inputs(torch.tensor(ids), torch.tensor(row["labels"])).tolist()]

    @classmethod
    def eval_sets(cls, args: Any) -> tuple[str, ...]:
        # At β = 0 generated contexts are the reference contexts.
        return super().eval_sets(args) if args.mixture_coefficient > 0 else (EVAL,)


METHOD = BASHTrainer
