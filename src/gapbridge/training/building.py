"""The rows of a method: its contexts opened, drawn and joined with the examples, for training and for a preview."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..contexts.fill import Contexts, fill_store, open_store
from ..contexts.fingerprint import weights_fingerprint
from ..contexts.store import ContextStore
from ..examples.example import Example, ExampleSet
from .account import Counts
from .rows import Row, rows_of, rows_to_dataset


if TYPE_CHECKING:
    from .method import Method

logger = logging.getLogger(__name__)

Pairs = Iterable[tuple[Example, dict[str, Any]]]

_PLACEHOLDER_ROWS = 2  # that TRL's constructor gets while the rows are not drawn yet


@dataclass(frozen=True)
class Drawing:
    """A part's contexts: how they are drawn, and the store that holds them."""

    contexts: Contexts
    store: ContextStore


def open_drawings(
    method: type[Method],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, ExampleSet],
    args: Any,
    weights: str | None = None,
) -> dict[str, Drawing]:
    """The stores of a round's contexts below `args.output_dir`, by part (`train`, `eval`); empty: nothing is drawn.

    Opened once a round: what is there is checked, and the weights that draw are hashed once for both, unless their
    fingerprint is given. Nothing is written.

    Raises:
        StoreError: a store holds contexts that were made with other options, or a damaged shard.
    """
    drawings: dict[str, Drawing] = {}
    for part, examples in parts.items():
        method.check(tokenizer, examples, args)
        if part == "eval" and not method.evaluates_own_contexts(args):
            continue
        contexts = method.contexts(model, tokenizer, examples, args)
        if contexts is None:
            continue
        weights = weights or (contexts.weights() if contexts.weights else weights_fingerprint(model))
        directory = Path(args.output_dir) / {"train": "_contexts", "eval": "_eval_contexts"}[part]
        store = open_store(contexts, model, tokenizer, examples, args, directory, weights=weights)
        if args.process_index == 0 and directory.is_dir():
            store.check()
        drawings[part] = Drawing(contexts, store)
    return drawings


def fill_drawing(drawing: Drawing, examples: ExampleSet, args: Any) -> ContextStore:
    """Draw what the store lacks."""
    if args.process_index == 0 and drawing.store.is_complete():
        found, count = drawing.store.directory, drawing.store.num_examples
        logger.warning("%s: all %d contexts were made before and are used again", found, count)
    try:
        return fill_store(drawing.store, examples, args, drawing.contexts.draw, drawing.contexts.what)
    finally:
        drawing.contexts.close()


def build_rows(
    method: type[Method],
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    drawing: Drawing | None = None,
    *,
    evaluation: bool = False,
) -> tuple[Dataset, Counts]:
    """All rows of a part, through the store, and what was counted on the way."""
    pairs: Pairs = ((example, {}) for example in examples)
    if drawing is not None:
        pairs = fill_drawing(drawing, examples, args).joined(examples)
    counts = dict.fromkeys(method.count_names, 0)
    rows = method.rows(pairs, examples, tokenizer, args, counts, evaluation=evaluation)
    return rows_to_dataset(rows, method.row_features), counts


def first_rows(
    method: type[Method],
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    contexts: Contexts | None,
    count: int,
) -> tuple[list[Row], Counts]:
    """The first `count` rows that `build_rows` makes, and what was counted on the way; only their contexts are drawn,
    and nothing is written."""
    method.check(tokenizer, examples, args)
    counts = dict.fromkeys(method.count_names, 0)
    pairs = _drawn(examples, contexts, count) if contexts else ((example, {}) for example in examples)
    rows = method.rows(pairs, examples, tokenizer, args, counts)
    try:
        return list(islice(rows, count)), counts
    finally:
        if contexts is not None:
            contexts.close()


def _drawn(examples: ExampleSet, contexts: Contexts, block: int) -> Iterator[tuple[Example, dict[str, Any]]]:
    for start in range(0, len(examples), block):
        part = examples.part(start, start + block)
        columns = contexts.draw(part, lambda _: None)
        for at, example in enumerate(part):
            yield example, {name: column[at] for name, column in columns.items()}


def trainable(method: type[Method], rows: Dataset) -> Dataset:
    """What the trainer gets of rows: for SFT ids and labels."""
    return rows.select_columns(list(method.trained_columns))


def shown(method: type[Method], rows: Dataset, tokenizer: PreTrainedTokenizerBase, count: int) -> list[Text]:
    """The first rows as they are trained."""
    return [method.show(row, tokenizer) for row in rows_of(rows, count)]


def plain_rows(method: type[Method], examples: Iterable[Example]) -> Dataset:
    return rows_to_dataset((method.plain_row(example) for example in examples), method.row_features)


def placeholder_rows(method: type[Method], examples: ExampleSet) -> Dataset:
    return plain_rows(method, examples.part(0, _PLACEHOLDER_ROWS))
