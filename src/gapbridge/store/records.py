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


def read_record(path: Path, *, is_needed: bool = True) -> dict[str, Any]:
    """A file's object, or an empty one where there is no file.

    Args:
        is_needed: False where nothing but a report depends on it: a damaged file is named in a warning and left out.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"), finite=False)
        if isinstance(value, dict):
            return value
        reason = f"it holds {shown_value(value)}"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = str(error)
    damaged = RunError(path, f"a damaged file ({reason})", "a JSON object", "Delete or restore the file")
    if is_needed:
        raise damaged
    logger.warning("%s It is left out.", damaged)
    return {}


def read_seconds(path: Path) -> float | None:
    """The seconds that `add_seconds` wrote; None where there is no such file, or a damaged one, which is named."""
    record = read_record(path, is_needed=False)
    seconds = record.get("seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < math.inf:
        return float(seconds)
    if record:
        logger.warning("%s: holds no number of seconds; it is left out", path)
    return None


def add_seconds(path: Path, seconds: float) -> None:
    """Add wall seconds to those of earlier starts, for the report; what cannot be read counts as none."""
    write_json_atomic(path, {"seconds": round((read_seconds(path) or 0.0) + seconds, 3)})
