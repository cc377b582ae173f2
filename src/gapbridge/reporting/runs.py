"""The report of a run, which the run writes at its end, and of several runs side by side: `gapbridge report RUN …`.

report.md report.html   settings, losses, first rows, evaluations, the gap, cost, completions
loss.png gap.png        the pictures
"""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, describe
from ..methods import display_name
from ..store.records import read_record
from ..training.metrics import read_metrics
from ..training.run_files import RUN_FILE, flat, read_run, seconds, stages
from .evaluations import evaluation_tables
from .gap_plot import draw_gaps
from .gaps import caption, gap_tables
from .page import Page, Picture, Section, ShownExample, TokenRows, check_replaceable, write_page
from .plots import LOSSES, draw_losses
from .samples import read_examples
from .tables import Table, in_columns


_SECONDS = {"generation": "generation time (s)", "training": "training time (s)"}


@dataclass(frozen=True)
class Run:
    """A run's directory, its name in the report, its settings and its state."""

    path: Path
    name: str
    settings: dict[str, Any]
    state: str


def write_report(run: Path) -> Path:
    """Write the report of a run that ends, from its files and into its directory. Returns the Markdown file."""
    record = read_record(run / RUN_FILE)
    one = Run(run, run.name, record.get("settings", {}), "complete")
    return write_page(_page([one], [run]), run)


def run_report(args: argparse.Namespace) -> Path:
    """`gapbridge report`. Returns the Markdown file.

    Raises:
        ConfigError: the place holds something else. RunError: directories that hold no run.
    """
    check_replaceable(args.output_dir)
    runs = _read_runs(args)
    path = write_page(_page(runs, [*(run.path for run in runs), *args.extra_results_dir]), args.output_dir)
    page = path.with_suffix(".html")
    print(f"report: {page}   as Markdown: {path}")
    if args.open:
        webbrowser.open(page.resolve().as_uri())
    return path


def _read_runs(args: argparse.Namespace) -> list[Run]:
    errors, runs = [], []
    names = [path.name for path in args.runs]
    for path in args.runs:
        if not (path / RUN_FILE).is_file():
            errors.append(describe(path, f"no {RUN_FILE}", "a run of gapbridge", "Correct the path"))
            continue
        try:
            record = read_run(path)
            name = path.name if names.count(path.name) == 1 else str(path)
            runs.append(Run(path, name, record["settings"], record["state"]))
        except RunError as error:
            errors += error.errors
    errors += [
        describe(f"--extra_results_dir {path}", "no such directory", "a directory", "Correct the path")
        for path in args.extra_results_dir
        if not path.is_dir()
    ]
    if len(set(args.runs)) < len(args.runs):
        errors.append(describe("runs", "a run twice", "every run once", "Remove one of them"))
    if errors:
        raise RunError(errors)
    return runs


def _page(runs: Sequence[Run], places: Sequence[Path]) -> Page:
    sections = [
        Section("Losses", _losses(runs)),
        Section("Rounds", [in_columns("", _rounds(runs))]),
        Section("Evaluation", _evaluations(runs, places)),
        Section("Gap", _gaps(runs, places)),
        Section("Completions", _completions(runs, places)),
        *(Section(_titled("First training rows", run, runs), _first_rows(run.path)) for run in runs),
        *(Section(_titled("Data", run, runs), _data(run.path)) for run in runs),
        Section("Cost", [*_cost(runs), "Wall-clock time of process 0, summed over all starts of a run."]),
        Section("Settings", _settings(runs), is_folded=len(runs) == 1),
    ]
    lead = [_lead(run) for run in runs]
    return Page(", ".join(run.name for run in runs), lead, [section for section in sections if section.parts])


def _titled(title: str, run: Run, runs: Sequence[Run]) -> str:
    return title if len(runs) == 1 else f"{title}: {run.name}"


def _lead(run: Run) -> str:
    """What was trained, and what its losses came to, in one sentence."""
    values = flat(run.settings)
    start, method = values.get("model_name_or_path"), values.get("method", "")
    text = f"{run.name}: {display_name(method) or 'a run'}" + (f" from {start}" if start else "")
    rounds = stages(run.path)
    entries = read_metrics(rounds[-1]) if rounds else []
    last = {key: entry[key] for key in LOSSES for entry in entries if key in entry}
    found = [f"{LOSSES[key]} {value:.4g} nats/token" for key, value in last.items()]
    return f"{text}, {run.state}" + (f"; at the end {', '.join(found)}." if found else ".")


def _settings(runs: Sequence[Run]) -> list[str | Table]:
    settings = {run.name: {"state": run.state, **flat(run.settings)} for run in runs}
    if len(runs) == 1:
        return [in_columns("setting", {"value": settings[runs[0].name]})]
    keys = {key for values in settings.values() for key in values}
    same = {key for key in keys - {"state"} if len({values.get(key) for values in settings.values()}) == 1}
    differing = {
        name: {key: value for key, value in values.items() if key not in same} for name, values in settings.items()
    }
    return [in_columns("setting", differing), f"{len(same)} identical settings omitted; – = default."]


