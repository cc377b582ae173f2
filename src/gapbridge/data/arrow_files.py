"""Tables of rows: Arrow files, whole or not there, mapped into memory and so shared by all processes of a node.

    train-0123456789abcdef.arrow    the rows
    train-0123456789abcdef.json     its size and sha256, and what else belongs to the rows; written last

A table is there when its record is. Ids are int32 everywhere: half of what Python's and Arrow's defaults take.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset, Features

from ..errors import StoreError
from ..files import atomic_file, sha256, write_json_atomic


ROWS_PER_CHUNK = 100  # rows that are held as Python lists at a time: 4 MB for each 1,000 tokens of their length


def chunk_rows(rows: Iterable[Mapping[str, Any]], features: Features) -> Iterator[pa.Table]:
    """Rows as Arrow tables of `PART` rows each."""
    remaining = iter(rows)
    while part := list(islice(remaining, ROWS_PER_CHUNK)):
        yield pa.Table.from_pylist(part, schema=features.arrow_schema)


def iterate_chunks(table: Dataset, size: int = 1000) -> Iterator[pa.Table]:
    """The rows of a data set as Arrow tables of `size` rows each."""
    yield from table.with_format("arrow").iter(batch_size=size)


def in_memory(parts: Iterable[pa.Table], features: Features) -> Dataset:
    """A data set in the memory of this process alone."""
    sink = pa.BufferOutputStream()
    write_parts(sink, parts, features.arrow_schema)
    return Dataset.from_buffer(sink.getvalue())


@contextmanager
def new_table(path: Path) -> Iterator[tuple[pa.NativeFile, dict[str, Any]]]:
    """A file to fill with an Arrow stream, and a dict for JSON values that `open_table` gives back.

    Args:
        path: an `.arrow` file. The table is there after the block, and not if it raises.

    Raises:
        RunError: the disk refuses it.
    """
    record: dict[str, Any] = {}
    record_path(path).unlink(missing_ok=True)
    with atomic_file(path) as temporary, pa.OSFile(str(temporary), "wb") as file:
        yield file, record
    write_json_atomic(record_path(path), {**record, "size": path.stat().st_size, "sha256": sha256(path)})


def open_table(path: Path, *, check: bool = False) -> tuple[Dataset, dict[str, Any]]:
    """The rows of a table, mapped into memory, and its record. The processes of a run call it together: none goes on
    to another table in its place before all have it.

    Args:
        check: whether its content is compared with the record, at the speed of the disk; its size always is.

    Raises:
        StoreError: it is not what was written.
    """
    try:
        record: dict[str, Any] = json.loads(record_path(path).read_text(encoding="utf-8"))
        full = path.stat().st_size == record["size"] and (not check or sha256(path) == record["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_record(path, error) from error
    if not full:
        raise StoreError(path, "a changed file", "the one that was written", _delete_advice(path))
    table = Dataset.from_file(str(path))
    PartialState().wait_for_everyone()
    return table, record


def damaged_record(path: Path, error: Exception) -> StoreError:
    """What is raised where the record of the table at `path` is not what was written."""
    got = f"a damaged file ({type(error).__name__}: {error})"
    return StoreError(record_path(path), got, "the one that was written", _delete_advice(path))


def record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def content_fingerprint(dataset: Dataset) -> str:
    """A hash of a data set's columns and all their values in their order, at about a gigabyte a second."""
    digest = hashlib.blake2b(digest_size=16)
    for part in iterate_chunks(dataset):
        sink = pa.BufferOutputStream()
        # Taken, so that the bytes do not depend on where the values came from.
        write_parts(sink, [part.take(pa.array(range(len(part)))).combine_chunks()], part.schema)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def write_parts(sink: Any, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables as one Arrow stream, their columns in the schema's order and types."""
    with pa.ipc.new_stream(sink, schema) as writer:
        for part in parts:
            writer.write_table(part.select(schema.names).cast(schema))


def _delete_advice(path: Path) -> str:
    return f"Delete {path} and {record_path(path).name}, which are made again"
