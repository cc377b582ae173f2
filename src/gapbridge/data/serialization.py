"""A set of examples on disk: its table, and beside it what else it knows, its fingerprint among it."""

from __future__ import annotations

from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from .arrow_files import damaged_record, iterate_chunks, new_table, open_table, write_parts
from .example import BadRow, ExampleSet


def save_examples(examples: ExampleSet, path: Path) -> None:
    """Write a set to `path`, an `.arrow` file, and its record beside it; see `arrow_files.py`.

    Raises:
        RunError: the disk refuses it.
    """
    known = {entry.name: vars(examples)[entry.name] for entry in fields(examples) if entry.name != "table"}
    known["bad_rows"] = [astuple(bad) for bad in examples.bad_rows]
    with new_table(path) as (file, record):
        write_parts(file, iterate_chunks(examples.table), examples.table.features.arrow_schema)
        record |= {"known": known, "fingerprint": examples.fingerprint()}


def load_saved_examples(path: Path, kind: type[ExampleSet], *, check: bool = False) -> ExampleSet:
    """A set that was kept, its table mapped into memory.

    Args:
        kind: the class of the set.
        check: whether the content of the table is compared with its record.

    Raises:
        StoreError: it is not what was written.
    """
    table, record = open_table(path, check=check)
    try:
        known: dict[str, Any] = dict(record["known"])
        known["bad_rows"] = [BadRow(*bad) for bad in known["bad_rows"]]
        known["stops"] = tuple(known["stops"])
        examples = kind(table=table, **known)
        vars(examples)["_fingerprint"] = record["fingerprint"]  # of this very table: a set made from it has its own
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_record(path, error) from error
    return examples
