"""BASH's data set D_s: find a round's mixed contexts in the store or make them, and turn them into rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...contexts.fill import fill_store, generation_precision, shared_identity
from ...contexts.store import ContextStore
from ...decoding import MixedContext, mix_contexts
from ...examples.example import Example, ExampleSet
from ...examples.tokens import control_tokens, stop_tokens, unnamed_tokens
from ...training.rows import rows_to_dataset
from .config import BASHConfig
from .rows import bash_row


@dataclass(frozen=True)
class MixingCounts:
    """Answer tokens in all contexts, how many of them were sampled, and how many differ from the reference."""

    tokens: int
    sampled: int
    differing: int

    @property
    def share_sampled(self) -> float:
        return self.sampled / self.tokens

    @property
    def share_differing(self) -> float:
        return self.differing / self.tokens

    def __str__(self) -> str:
        return f"{self.share_sampled:.1%} of the answer tokens sampled, {self.share_differing:.1%} replaced"


def suppressed_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: BASHConfig) -> tuple[int, ...]:
    """Ids never sampled into a context: as configured, else control and stop tokens and ids without a token."""
    if args.suppress_tokens is not None:
        return tuple(sorted(set(args.suppress_tokens)))
    suppressed = {*control_tokens(tokenizer), *stop_tokens(tokenizer, model), *unnamed_tokens(tokenizer, model)}
    return tuple(sorted(suppressed))


def mix_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    args: BASHConfig,
    on_finished: Callable[[int], object] | None = None,
) -> list[MixedContext]:
    """`mix_contexts` on examples, with the options of a configuration."""
    with generation_precision(model, args):
        return mix_contexts(
            model,
            [example.prompt for example in examples],
            [example.reference for example in examples],
            ids=[example.id for example in examples],
            mixture_coefficient=args.mixture_coefficient,
            suppress_tokens=suppressed_tokens(model, tokenizer, args),
            lookahead=args.lookahead,
            on_finished=on_finished,
            **args.generation_options(),
        )


def context_store(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig, directory: Path
) -> ContextStore:
    """The store of a round's contexts, with whatever it holds."""
    options = args.sampling(suppressed_tokens(model, tokenizer, args))
    identity = {
        "method": "bash",
        "mixture_coefficient": args.mixture_coefficient,
        **shared_identity(model, tokenizer, examples, args, options, round_index=args.round_index),
    }
    return ContextStore(directory, identity, num_examples=len(examples), shard_size=args.shard_size)


def build_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig, directory: Path
) -> ContextStore:
    """The complete store of a round's contexts; what is missing is made.

    Raises:
        StoreError: the directory holds contexts that were made with other options, or a damaged shard.
    """
    store = context_store(model, tokenizer, examples, args, directory)

    def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
        contexts = mix_examples(model, tokenizer, part, args, on_finished)
        return {
            "id": [example.id for example in part],
            "tokens": [context.tokens for context in contexts],
            "sampled": [context.sampled for context in contexts],
        }

    return fill_store(store, examples, args, columns, f"mixing contexts, round {args.round_index}")


def bash_dataset(examples: ExampleSet, store: ContextStore) -> tuple[Dataset, MixingCounts]:
    """Join contexts and examples into rows (`id`, `input_ids`, `labels`), and count what was replaced.

    Raises:
        StoreError: the store is not complete or not whole.
    """
    counts = [0, 0, 0]

    def rows() -> Iterator[dict[str, Any]]:
        for example, record in store.joined(examples):
            tokens, sampled = record["tokens"], record["sampled"]
            counts[0] += len(tokens)
            counts[1] += sum(sampled)
            counts[2] += sum(a != b for a, b in zip(tokens, example.reference, strict=True))
            yield {"id": example.id, **bash_row(example.prompt, tokens, example.reference, example.trailer)}

    dataset = rows_to_dataset(rows())
    return dataset, MixingCounts(*counts)
