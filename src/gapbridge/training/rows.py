"""Rows: `input_ids` and `labels` of equal length, label -100 where no loss falls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from ..examples.example import ExampleSet


IGNORE = -100

ROW_FEATURES = Features({"id": Value("string"), "input_ids": List(Value("int64")), "labels": List(Value("int64"))})
_PART = 2000


def masked_row(context: Sequence[int], answer: Sequence[int]) -> dict[str, list[int]]:
    """`context` without loss, then `answer` with all of it."""
    return {"input_ids": [*context, *answer], "labels": [*([IGNORE] * len(context)), *answer]}


def reference_dataset(examples: ExampleSet) -> Dataset:
    """SFT rows: each prompt with its reference answer."""
    return rows_to_dataset({"id": e.id, **masked_row(e.prompt, [*e.reference, *e.trailer])} for e in examples)


def rows_to_dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    """An in-memory data set of rows, built in parts so that no more than a part is held as Python lists."""
    parts: list[Dataset] = []
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _PART:
            parts.append(Dataset.from_list(part, features=ROW_FEATURES))
            part = []
    if part:
        parts.append(Dataset.from_list(part, features=ROW_FEATURES))
    return concatenate_datasets(parts) if parts else Dataset.from_dict({k: [] for k in ROW_FEATURES}, ROW_FEATURES)
