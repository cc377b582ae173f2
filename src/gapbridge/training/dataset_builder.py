"""The rows of a method: its contexts opened, generated and joined with the examples, for training and for a
preview."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.arrow_files import ROWS_PER_CHUNK, damaged_record, new_table, open_table
from ..data.example import IGNORE_INDEX, Example, ExampleSet
from ..errors import ConfigError, DataError
from ..files import sha256
from ..store.context_store import ContextStore
from ..store.fingerprint import weights_fingerprint
from ..store.generate_shards import GenerationSpec, Progress, generate_contexts, open_context_store
from .arguments import EVAL, EVAL_GENERATED, TRAIN
from .artifact_cache import ROWS, built_once, table_path
from .hooks import ExamplesWithGenerations, MethodHooks, RowsWithStats
from .preflight import batch_errors
from .rows import Row
from .stats import GenerationStats


logger = logging.getLogger(__name__)

_PLACEHOLDER_ROWS = 2  # that TRL's constructor gets while the rows are not generated yet


@dataclass(frozen=True)
class PendingGeneration:
    """A part's contexts: how they are generated, and the store that holds them."""

    contexts: GenerationSpec
    store: ContextStore


@dataclass(frozen=True)
class BuiltDataset:
    """The rows of a part, what they were made from, and how many of them carry no loss anywhere."""

    table: Dataset
    stats: GenerationStats
    num_rows_without_loss: int


def open_context_stores(
    method: type[MethodHooks],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, ExampleSet],
    args: Any,
) -> dict[str, PendingGeneration]:
    """The stores of a round's contexts below `args.output_dir`, by part; empty: nothing is generated.

    Opened once a round: what is there is checked, and the weights that generate are hashed once for both. What will
    generate, such as a server, is reached. Nothing is written.

    Raises:
        StoreError: a store holds contexts that were made with other options, or a damaged shard.
        ConfigError: there is not one batch. RunError: a server is not there.
    """
    generations: dict[str, PendingGeneration] = {}
    # `validate` constructs a trainer with a model of shapes alone.
    has_weights = any(parameter.device.type != "meta" for parameter in model.parameters())
    weights = None if has_weights else "none"
    for part, examples in parts.items():
        if errors := batch_errors(args, {part: len(examples)}):
            raise ConfigError([f"{examples.source}, {error}" for error in errors])
        if part != TRAIN and EVAL_GENERATED not in method.eval_sets(args):
            continue
        contexts = method.generation_spec(model, tokenizer, examples, args)
        if contexts is None:
            continue
        weights = weights or weights_fingerprint(model)
        directory = Path(args.output_dir) / (
            "_contexts" if part == TRAIN else f"_eval_contexts{part.removeprefix(EVAL)}"
        )
        store = open_context_store(contexts, model, tokenizer, examples, args, directory, weights=weights)
        if args.process_index == 0 and directory.is_dir():
            store.check()
        generations[part] = PendingGeneration(contexts, store)
    for generation in generations.values() if has_weights else ():
        if not generation.store.is_complete():
            generation.contexts.open()
    return generations


def generate_pending_contexts(generation: PendingGeneration, examples: ExampleSet, args: Any) -> None:
    """Generate what the store lacks."""
    if args.process_index == 0 and generation.store.is_complete():
        found, count = generation.store.directory, generation.store.num_examples
        logger.warning("%s: reused all %d contexts", found, count)
    try:
        generate_contexts(generation.store, examples, args, generation.contexts.generate, generation.contexts.what)
    finally:
        generation.contexts.close()


def rows_in_memory(
    method: type[MethodHooks], part: str, examples: ExampleSet, tokenizer: PreTrainedTokenizerBase, args: Any
) -> BuiltDataset:
    """All rows of a part for which nothing is generated, in the memory of this process.

    Args:
        part: `train`, `eval` (held-out rows with reference contexts) or `eval_generated` (with generated ones), the
            latter two with the name of a data set after a point where there are several.
    """
    sink = pa.BufferOutputStream()
    stats, without_loss = _write_rows(sink, method, part, examples, tokenizer, args)
    return BuiltDataset(Dataset.from_buffer(sink.getvalue()), stats, without_loss)


