"""The rows of a method: its contexts opened, drawn and joined with the examples, for training and for a preview."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..contexts.fill import Contexts, Progress, fill_store, open_store
from ..contexts.fingerprint import weights_fingerprint
from ..contexts.store import ContextStore
from ..errors import ConfigError, DataError
from ..examples.example import IGNORE, Example, ExampleSet
from ..examples.tables import PART, damaged_record, open_table, write_table
from ..files import sha256
from .arguments import EVAL, EVAL_OWN, TRAIN, is_held_out
from .hooks import Built, MethodHooks, Pairs
from .once import ROWS, make_once, table_path
from .rows import Row, row_record, rows_of, rows_to_dataset
from .starting import batch_faults
from .stats import GenerationStats


logger = logging.getLogger(__name__)

_PLACEHOLDER_ROWS = 2  # that TRL's constructor gets while the rows are not drawn yet


@dataclass(frozen=True)
class Drawing:
    """A part's contexts: how they are drawn, and the store that holds them."""

    contexts: Contexts
    store: ContextStore


@dataclass(frozen=True)
class Rows:
    """The rows of a part, what they were made from, and how many of them carry no loss anywhere."""

    table: Dataset
    stats: GenerationStats
    without_loss: int


def open_drawings(
    method: type[MethodHooks],
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
        if faults := batch_faults(args, {part: len(examples)}):
            raise ConfigError([f"{examples.source}, {fault}" for fault in faults])
        if is_held_out(part) and EVAL_OWN not in method.eval_sets(args):
            continue
        contexts = method.generation_spec(model, tokenizer, examples, args)
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


def rows_in_memory(
    method: type[MethodHooks], part: str, examples: ExampleSet, tokenizer: PreTrainedTokenizerBase, args: Any
) -> Rows:
    """All rows of a part for which nothing is drawn, in the memory of this process.

    Args:
        part: `train`, `eval` (held-out rows with reference contexts) or `eval_own` (with own ones), the latter two
            with the name of a data set behind a point where there are several.
    """
    sink = pa.BufferOutputStream()
    stats, without_loss = _write_rows(sink, method, _built(method, part, examples, tokenizer, args, None))
    return Rows(Dataset.from_buffer(sink.getvalue()), stats, without_loss)


def keep_rows(
    method: type[MethodHooks],
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
        StoreError: what is there is damaged. RunError: another process failed. DataError: there is no row.
    """
    contexts = [] if drawing is None else [drawing.store.manifest_path, *drawing.contexts.sources]
    identity = {
        **shared,
        "examples": [examples.fingerprint(), examples.conversational, examples.stops, examples.date],
        "chat_template_kwargs": dict(examples.chat_template_kwargs),
        "contexts": [sha256(path) for path in contexts],
    }
    path = table_path(Path(args.output_dir) / ROWS, part, identity)

    def write(file: Any) -> dict[str, Any]:
        built = _built(method, part, examples, tokenizer, args, drawing)
        stats, without_loss = _write_rows(file, method, built)
        if not is_held_out(part):
            require_rows(stats, examples, args)
        return {"counts": list(stats.counts().items()), "without_loss": without_loss}  # pairs keep their order

    def make() -> None:
        for older in path.parent.glob(f"{part}-*"):
            older.unlink(missing_ok=True)
        write_table(path, write)

    table, record = make_once(path, args, make, lambda: open_table(path, check=args.process_index == 0))
    try:
        return Rows(table, method.stats_class(**dict(record["counts"])), int(record["without_loss"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_record(path, error) from error


def _built(
    method: type[MethodHooks],
    part: str,
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    drawing: Drawing | None,
) -> Built:
    if is_held_out(part):
        return (([method.plain_row(example)], method.stats_class()) for example in examples)
    pairs: Pairs = ((example, {}) for example in examples)
    if drawing is not None:
        pairs = drawing.store.joined(examples)
    return method.build_rows(pairs, examples, tokenizer, args, evaluation=part != TRAIN)


def _write_rows(sink: Any, method: type[MethodHooks], built: Built) -> tuple[GenerationStats, int]:
    """Write rows as an Arrow stream; their stats, and how many of them carry no loss."""
    total, without_loss = method.stats_class(), 0
    part: list[Row] = []
    schema = method.row_features.arrow_schema
    with pa.ipc.new_stream(sink, schema) as writer:
        for rows, stats in built:
            total += stats
            # From the end: there the answer is.
            without_loss += sum(all(label == IGNORE for label in reversed(row.get("labels", [0]))) for row in rows)
            part += rows
            if len(part) >= PART:
                writer.write_table(pa.Table.from_pylist(part, schema=schema))
                part = []
        if part:
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
    return total, without_loss


def require_rows(stats: GenerationStats, examples: ExampleSet, args: Any) -> None:
    """Raise a `DataError` where nothing is left to train on."""
    if faults := stats.faults(args):
        raise DataError([f"{examples.source}: {fault}" for fault in faults])


def first_rows(
    method: type[MethodHooks],
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    contexts: Contexts | None,
    count: int,
    on_finished: Progress = lambda _: None,
) -> tuple[list[Row], GenerationStats]:
    """The first `count` rows that are trained, and what they are made from; only their contexts are drawn, and nothing
    is written. `on_finished` is called with numbers of finished contexts."""
    pairs = _drawn(examples, contexts, count, on_finished) if contexts else ((example, {}) for example in examples)
    rows: list[Row] = []
    total = method.stats_class()
    try:
        for found, stats in method.build_rows(pairs, examples, tokenizer, args):
            rows += found
            total += stats
            if len(rows) >= count:
                break
        else:
            require_rows(total, examples, args)
        return rows[:count], total
    finally:
        if contexts is not None:
            contexts.close()


def _drawn(
    examples: ExampleSet, contexts: Contexts, block: int, on_finished: Progress
) -> Iterator[tuple[Example, dict[str, Any]]]:
    for start in range(0, len(examples), block):
        part = examples.part(start, start + block)
        columns = contexts.draw(part, on_finished)
        for at, example in enumerate(part):
            yield example, {name: column[at] for name, column in columns.items()}


def trainable(method: type[MethodHooks], rows: Dataset) -> Dataset:
    """What the trainer gets of rows: for SFT ids and labels."""
    return rows.select_columns(method.trained_columns())


def shown(method: type[MethodHooks], rows: Dataset, tokenizer: PreTrainedTokenizerBase, count: int) -> list[Text]:
    """The first rows as they are trained."""
    return [method.show(row, tokenizer) for row in rows_of(rows, count)]


def row_records(
    method: type[MethodHooks], rows: Dataset, tokenizer: PreTrainedTokenizerBase, count: int
) -> list[dict[str, Any]]:
    """The first rows as `row_record` has them."""
    return [row_record(each, tokenizer) for row in rows_of(rows, count) for each in method.shown_sequences(row)]


def placeholder_rows(method: type[MethodHooks], examples: ExampleSet) -> Dataset:
    rows = [method.plain_row(example) for example in examples.part(0, _PLACEHOLDER_ROWS)]
    return trainable(method, rows_to_dataset(rows, method.row_features))
