"""`gapbridge report RUN …`: runs side by side in one page, from the plain files that they left.

report.md   settings that differ, losses, evaluations, the gap, cost, sample answers
losses.png  gap.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answers.intervals import Interval
from ..contexts.records import read_record
from ..errors import ConfigError, RunError
from ..evaluation.summaries import cells, columns, edit_figures, prompt_text, read_samples
from ..files import write_text_atomic
from ..gap.command import caption, summary
from ..gap.plot import draw_gaps
from ..runs.directory import RUN_FILE, read_run
from ..runs.figures import draw_losses, save
from ..runs.report import fenced, flat, loss_rows, seconds, stages
from ..runs.tables import number, share, table
from ..tasks.task import TASKS
from ..training.metrics import read_metrics


MARK = "<!-- written by gapbridge report -->"
_SAMPLES = 3


@dataclass(frozen=True)
class Run:
    """A run's directory, its name in the report, its settings and its state."""

    path: Path
    name: str
    settings: dict[str, Any]
    state: str


def run_report(args: argparse.Namespace) -> Path:
    """`gapbridge report`. Returns the page.

    Args:
        args: `runs`, `results` (further directories with `eval/` or `gap/` in them) and `output_dir`.

    Raises:
        ConfigError: the place holds something else. RunError: directories that hold no run.
    """
    page = args.output_dir / "report.md"
    if page.exists() and not page.read_text(encoding="utf-8").startswith(MARK):
        raise ConfigError(f"{page}: is no report of gapbridge; choose another --output_dir")
    runs = _read_runs(args)
    places = [*(run.path for run in runs), *args.results]
    write_text_atomic(page, "\n".join(_page(runs, places, args.output_dir)))
    print(f"report: {page}")
    return page


def _read_runs(args: argparse.Namespace) -> list[Run]:
    faults, runs = [], []
    names = [path.name for path in args.runs]
    for path in args.runs:
        if not (path / RUN_FILE).is_file():
            faults.append(f"{path}: holds no {RUN_FILE}: it is not a run of gapbridge")
            continue
        try:
            record = read_run(path)
            name = path.name if names.count(path.name) == 1 else str(path)
            runs.append(Run(path, name, record["settings"], record["state"]))
        except RunError as error:
            faults += error.faults
    faults += [f"--results {path}: no such directory" for path in args.results if not path.is_dir()]
    if len(set(args.runs)) < len(args.runs):
        faults.append("a run is named twice")
    if faults:
        raise RunError(faults)
    return runs


def _page(runs: list[Run], places: list[Path], directory: Path) -> list[str]:
    lines = [MARK, f"# {', '.join(run.name for run in runs)}", ""]
    lines += ["## Settings that differ", "", *_settings(runs)]
    lines += ["## Losses", "", *_losses(runs, directory)]
    lines += ["## Evaluation", "", *_evaluations(runs, places)]
    lines += ["## The gap", "", *_gaps(runs, places, directory)]
    lines += ["## Cost", "", *_cost(runs)]
    return [*lines, "## Answers", "", *_answers(runs, places)]


def _settings(runs: list[Run]) -> list[str]:
    settings = {run.name: {"state": run.state, **flat(run.settings)} for run in runs}
    keys = {key for values in settings.values() for key in values}
    same = {key for key in keys - {"state"} if len({values.get(key) for values in settings.values()}) == 1}
    differing = {
        name: {key: value for key, value in values.items() if key not in same} for name, values in settings.items()
    }
    return [
        *table("setting", differing),
        f"{len(same)} further settings are the same. – is: not set, the default.",
        "",
    ]


def _losses(runs: list[Run], directory: Path) -> list[str]:
    rounds = {run.name: stages(run.path) for run in runs}
    losses = {
        f"{name}, {stage.name.replace('_', ' ')}": loss_rows(stage)
        for name, found in rounds.items()
        for stage in found
    }
    lines = table("loss, first → last", losses)
    figure = draw_losses({name: [read_metrics(stage) for stage in found] for name, found in rounds.items()})
    if figure:
        save(figure, directory / "losses.png")
        lines += ["![losses](losses.png)", ""]
    return lines


def _evaluations(runs: list[Run], places: list[Path]) -> list[str]:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    win_rates = []
    for place in places:
        for record in (read_record(path) for path in sorted((place / "eval").glob("*.json"))):
            found = tables.setdefault(record["task"], {})
            for name, figures in _figures(record, runs).items():
                # The same model may have been evaluated twice, with other settings.
                found[name if name not in found else f"{name}, {place}"] = figures
            win_rates += [f"- {row['text']}" for row in record.get("win_rates", ())]
    lines = [line for task, found in tables.items() for line in (f"### {task}", "", *table("", found))]
    none = "No evaluation: `gapbridge eval --task TASK --model RUN` makes one."
    return [*lines, *win_rates, ""] if lines else [none, ""]


