"""Files of ready answers: any model's output, one JSON object a line with `id`, `prompt`, `reference`, `answer`."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import DataError


logger = logging.getLogger(__name__)

_SHOWN = 20


def read_answers(path: Path, *, label: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """The file's lines as samples.

    `id` may be missing (the line number takes its place) or repeat (several answers to a problem), `prompt` may be
    missing. `reference` is the data set's own answer text. The other fields are left out, but for `label`.

    Args:
        label: the field of a published mark, true or false, that is kept as `label`.
        limit: the first so many lines only.

    Raises:
        DataError: the file is missing or empty, or lines cannot be used; all are listed with their numbers.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked from {Path.cwd()})")
    samples: list[dict[str, Any]] = []
    faults: list[str] = []
    seen: Counter[str] = Counter()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if limit is not None and len(samples) + len(faults) == limit:
            break
        found = _fault(line, label)
        if isinstance(found, str):
            faults.append(f"{path}, line {number}: {found}")
            continue
        sample = {
            "id": found.get("id", number),
            "prompt": found.get("prompt", ""),
            "reference": str(found["reference"]),
            "answer": found["answer"],
        }
        if label is not None:
            sample["label"] = bool(found[label])
        seen[str(sample["id"])] += 1
        times = seen[str(sample["id"])]
        if times > 1:
            sample["id"] = f"{sample['id']}#{times}"
        samples.append(sample)
    if faults:
        more = [f"and {len(faults) - _SHOWN} more lines"] if len(faults) > _SHOWN else []
        raise DataError([*faults[:_SHOWN], *more])
    if not samples:
        raise DataError(f"{path}: holds no answer")
    repeated = sum(count > 1 for count in seen.values())
    if repeated:
        logger.warning(
            "%s: %d ids occur several times; their further answers are told apart as id#2, id#3, …, and intervals "
            "take them for answers to other examples",
            path, repeated,
        )  # fmt: skip
    return samples


def _fault(line: str, label: str | None) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"is no JSON ({error})"
    if not isinstance(row, dict):
        return "is no JSON object"
    wanted = ("reference", "answer", *(() if label is None else (label,)))
    missing = [name for name in wanted if name not in row]
    if missing:
        return f"has no {' and no '.join(map(repr, missing))}; it has {', '.join(map(repr, row))}"
    if not isinstance(row["answer"], str):
        return f"answer is {row['answer']!r}: it must be a string"
    if not isinstance(row["reference"], (str, int, float)) or isinstance(row["reference"], bool):
        return f"reference is {row['reference']!r}: it must be the data set's answer text"
    if not str(row["reference"]).strip():
        return "reference is empty"
    if not isinstance(row.get("id", 0), (str, int)) or not isinstance(row.get("prompt", ""), (str, list)):
        return "id must be a string or a number, prompt a string or a list of messages"
    if label is not None and row[label] not in (True, False, 0, 1):
        return f"{label} is {row[label]!r}: a mark is true or false"
    return row