def build_and_cache_rows(
    method: type[MethodHooks],
    part: str,
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    shared: Mapping[str, Any],
    generation: PendingGeneration | None = None,
) -> BuiltDataset:
    """All rows of a part, in a table below `args.output_dir`: process 0 makes it, all map it into memory, and a later
    start finds it again. Older ones of the part are deleted.

    Args:
        shared: `shared_identity`, with the settings as the caller gave them: constructors of trainers write into
            `args`.

    Raises:
        StoreError: what is there is damaged. RunError: another process failed. DataError: there is no row.
    """
    contexts = [] if generation is None else [generation.store.manifest_path, *generation.contexts.sources]
    identity = {
        **shared,
        "examples": [examples.fingerprint(), examples.conversational, examples.stops, examples.date],
        "chat_template_kwargs": dict(examples.chat_template_kwargs),
        "contexts": [sha256(path) for path in contexts],
    }
    path = table_path(Path(args.output_dir) / ROWS, part, identity)
    with built_once(path, args) as builds:
        if builds:
            for older in path.parent.glob(f"{part}-*"):
                older.unlink(missing_ok=True)
            with new_table(path) as (file, record):
                stats, without_loss = _write_rows(file, method, part, examples, tokenizer, args, generation)
                if part.partition(".")[0] != EVAL:
                    require_rows(stats, examples, args)
                # Pairs keep their order.
                record |= {"counts": list(stats.counts().items()), "without_loss": without_loss}
    table, record = open_table(path, check=args.process_index == 0)
    try:
        return BuiltDataset(table, method.stats_class(**dict(record["counts"])), int(record["without_loss"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_record(path, error) from error


def _write_rows(
    sink: Any,
    method: type[MethodHooks],
    part: str,
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    generation: PendingGeneration | None = None,
) -> tuple[GenerationStats, int]:
    """Write the rows of a part as an Arrow stream; their stats, and how many of them carry no loss."""
    built: RowsWithStats
    if part.partition(".")[0] == EVAL:
        built = (([method.sft_row(example)], method.stats_class()) for example in examples)
    else:
        pairs: ExamplesWithGenerations = ((example, {}) for example in examples)
        if generation is not None:
            pairs = generation.store.iter_with(examples)
        built = method.build_rows(pairs, examples, tokenizer, args, evaluation=part != TRAIN)
    total, without_loss = method.stats_class(), 0
    waiting: list[Row] = []
    schema = method.row_features.arrow_schema
    with pa.ipc.new_stream(sink, schema) as writer:
        for rows, stats in built:
            total += stats
            # From the end: there the answer is.
            without_loss += sum(
                all(label == IGNORE_INDEX for label in reversed(row.get("labels", [0]))) for row in rows
            )
            waiting += rows
            if len(waiting) >= ROWS_PER_CHUNK:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
    return total, without_loss


def require_rows(stats: GenerationStats, examples: ExampleSet, args: Any) -> None:
    """Raise a `DataError` where nothing is left to train on."""
    if errors := stats.errors(args):
        raise DataError([f"{examples.source}, {error}" for error in errors])


def first_rows(
    method: type[MethodHooks],
    examples: ExampleSet,
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    contexts: GenerationSpec | None,
    count: int,
    on_finished: Progress = lambda _: None,
) -> tuple[list[Row], GenerationStats]:
    """The first `count` rows that are trained, and what they are made from; only their contexts are generated, and
    nothing is written. `on_finished` is called with numbers of finished contexts."""
    pairs = (
        _generate_blocks(examples, contexts, count, on_finished)
        if contexts
        else ((example, {}) for example in examples)
    )
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


def _generate_blocks(
    examples: ExampleSet, contexts: GenerationSpec, block: int, on_finished: Progress
) -> Iterator[tuple[Example, dict[str, Any]]]:
    for start in range(0, len(examples), block):
        part = examples.part(start, start + block)
        columns = contexts.generate(part, on_finished)
        for at, example in enumerate(part):
            yield example, {name: column[at] for name, column in columns.items()}


def placeholder_rows(method: type[MethodHooks], examples: ExampleSet) -> Dataset:
    rows = [method.sft_row(example) for example in examples.part(0, _PLACEHOLDER_ROWS)]
    return Dataset.from_list(rows, features=method.row_features).select_columns(method.trained_columns())
