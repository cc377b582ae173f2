"""The BASH trainer (Cen et al. 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...contexts.fill import Contexts
from ...examples.example import ExampleSet
from ...training.building import Pairs
from ...training.citations import CEN_2025
from ...training.method import Counts, Method
from ...training.rows import Row
from .config import BASHFields
from .contexts import mixed_contexts
from .rows import bash_row


FEW_REPLACED = 0.1  # per cent


@dataclass
class BASHConfig(BASHFields, SFTConfig):
    """Configuration for [`BASHTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.bash.config.BASHFields`]."""


class BASHTrainer(Method, SFTTrainer):
    """
    Trainer for batch-scheduled sampling (BASH): the model learns the reference token at every position of a context
    into which its own tokens are mixed.

    It takes what [`~trl.SFTTrainer`] takes, with a [`BASHConfig`]; see [`~gapbridge.training.method.Method`] for the
    arguments. `eval_own_loss` is the loss on held-out contexts mixed like the training ones. `counts` holds the answer
    `tokens` of all contexts, how many were `sampled`, and how many differ from the reference (`differing`).
    """

    _tag_names = ["trl", "bash", "gapbridge"]
    _name = "BASH"
    _paper = CEN_2025
    config_class = BASHConfig
    draws = True
    count_names = ("tokens", "sampled", "differing")
    degenerate = {"mixture_coefficient": 0.0}

    @classmethod
    def contexts(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig
    ) -> Contexts:
        return mixed_contexts(model, tokenizer, args)

    @classmethod
    def rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: BASHConfig,
        counts: Counts,
        *,
        evaluation: bool = False,
    ) -> Iterator[Row]:
        for example, record in pairs:
            tokens, sampled = record["tokens"], record["sampled"]
            counts["tokens"] += sum(example.trained)
            counts["sampled"] += sum(sampled)
            counts["differing"] += sum(a != b for a, b in zip(tokens, example.reference, strict=True))
            row = bash_row(example.prompt, tokens, example.reference, example.trailer, example.trained)
            drawn = [*[False] * len(example.prompt), *sampled, *[False] * len(example.trailer)]
            yield {"id": example.id, **row, "drawn": drawn}

    @classmethod
    def evaluates_own_contexts(cls, args: Any) -> bool:
        # At β = 0 they are the reference contexts, evaluated already.
        return super().evaluates_own_contexts(args) and args.mixture_coefficient > 0

    @classmethod
    def describe(cls, counts: Counts) -> str:
        sampled, replaced = cls._shares(counts)
        return f"{sampled:.3g} % of the answer tokens sampled, {replaced:.3g} % replaced"

    @classmethod
    def logged(cls, counts: Counts) -> dict[str, float]:
        sampled, replaced = cls._shares(counts)
        return {
            "contexts/tokens": counts["tokens"],
            "contexts/sampled_share": sampled / 100,
            "contexts/replaced_share": replaced / 100,
        }

    @classmethod
    def warnings(cls, counts: Counts, args: BASHConfig) -> list[str]:
        replaced = cls._shares(counts)[1]
        if args.mixture_coefficient == 0 or replaced >= FEW_REPLACED:
            return []
        return [
            f"only {replaced:.3g} % of the answer tokens are replaced, so that this is nearly SFT: the model draws "
            "what the reference says. Raise mixture_coefficient or temperature, or take data that the model has not "
            "learned"
        ]

    @staticmethod
    def _shares(counts: Counts) -> tuple[float, float]:
        """Per cent of the answer tokens that were sampled, and that differ from the reference."""
        whole = max(1, counts["tokens"])
        return 100 * counts["sampled"] / whole, 100 * counts["differing"] / whole


METHOD = BASHTrainer
