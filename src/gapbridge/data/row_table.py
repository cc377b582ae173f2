"""A data set's rows through a tokeniser: the good ones in one table, the bad ones listed, the cut ones counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, Features, Value

from ..errors import DataError, describe
from ..files import os_errors_as_run_error
from .arrow_files import ROWS_PER_CHUNK
from .conversation import CONVERSATION_COLUMNS
from .example import BadRow


logger = logging.getLogger(__name__)

SHOWN_BAD_ROWS = 20


@dataclass(frozen=True)
class Tokenised:
    """The good rows of a data set, its bad rows, and how many were cut at the border of prompt and answer, cut to
    `max_length`, or left out since nothing was left to learn then."""

    table: Dataset
    bad_rows: list[BadRow]
    cut: int
    truncated: int
    left_out: int


FLAGS = {
    "error": Value("string"),
    "cut_prompt": Value("bool"),
    "truncated": Value("bool"),  # to `max_length`
    "endless": Value("bool"),  # without its stop token, which was cut off
    "left_out": Value("bool"),  # nothing is left to learn
}


def tokenise_rows(
    dataset: Dataset,
    tokenise: Callable[..., dict[str, Any]],
    features: Features,
    *,
    num_proc: int | None,
    source: str,
    on_invalid_example: str,
) -> Tokenised:
    """The good rows of a data set in columns of `features`, and what became of the others.

    Args:
        tokenise: a row and the `features` of its nested columns → columns of `features` and `FLAGS`.

    Raises:
        DataError: there are bad rows (with `raise`), or no good one.
    """
    kept = dataset.features
    # Neither written to nor read from the cache of `datasets`: its key does not cover the code of this module. The
    # file is mapped into memory, and gone when no reader is left.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, os_errors_as_run_error(Path(folder) / "rows.arrow"):
        table = dataset.map(
            tokenise,
            fn_kwargs={"features": {name: kept[name] for name in CONVERSATION_COLUMNS if name in kept}},
            remove_columns=dataset.column_names,
            features=Features({**features, **FLAGS}),
            num_proc=num_proc,
            desc="Tokenizing",
            load_from_cache_file=False,
            cache_file_name=f"{folder}/rows.arrow",
            writer_batch_size=ROWS_PER_CHUNK,
        )
    ids, errors = _unique_ids(table["id"][:], table["error"][:], explicit="id" in dataset.column_names)
    bad_rows = [BadRow(row, ids[row], error) for row, error in enumerate(errors) if error]
    left_out = table["left_out"][:]
    good = [row for row, error in enumerate(errors) if not error and not left_out[row]]
    if bad_rows:
        _report_bad_rows(bad_rows, len(table), source, on_invalid_example)
    if not good:
        got = f"{len(bad_rows)} invalid rows and {sum(left_out)} without a trained token within max_length"
        raise DataError(source, got, "a row to train on", "Repair the rows, or raise max_length")
    cut = sum(table["cut_prompt"][:])
    if cut:
        logger.warning(
            "%s: in %d of %d rows the tokenized prompt is no prefix of the tokenized row, because tokens merge across "
            "the border. The answer starts at the first token that differs.",
            source, cut, len(table),
        )  # fmt: skip
    truncated = sum(table["truncated"][:])
    if truncated or any(left_out):
        logger.warning(
            "%s: %d of %d rows are longer than max_length and are truncated, as in TRL. %d of them lose their stop "
            "token. %d have no trained token left and are dropped. truncate_overlong: false refuses such rows.",
            source, truncated + sum(left_out), len(table), sum(table["endless"][:]), sum(left_out),
        )  # fmt: skip
    table = table.remove_columns(["id", *FLAGS]).add_column("id", ids)
    if len(good) < len(table):
        table = table.select(good)
    return Tokenised(table, bad_rows, cut, truncated, sum(left_out))


def _unique_ids(ids: list[str], errors: list[str], *, explicit: bool) -> tuple[list[str], list[str]]:
    """Given ids must differ; ids made from the content get a number where a row occurs again."""
    seen: dict[str, int] = {}
    times: Counter[str] = Counter()
    unique, all_errors = [], []
    for row, (example_id, error) in enumerate(zip(ids, errors, strict=True)):
        first = seen.setdefault(example_id, row)
        if first != row and explicit and not error:
            error = describe("id", f"the duplicate of row {first}", "unique ids", "Rename or remove one of the rows")
        elif first != row and not explicit:
            times[example_id] += 1
            example_id = f"{example_id}-{times[example_id] + 1}"
        unique.append(example_id)
        all_errors.append(error)
    return unique, all_errors


def _report_bad_rows(bad_rows: list[BadRow], total: int, source: str, on_invalid_example: str) -> None:
    lines = [f"{source}, row {bad.row} (id {bad.id}), {bad.reason}" for bad in bad_rows]
    shown = lines[:SHOWN_BAD_ROWS]
    if on_invalid_example == "raise":
        more = f" ({len(lines) - len(shown)} more are not shown)" if len(lines) > len(shown) else ""
        cut = any("over-length" in bad.reason and "alone" not in bad.reason for bad in bad_rows)
        shorten = ", truncate long rows (`truncate_overlong: true`)," if cut else ""
        shown[-1] += (
            f"\n{len(lines)} of {total} rows cannot be used{more}. Repair them{shorten} or skip them "
            "(`on_invalid_example: skip`)."
        )
        raise DataError(shown)
    for line in shown:
        logger.warning("skipped %s", line)
    logger.warning("%s: skipped %d of %d rows", source, len(bad_rows), total)