def _figures(record: dict[str, Any], runs: list[Run]) -> dict[str, dict[str, Any]]:
    """An evaluation's figures for each model and mode."""
    found: dict[str, dict[str, Any]] = {}
    for result in record["results"]:
        name = _name(result["model"], runs)
        if record["task"] not in TASKS:
            row = f"{result['task']}, {result['metric']}, {result['n']:,} examples"
            found.setdefault(name, {})[row] = number(result["value"])
            continue
        grader = TASKS[record["task"]].grader
        figures = {"examples": result["count"], **dict(zip(columns(grader), cells(result, grader), strict=True))}
        figures |= edit_figures(result)
        figures["capped"] = share(result["capped"], result["count"]) if "capped" in result else None
        found[f"{name}, {result['mode']}"] = figures
    for row in record.get("corrections", ()):
        mode = row.get("mode", "corrected")
        figures = found[f"{_name(row['model'], runs)}, {mode}"]
        for change in ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"):
            figures[change.replace("_to_", " → ")] = share(row[change], figures["examples"])
        figures[f"{mode} less direct, points"] = Interval(**row["difference"]).points()
    for row in record.get("differences", ()):
        label = f"{row['metric']} less that of {_name(row['first'], runs)}, points"
        found[f"{_name(row['second'], runs)}, {row['mode']}"][label] = Interval(**row["difference"]).points()
    return found


def _gaps(runs: list[Run], places: list[Path], directory: Path) -> list[str]:
    """A table and a picture for what was measured on the same data at the same temperature."""
    models: dict[str, dict[str, Any]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for record in (read_record(place / "gap" / "gap.json") for place in places):
        if record:
            title, found = caption(record), summary(record)
            models.setdefault(title, {}).update({_name(gap["model"], runs): gap for gap in record["models"]})
            figures.setdefault(title, {}).update({_name(name, runs): rows for name, rows in found.items()})
    lines = []
    for count, title in enumerate(models, start=1):
        picture = "gap.png" if count == 1 else f"gap-{count}.png"
        save(draw_gaps(models[title], title), directory / picture)
        lines += [*title.split("\n"), "", *table("", figures[title]), f"![gap]({picture})", ""]
    return lines or ["Not measured: `gapbridge gap --model RUN --config RECIPE` measures it.", ""]


def _cost(runs: list[Run]) -> list[str]:
    costs = {}
    for run in runs:
        environment = read_record(run.path / "environment.json")
        devices = environment.get("devices", [])
        costs[run.name] = {
            **seconds(stages(run.path)),
            "device": ", ".join(sorted(set(devices))) or None,
            "devices a machine": len(devices) or None,
            "torch": environment.get("packages", {}).get("torch"),
        }
    return [*table("", costs), "Wall seconds of process 0, over all starts of a run.", ""]


def _answers(runs: list[Run], places: list[Path]) -> list[str]:
    """The first examples with every model's answer."""
    answers: dict[str, dict[str, Any]] = {}
    for path in (path for place in places for path in sorted((place / "eval").glob("*.samples.jsonl"))):
        for sample in read_samples(path):
            key = f"{path.name}/{sample['id']}"
            if key not in answers and len(answers) == _SAMPLES:
                continue
            prompt, reference = prompt_text(sample["prompt"]), sample["reference"]
            entry = answers.setdefault(key, {"prompt": prompt, "reference": reference})
            graded = sample.get("correct")
            mark = "" if graded is None else " (right)" if graded else " (wrong)"
            name = f"{_name(sample['model'], runs)}, {sample['mode']}{mark}"
            entry.setdefault("answers", {})[name] = sample["answer"]
    lines = []
    for entry in answers.values():
        lines += ["**prompt**", "", *fenced(entry["prompt"]), "**reference**", "", *fenced(entry["reference"])]
        for name, answer in entry["answers"].items():
            lines += [f"**{name}**", "", *fenced(answer)]
    return lines or ["No answers: they come with an evaluation.", ""]


def _name(model: str, runs: list[Run]) -> str:
    """A run's name for a model that is one of the runs."""
    return next((run.name for run in runs if Path(model).resolve() == run.path.resolve()), model)
