"""The plain files that a run leaves, as records: its settings and state, its rounds, the seconds that they took."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError, describe
from ..jsonl import shown_value
from ..store.records import read_record, read_seconds


RUN_FILE = "run.json"


def read_run(directory: Path) -> dict[str, Any]:
    """A run's record: its settings, state, inputs by name, and the date (None with older versions).

    Raises:
        RunError: it is damaged, or not there.
    """
    path = directory / RUN_FILE
    record = read_record(path)
    record = {"inputs": {}, "date": None, **record}
    errors = [
        describe(f"{path}, {key}", _shown(record.get(key)), wanted, "Restore the file, or choose another output_dir")
        for key, wanted, right in (
            ("settings", "an object", isinstance(record.get("settings"), dict)),
            ("state", "running or complete", record.get("state") in ("running", "complete")),
            ("inputs", "fingerprints by name", _all_text(record["inputs"])),
            ("date", "a date", record["date"] is None or _is_date(record["date"])),
        )
        if not right
    ]
    if errors:
        raise RunError(errors)
    return record


def _shown(value: Any) -> str:
    return "no value" if value is None else shown_value(value)


def _all_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _is_date(value: Any) -> bool:
    try:
        datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def stages(run: Path) -> list[Path]:
    """The directories of a run's rounds, in order."""
    rounds = [path for path in run.glob("round_*") if path.name.removeprefix("round_").isdecimal()]
    return sorted(rounds, key=lambda path: int(path.name.removeprefix("round_")))


def seconds(rounds: Sequence[Path]) -> dict[str, float | None]:
    """Wall seconds that rounds took together, over all starts of the run; None of what did not happen."""
    found = {}
    for name, file in (("generation", "_contexts/timing.json"), ("training", "timing.json")):
        values = [value for stage in rounds if (value := read_seconds(stage / file)) is not None]
        found[name] = sum(values) if values else None
    return found


def flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, `datasets.0.path`, their values as text; what is not set is left out."""
    if settings is None:
        return {}
    if not isinstance(settings, (dict, list)) or not settings:
        return {prefix: settings if isinstance(settings, str) else json.dumps(settings)}
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    found: dict[str, str] = {}
    for key, value in items:
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
