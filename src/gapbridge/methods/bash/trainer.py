"""The BASH trainer (Cen et al. 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...contexts.fill import Contexts
from ...examples.example import ExampleSet
from ...examples.lots import lot
from ...training.building import Pairs
from ...training.citations import CEN_2025
from ...training.method import Counts, Method
from ...training.rows import Row, reference_row
from .config import BASHFields
from .contexts import mixed_contexts
from .models import check_context_models
from .rows import bash_row, mask_after_replaced, reference_inputs


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
    `tokens` of all mixed contexts, how many were `sampled`, and how many differ from the reference (`differing`);
    beside them how many rows are plain (`plain_rows`) and how many labels behind replaced tokens are `masked`.
    """

    _tag_names = ["trl", "bash", "gapbridge"]
    _name = "BASH"
    _paper = CEN_2025
    config_class = BASHConfig
    draws = True
    count_names = ("tokens", "sampled", "differing", "plain_rows", "masked")
    degenerate = {"mixture_coefficient": 0.0}

    @classmethod
    def check(cls, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig) -> None:
        check_context_models(args.context_model or [], tokenizer, args)

    @classmethod
    def contexts(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig
    ) -> Contexts | None:
        if args.reference_rows == 1:
            return None  # every row is plain
        return mixed_contexts(model, tokenizer, examples, args)

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
        """A row an example: mixed, or plain for the share `reference_rows`; in evaluation all mixed, all with loss."""
        for example, record in pairs:
            if not evaluation and lot(example.id, args.seed, "plain") < args.reference_rows:
                counts["plain_rows"] += 1
                yield reference_row(example)
                continue
            tokens, sampled = record["tokens"], record["sampled"]
            counts["tokens"] += sum(example.trained)
            counts["sampled"] += sum(sampled)
            counts["differing"] += sum(a != b for a, b in zip(tokens, example.reference, strict=True))
            row = bash_row(example.prompt, tokens, example.reference, example.trailer, example.trained)
            row["labels"][: len(example.prompt)] = example.prompt_labels()
            if not evaluation:
                counts["masked"] += mask_after_replaced(row, args.mask_after_replaced)
            drawn = [*[False] * len(example.prompt), *sampled, *[False] * len(example.trailer)]
            yield {"id": example.id, **row, "drawn": drawn}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in [`~trl.SFTTrainer`], in the round's last steps on the reference contexts if so configured."""
        if model.training and self._on_references():
            inputs = {**inputs, "input_ids": reference_inputs(inputs["input_ids"], inputs["labels"])}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _on_references(self) -> bool:
        """Whether this step is one of `final_reference_epochs`; a resumed run's trainer state says so, too."""
        final = self.args.final_reference_epochs
        if not final:
            return False
        steps = round(self.state.max_steps * final / self.args.num_train_epochs)
        return bool(self.state.max_steps - self.state.global_step <= steps)

    @classmethod
    def tokens_of(cls, row: dict[str, Any]) -> list[list[int]]:
        """A row as it is drawn, and as `final_reference_epochs` trains it."""
        ids = row["input_ids"]
        return [ids, reference_inputs(torch.tensor(ids), torch.tensor(row["labels"])).tolist()]

    @classmethod
    def evaluates_own_contexts(cls, args: Any) -> bool:
        # At β = 0 they are the reference contexts, evaluated already.
        return super().evaluates_own_contexts(args) and args.mixture_coefficient > 0

    @classmethod
    def describe(cls, counts: Counts) -> str:
        sampled, replaced = cls._shares(counts)
        words = []
        if counts["tokens"]:
            words.append(f"{sampled:.3g} % of the answer tokens sampled, {replaced:.3g} % replaced")
        words += [f"{counts['plain_rows']} plain rows"] if counts["plain_rows"] else []
        words += [f"{counts['masked']} labels behind replaced tokens without loss"] if counts["masked"] else []
        return ", ".join(words)

    @classmethod
    def logged(cls, counts: Counts) -> dict[str, float]:
        sampled, replaced = cls._shares(counts)
        return {
            "contexts/tokens": counts["tokens"],
            "contexts/sampled_share": sampled / 100,
            "contexts/replaced_share": replaced / 100,
            "contexts/plain_rows": counts["plain_rows"],
            "contexts/masked": counts["masked"],
        }

    @classmethod
    def warnings(cls, counts: Counts, args: BASHConfig) -> list[str]:
        replaced = cls._shares(counts)[1]
        if args.mixture_coefficient == 0 or not counts["tokens"] or replaced >= FEW_REPLACED:
            return []
        if args.coin_pattern is not None and not counts["sampled"]:
            return [f"no token is sampled: coin_pattern {args.coin_pattern!r} leaves no reference token for a coin"]
        return [
            f"only {replaced:.3g} % of the answer tokens are replaced, so that this is nearly SFT: the model draws "
            "what the reference says. Raise mixture_coefficient or temperature, or take data that the model has not "
            "learned"
        ]

    @staticmethod
    def _shares(counts: Counts) -> tuple[float, float]:
        """Per cent of the mixed rows' answer tokens that were sampled, and that differ from the reference."""
        whole = max(1, counts["tokens"])
        return 100 * counts["sampled"] / whole, 100 * counts["differing"] / whole


METHOD = BASHTrainer
