"""Small JSON records of a run: a damaged one is named, refused where results depend on it, and else left out."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import write_json_atomic
from ..jsonl import parse_json, shown_value


logger = logging.getLogger(__name__)


def read_record(path: Path) -> dict[str, Any]:
    """A file's object, or an empty one where there is no file.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"), finite=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(path, f"a damaged file ({error})", "a JSON object", "Delete or restore the file") from error
    if not isinstance(value, dict):
        got = f"a damaged file (it holds {shown_value(value)})"
        raise RunError(path, got, "a JSON object", "Delete or restore the file")
    return value


def read_note(path: Path) -> dict[str, Any]:
    """As `read_record`, of what nothing but a report depends on: a damaged file is named in a warning and left out."""
    try:
        return read_record(path)
    except RunError as error:
        logger.warning("%s It is left out.", error)
        return {}


def read_seconds(path: Path) -> float | None:
    """The seconds that `add_seconds` wrote; None where there is no such file, or a damaged one, which is named."""
    record = read_note(path)
    seconds = record.get("seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < math.inf:
        return float(seconds)
    if record:
        logger.warning("%s: holds no number of seconds; it is left out", path)
    return None


def add_seconds(path: Path, seconds: float) -> None:
    """Add wall seconds to those of earlier starts, for the report; what cannot be read counts as none."""
    write_json_atomic(path, {"seconds": round((read_seconds(path) or 0.0) + seconds, 3)})
