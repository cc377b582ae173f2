"""Files of ready answers: any model's output, one JSON object a line with `id`, `prompt`, `reference`, `answer`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..errors import DataError, describe
from ..jsonl import read_json_lines, shown_value


logger = logging.getLogger(__name__)

_SHOWN = 20


def read_answers(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The file's lines as samples.

    `id` may be missing (the line number takes its place) or repeat (several answers to a problem), `prompt` may be
    missing. `reference` is the data set's own answer text. The other fields are left out.

    Args:
        limit: the first so many lines only.

    Raises:
        DataError: the file is missing or empty, or lines cannot be used; all are listed with their numbers.
    """
    if not path.is_file():
        raise DataError(path, f"no such file (looked from {Path.cwd()})", "a file of completions", "Correct the path")
    samples: list[dict[str, Any]] = []
    errors: list[str] = []
    names: dict[str, int] = {}  # each id, with how many samples of it there are
    for number, row in read_json_lines(path):
        if limit is not None and len(samples) + len(errors) == limit:
            break
        found = _row_error(row)
        if isinstance(found, str):
            errors.append(f"{path}, line {number}, {found}")
            continue
        sample = {
            "id": found.get("id", number),
            "prompt": found.get("prompt", ""),
            "reference": str(found["reference"]),
            "answer": found["answer"],
        }
        sample["id"] = _unique(sample["id"], names)
        samples.append(sample)
    if errors:
        more = [f"and {len(errors) - _SHOWN} more lines"] if len(errors) > _SHOWN else []
        raise DataError([*errors[:_SHOWN], *more])
    if not samples:
        raise DataError(path, "no completion", "at least one", "Check how the file was made")
    repeated = sum(count > 1 for count in names.values())
    if repeated:
        logger.warning(
            "%s: %d ids occur several times; their further answers are numbered as id#2, id#3, …, and intervals "
            "take them for answers to other examples",
            path, repeated,
        )  # fmt: skip
    return samples


def _unique(name: str | int, names: dict[str, int]) -> str | int:
    """The id, or `id#2`, `id#3`, … where earlier lines have it; `names` counts it."""
    times = names[str(name)] = names.get(str(name), 0) + 1
    if times == 1:
        return name
    while f"{name}#{times}" in names:  # an id of the file itself may look like that
        times += 1
    names[str(name)] = times
    names[f"{name}#{times}"] = 1
    return f"{name}#{times}"


_REPAIR_LINE = "Repair or remove the line"


def _row_error(row: Any) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    if isinstance(row, ValueError):
        got = f"{'no UTF-8 text' if isinstance(row, UnicodeDecodeError) else 'no JSON'} ({row})"
        return describe("content", got, "a JSON object", _REPAIR_LINE)
    if not isinstance(row, dict):
        return describe("content", "another value", "a JSON object", _REPAIR_LINE)
    wanted = ("reference", "answer")
    missing = [name for name in wanted if name not in row]
    if missing:
        got = f"no {' and no '.join(map(repr, missing))}, but {', '.join(map(shown_value, row))}"
        return describe("content", got, ", ".join(wanted), _REPAIR_LINE)
    if not isinstance(row["answer"], str):
        return describe("answer", shown_value(row["answer"]), "a string", _REPAIR_LINE)
    if not isinstance(row["reference"], (str, int, float)) or isinstance(row["reference"], bool):
        return describe("reference", shown_value(row["reference"]), "the reference text of the data set", _REPAIR_LINE)
    if not str(row["reference"]).strip():
        return describe("reference", "an empty string", "text", _REPAIR_LINE)
    if not isinstance(row.get("id", 0), (str, int)) or not _is_prompt(row.get("prompt", "")):
        expected = "an id of text or a number, a prompt of text or a list of messages"
        return describe("id and prompt", "other types", expected, _REPAIR_LINE)
    return row


def _is_prompt(value: Any) -> bool:
    """Whether it is a text, or a list of messages."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(turn, dict) for turn in value))
