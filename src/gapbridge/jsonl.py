r"""JSON lines: one value a line. A line ends at "\n" alone: U+2028, U+2029 and U+0085 may stand in a JSON string."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


_SHOWN = 80  # characters of a value in a message
_DEEPEST = 100  # brackets in brackets
_TOO_DEEP = f"brackets are nested more than {_DEEPEST} deep"


def parse_json(text: str, *, finite: bool = True) -> Any:
    """The value that a JSON text holds.

    Args:
        finite: refuse NaN, Infinity and numbers that overflow to it, which JSON does not have.

    Raises:
        ValueError: the text is no JSON, holds a number that cannot be read, brackets nested more than 100 deep, or
            half of a surrogate pair, which no file can hold.
    """
    numbers: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite_float} if finite else {}
    try:
        value = json.loads(text, **numbers)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    parts = [(value, 0)]
    while parts:
        part, depth = parts.pop()
        if isinstance(part, str):
            _check_text(part)
        elif isinstance(part, (list, dict)):
            if depth == _DEEPEST:
                raise ValueError(_TOO_DEEP)
            inner = part if isinstance(part, list) else [*part, *part.values()]
            parts += [(entry, depth + 1) for entry in inner]
    return value


def as_json_values(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """An object as a JSON file gives it back: keys are text, tuples are lists.

    Args:
        default: makes a JSON value of what is none, as for `json.dumps`.
    """
    decoded: dict[str, Any] = json.loads(json.dumps(dict(value), default=default))
    return decoded


def read_json_lines(path: Path, *, finite: bool = True) -> Iterator[tuple[int, Any]]:
    r"""Each line's number, from 1, and its value, or the ValueError that says what is wrong with it.

    Blank lines are left out. Lines end at "\n" or "\r\n"; the last one may lack it.

    Args:
        finite: as for `parse_json`.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        for number, encoded in enumerate(file, start=1):
            try:
                line = encoded.decode()
                value = parse_json(line, finite=finite) if line.strip() else None
            except ValueError as error:
                yield number, error
            else:
                if line.strip():
                    yield number, value


def shown_value(value: Any) -> str:
    """A value in a message: a scalar on one line of bounded length, or the type of anything else."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair, {text[error.start]!r}, is no text") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:_SHOWN]} is too large a number")
    return value
