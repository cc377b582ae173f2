"""The rows of a method: its contexts opened, drawn and joined with the examples, for training and for a preview."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
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
from ..errors import ConfigError
from ..examples.example import IGNORE, Example, ExampleSet
from ..examples.tables import damaged_record, in_parts, open_table, write_table
from ..files import sha256
from .account import Counts
from .arguments import EVAL, TRAIN, is_held_out
from .once import ROWS, make_once, table_path
from .rows import Row, row_record, rows_of, rows_to_dataset
from .starting import batch_faults


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


@dataclass(frozen=True)
class Rows:
    """The rows of a part, what was counted on the way, and how many of them carry no loss anywhere."""

    table: Dataset
    counts: Counts
    without_loss: int


def open_drawings(
    method: type[Method],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, ExampleSet],
    args: Any,
    weights: str | None = None,
) -> dict[str, Drawing]:
    """The stores of a round's contexts below `args.output_dir`, by part; empty: nothing is drawn.

    Opened once a round: what is there is checked, and the weights that draw are hashed once for both, unless their
    fingerprint is given. Nothing is written.

    Raises:
        StoreError: a store holds contexts that were made with other options, or a damaged shard.
        ConfigError: there is not one batch.
    """
    drawings: dict[str, Drawing] = {}
    for part, examples in parts.items():
        method.check(tokenizer, examples, args)
        if faults := batch_faults(args, {part: len(examples)}):
            raise ConfigError([f"{examples.source}, {fault}" for fault in faults])
        if is_held_out(part) and not method.evaluates_own_contexts(args):
            continue
        contexts = method.contexts(model, tokenizer, examples, args)
        if contexts is None:
            continue
        weights = weights or (contexts.weights() if contexts.weights else weights_fingerprint(model))
        directory = Path(args.output_dir) / _context_directory(part)
        store = open_store(contexts, model, tokenizer, examples, args, directory, weights=weights)
        if args.process_index == 0 and directory.is_dir():
            store.check()
        drawings[part] = Drawing(contexts, store)
    return drawings


def _context_directory(part: str) -> str:
    name = part.removeprefix(EVAL)
    return "_contexts" if part == TRAIN else f"_eval_contexts{name}"


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
    part: str,
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    drawing: Drawing | None = None,
) -> Rows:
    """All rows of a part, in the memory of this process.

    Args:
        part: `train`, `eval` (held-out rows with reference contexts) or `eval_own` (with own ones), the latter two
            with the name of a data set behind a point where there are several.
    """
    making = _Making(method, part, examples, tokenizer, args, drawing)
    return Rows(rows_to_dataset(making.rows(), method.row_features), making.counts, making.without_loss)


def keep_rows(
    method: type[Method],
    part: str,
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    shared: Mapping[str, Any],
    drawing: Drawing | None = None,
) -> Rows:
    """All rows of a part, in a table below `args.output_dir`: process 0 makes it, all map it into memory, and a later
    start finds it again. Older ones of the part are deleted.

    Args:
        shared: `shared_identity`, with the settings as the caller gave them: constructors of trainers write into
            `args`.

    Raises:
        StoreError: what is there is damaged. RunError: another process failed.
    """
    contexts = [] if drawing is None else [drawing.store.manifest_path]
    identity = {
        **shared,
        "examples": [examples.fingerprint(), examples.conversational, examples.stops, examples.date],
        "chat_template_kwargs": dict(examples.chat_template_kwargs),
        "contexts": [sha256(path) for path in [*contexts, *method.row_sources(args)]],
    }
    path = table_path(Path(args.output_dir) / ROWS, part, identity)

    def make() -> None:
        for older in path.parent.glob(f"{part}-*"):
            older.unlink(missing_ok=True)
        making = _Making(method, part, examples, tokenizer, args, drawing)
        write_table(path, in_parts(making.rows(), method.row_features), method.row_features, making.record)

    table, record = make_once(path, args, make, lambda: open_table(path, check=args.process_index == 0))
    try:
        return Rows(table, dict(record["counts"]), int(record["without_loss"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_record(path, error) from error


class _Making:
    """Rows as they are made, one after the other, and what is counted meanwhile."""

    def __init__(
        self,
        method: type[Method],
        part: str,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        drawing: Drawing | None,
    ) -> None:
        self._method, self._part, self._examples = method, part, examples
        self._tokenizer, self._args, self._drawing = tokenizer, args, drawing
        self.counts = dict.fromkeys(method.count_names, 0)
        self.without_loss = 0

    def rows(self) -> Iterator[Row]:
        for row in self._rows():
            # From the end: there the answer is.
            self.without_loss += all(label == IGNORE for label in reversed(row.get("labels", [0])))
            yield row

    def _rows(self) -> Iterator[Row]:
        method, examples = self._method, self._examples
        if is_held_out(self._part):
            return (method.plain_row(example) for example in examples)
        pairs: Pairs = ((example, {}) for example in examples)
        if self._drawing is not None:
            pairs = self._drawing.store.joined(examples)
        return method.rows(pairs, examples, self._tokenizer, self._args, self.counts, evaluation=self._part != TRAIN)

    def record(self) -> dict[str, Any]:
        """For `write_table`; the counts as pairs, in their order."""
        return {"counts": list(self.counts.items()), "without_loss": self.without_loss}


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


def row_records(
    method: type[Method], rows: Dataset, tokenizer: PreTrainedTokenizerBase, count: int
) -> list[dict[str, Any]]:
    """The first rows as `row_record` has them."""
    return [row_record(each, tokenizer) for row in rows_of(rows, count) for each in method.shown_sequences(row)]


def placeholder_rows(method: type[Method], examples: ExampleSet) -> Dataset:
    rows = [method.plain_row(example) for example in examples.part(0, _PLACEHOLDER_ROWS)]
    return trainable(method, rows_to_dataset(rows, method.row_features))
