"""What a run leaves to read when it ends: `report.md` and `loss.png`, made from its plain files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..contexts.records import read_note, read_record, read_seconds
from ..examples.example import ExampleSet
from ..files import write_json_atomic, write_text_atomic
from ..training.metrics import read_metrics
from .directory import RUN_FILE
from .figures import LOSSES, draw_losses, save
from .tables import number, share, table


logger = logging.getLogger(__name__)


def write_data_record(directory: Path, examples: dict[str, ExampleSet]) -> None:
    """`data.json`: where the data came from, how many examples, every bad row, and what is held out and trained."""
    record: dict[str, dict[str, Any]] = {
        name: {
            "source": part.source,
            "examples": len(part),
            "truncated": part.truncated,
            "left_out_for_their_length": part.left_out,
            "prompts_cut_at_the_border": part.cut_prompts,
            "bad_rows": [{"row": bad.row, "id": bad.id, "reason": bad.reason} for bad in part.bad_rows],
        }
        for name, part in examples.items()
    }
    if "eval" in examples:
        known = set(_prompts(examples["train"]))
        shared = sum(prompt in known for prompt in _prompts(examples["eval"]))
        record["eval"]["prompts_also_trained"] = shared
        if shared:
            held_out = examples["eval"]
            logger.warning(
                "%s: %d of %d held-out prompts are trained as well: scores on them say little",
                held_out.source, shared, len(held_out),
            )  # fmt: skip
    write_json_atomic(directory / "data.json", record)


def _prompts(examples: ExampleSet) -> Iterator[int]:
    """A hash of each prompt."""
    for rows in examples.table.select_columns(["prompt", "has_prompt"]).iter(batch_size=1000):
        for prompt, has_prompt in zip(rows["prompt"], rows["has_prompt"], strict=True):
            if has_prompt is not False:
                yield hash(tuple(prompt))


def write_report(run: Path) -> Path:
    """Write `report.md` (and `loss.png`) from the files of a run."""
    lines = [f"# {run.name}", "", *table("setting", {"value": flat(read_record(run / RUN_FILE).get("settings", {}))})]
    data = {name: _data(part) for name, part in read_note(run / "data.json").items() if isinstance(part, dict)}
    if data:
        lines += ["## Data", "", *table("part", data)]
    rounds = {stage.name.replace("_", " "): stage for stage in stages(run)}
    lines += ["## Rounds", "", *table("", {name: _round(stage) for name, stage in rounds.items()})]
    figure = draw_losses({run.name: [read_metrics(stage) for stage in rounds.values()]})
    if figure:
        save(figure, run / "loss.png")
        lines += ["![loss](loss.png)", ""]
    samples = run / "samples" / "first_rows.txt"
    if samples.exists():
        lines += ["## First rows", "", *fenced(samples.read_text(encoding="utf-8"))]
    write_text_atomic(run / "report.md", "\n".join(lines))
    return run / "report.md"


def stages(run: Path) -> list[Path]:
    """The directories of a run's rounds, in order."""
    rounds = [path for path in run.glob("round_*") if path.name.removeprefix("round_").isdecimal()]
    return sorted(rounds, key=lambda path: int(path.name.removeprefix("round_")))


def loss_rows(stage: Path) -> dict[str, str]:
    """A round's losses in nats, the first and the last that were logged."""
    entries = read_metrics(stage)
    rows = {}
    for key, name in LOSSES.items():
        values = [number(entry[key]) for entry in entries if key in entry]
        if values:
            rows[name] = " → ".join([values[0], *values[1:][-1:]])
    return rows


def seconds(rounds: Sequence[Path]) -> dict[str, float | None]:
    """Wall seconds that rounds took together, over all starts of the run; None of what did not happen."""
    found = {}
    for name, file in (("generation, s", "_contexts/seconds.json"), ("training, s", "training_seconds.json")):
        values = [value for stage in rounds if (value := read_seconds(stage / file)) is not None]
        found[name] = sum(values) if values else None
    return found


def count_rows(counts: dict[str, int]) -> dict[str, Any]:
    """A trainer's counts. Where the first is the whole, what is part of it becomes a share of it."""
    (whole, total), *parts = counts.items() or [("", 0)]
    has_whole = bool(parts) and total >= max(1, parts[0][1])
    rows: dict[str, Any] = {whole: total} if counts else {}
    for name, count in parts:  # one that is larger, or counts rows, is no part
        is_part = has_whole and count <= total and not name.endswith("_rows")
        rows[name] = f"{share(count, total)} of {total:,} {whole}" if is_part else count
    return {name.replace("_", " "): value for name, value in rows.items()}


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


def fenced(text: str) -> list[str]:
    """Lines of Markdown that show a text as it is."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text.rstrip(), fence, ""]


def _data(part: dict[str, Any]) -> dict[str, Any]:
    found = {name: part.get(name) for name in ("examples", "truncated")}
    examples, truncated = (value if isinstance(value, int) else 0 for value in found.values())
    bad = len(part.get("bad_rows") or ())
    return {
        "source": part.get("source"),
        "examples": examples,
        "bad rows skipped": f"{bad} ({share(bad, examples + bad)})" if bad else 0,
        "truncated": share(truncated, examples),
        "prompts also trained": part.get("prompts_also_trained") or None,
    }


def _round(stage: Path) -> dict[str, Any]:
    steps = [entry["step"] for entry in read_metrics(stage) if "step" in entry]
    counts = read_note(stage / "counts.json")
    counts = count_rows({name: count for name, count in counts.items() if isinstance(count, int)})
    return {**seconds([stage]), "steps": max(steps, default=None), **loss_rows(stage), **counts}