def _losses(runs: Sequence[Run]) -> list[str | Picture]:
    figure = draw_losses({run.name: [read_metrics(stage) for stage in stages(run.path)] for run in runs})
    if figure is None:
        return []
    return [Picture("loss.png", figure, "Training and evaluation loss over the optimizer steps")]


def _rounds(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """The figures of each round: losses at its first and last logged step, steps, and what its rows are made from."""
    found = {}
    for run in runs:
        for stage in stages(run.path):
            entries = read_metrics(stage)
            steps = [entry["step"] for entry in entries if "step" in entry]
            figures: dict[str, Any] = {"optimizer steps": max(steps, default=None)}
            for key, name in LOSSES.items():
                values = [entry[key] for entry in entries if key in entry]
                if values:
                    figures |= {f"{name}, first (nats/token)": values[0], f"{name}, last (nats/token)": values[-1]}
            counts = read_record(stage / "generation_stats.json", is_needed=False)
            figures |= {name.replace("_", " "): count for name, count in counts.items() if isinstance(count, int)}
            figures |= {_SECONDS[name]: value for name, value in seconds([stage]).items()}
            name = stage.name.replace("_", " ")
            found[name if len(runs) == 1 else f"{run.name}, {name}"] = figures
    return found


def _first_rows(run: Path) -> list[str | TokenRows]:
    text = run / "samples" / "first_rows.txt"
    if not text.is_file():
        return []
    rows = read_record(text.with_suffix(".json"), is_needed=False).get("rows", [])
    return [TokenRows(rows, text.read_text(encoding="utf-8"))]


def _data(run: Path) -> list[str | Table]:
    parts = {
        name: part for name, part in read_record(run / "data.json", is_needed=False).items() if isinstance(part, dict)
    }
    found = {}
    for name, part in parts.items():
        examples, truncated = (part.get(key) or 0 for key in ("examples", "truncated"))
        bad = len(part.get("invalid_examples") or ())
        found[name] = {
            "source": part.get("source"),
            "examples": examples,
            "invalid rows, skipped": bad,
            "invalid rows, skipped (%)": 100 * bad / (examples + bad) if bad else None,
            "truncated (%)": 100 * truncated / examples if examples else None,
            "eval prompts in the training data": part.get("num_eval_prompts_in_train") or None,
        }
    return [in_columns("part", found)] if found else []


def _evaluations(runs: Sequence[Run], places: Sequence[Path]) -> list[str | Table]:
    """A table of each kind for each task; the same model may have been evaluated twice, with other settings."""
    found: dict[tuple[str, ...], Table] = {}
    seen: dict[tuple[str, str], Path] = {}
    for place in places:
        for path in sorted((place / "eval").glob("*.json")):
            record = read_record(path)
            names = {}
            for model in dict.fromkeys(result["model"] for result in record["results"]):
                first = seen.setdefault((record["task"], model), place)
                names[model] = _name(model, runs) + (f" ({place})" if first != place else "")
            for table in evaluation_tables(record, names):
                key = (table.title, *table.head)
                before = found[key].rows if key in found else []
                found[key] = Table(table.head, [*before, *table.rows], table.title, table.texts)
    return [*found.values()] or ["No evaluation: `gapbridge eval --task TASK --model RUN` makes one."]


def _gaps(runs: Sequence[Run], places: Sequence[Path]) -> list[str | Table | Picture]:
    """Tables and a picture for each set of measurements on the same data at the same temperature."""
    records: dict[str, list[dict[str, Any]]] = {}
    for place in dict.fromkeys(places):
        if record := read_record(place / "gap" / "gap.json"):
            records.setdefault(caption(record), []).append(record)
    parts: list[str | Table | Picture] = []
    for count, (title, found) in enumerate(records.items(), start=1):
        models = {_name(gap["model"], runs): gap for record in found for gap in record["models"]}
        picture = "gap.png" if count == 1 else f"gap-{count}.png"
        parts += [*title.split("\n"), Picture(picture, draw_gaps(models, title), "Recovery curves and accuracies")]
        for record in found:
            parts += gap_tables(record, {gap["model"]: _name(gap["model"], runs) for gap in record["models"]})
    return parts or ["Not measured: `gapbridge gap --model RUN --config RECIPE` measures it."]


def _cost(runs: Sequence[Run]) -> list[str | Table]:
    costs = {}
    for run in runs:
        environment = read_record(run.path / "environment.json", is_needed=False)
        devices = environment.get("devices", [])
        costs[run.name] = {
            **{_SECONDS[name]: value for name, value in seconds(stages(run.path)).items()},
            "device": ", ".join(sorted(set(devices))) or None,
            "devices per machine": len(devices) or None,
            "torch": environment.get("packages", {}).get("torch"),
        }
    return [in_columns("", costs)]


def _completions(runs: Sequence[Run], places: Sequence[Path]) -> list[str | ShownExample]:
    paths = [path for place in dict.fromkeys(places) for path in sorted((place / "eval").glob("*.samples.jsonl"))]
    found = read_examples({path: lambda model: _name(model, runs) for path in paths})
    return [*found] or ["No completions: they come with an evaluation."]


def _name(model: str, runs: Sequence[Run]) -> str:
    """A run's name for a model that is one of the runs."""
    return next((run.name for run in runs if Path(model).resolve() == run.path.resolve()), model)
