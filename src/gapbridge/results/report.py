"""`gapbridge report RUN …`: runs side by side in one page, from the plain files that they left.

report/report.md   settings that differ, losses, evaluations, the gap, cost, sample answers
report/losses.png  report/gap.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answers.intervals import Interval
from ..errors import ConfigError, RunError
from ..evaluation.command import Parser
from ..evaluation.summaries import cells, columns
from ..files import write_atomic, write_text_atomic
from ..gap.command import nats
from ..gap.measure import Gap
from ..gap.plot import COLOURS, plot_gaps
from ..runs.directory import RUN_FILE
from ..runs.report import read_metrics, stages, table
from ..tasks.task import TASKS


MARK = "<!-- written by gapbridge report -->"
_SAMPLES = 3


@dataclass(frozen=True)
class Run:
    """A run's directory, its name in the report, and its settings."""

    path: Path
    name: str
    settings: dict[str, Any]
    state: str


def run_report(argv: Sequence[str]) -> Path:
    """`gapbridge report`. Returns the page.

    Raises:
        ConfigError: the options are wrong, or the place holds something else. RunError: directories that hold no run.
    """
    options = Parser(prog="gapbridge report", allow_abbrev=False, description=__doc__.split("\n")[0])
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run")
    options.add_argument("--output_dir", type=Path, default=Path("report"), help="where the page goes")
    options.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="DIR",
        help="further directories with eval/ or gap/ in them, as of evaluations of several models together",
    )  # fmt: skip
    args = options.parse_args(list(argv))
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
        try:
            record = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
            name = path.name if names.count(path.name) == 1 else str(path)
            runs.append(Run(path, name, record["settings"], record["state"]))
        except FileNotFoundError:
            faults.append(f"{path}: holds no {RUN_FILE}: it is not a run of gapbridge")
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            faults.append(f"{path / RUN_FILE}: is damaged ({error})")
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
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    differing = [key for key in keys if any(value != values[key][0] for value in values[key])]
    rows = [[key, *(_show(value) for value in values[key])] for key in differing]
    same = len(keys) - len(differing)
    return [
        *table(["setting", *(run.name for run in runs)], [["state", *(run.state for run in runs)], *rows]),
        f"{same} further settings are the same. – is: not set, the default.",
        "",
    ]


def _losses(runs: list[Run], directory: Path) -> list[str]:
    curves = (
        ("eval_loss", "held out, reference contexts"),
        ("eval_own_loss", "held out, own contexts"),
        ("loss", "last training loss"),
    )
    rows = []
    for run in runs:
        for stage in stages(run.path):
            entries = read_metrics(stage)
            row: list[Any] = [run.name if stage == run.path else f"{run.name}, {stage.name.replace('_', ' ')}"]
            for key, _ in curves:
                values = [entry[key] for entry in entries if key in entry]
                both = key != "loss" and len(values) > 1
                row.append(f"{values[0]:.4f} → {values[-1]:.4f}" if both else f"{values[-1]:.4f}" if values else None)
            rows.append(row)
    lines = table(["nats per token", *(label for _, label in curves)], rows)
    if _plot_losses(runs, directory / "losses.png"):
        lines += ["![losses](losses.png)", ""]
    return lines


def _plot_losses(runs: list[Run], path: Path) -> bool:
    """Training loss and the two held-out losses over the optimizer steps, rounds one behind the other."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    drawn = False
    for colour, run in zip(COLOURS * len(runs), runs, strict=False):
        before = 0
        series: dict[str, list[tuple[int, float]]] = {"loss": [], "eval_loss": [], "eval_own_loss": []}
        for stage in stages(run.path):
            entries = read_metrics(stage)
            for key, points in series.items():
                points += [(before + entry["step"], entry[key]) for entry in entries if key in entry]
            before += max((entry["step"] for entry in entries if "step" in entry), default=0)
        panels = (
            (axes[0], "loss", "-", run.name, ""),
            (axes[1], "eval_loss", "-", f"{run.name}, reference contexts", "o"),
            (axes[1], "eval_own_loss", "--", f"{run.name}, own contexts", "s"),
        )
        for axis, key, style, label, marker in panels:
            if series[key]:
                drawn = True
                axis.plot(*zip(*series[key], strict=True), style, marker=marker, color=colour, label=label, ms=4)
    for axis, title in zip(axes, ("training", "held out"), strict=True):
        # Losses behind drafts and behind references can lie a power of ten apart.
        axis.set(title=title, xlabel="optimizer step", ylabel="loss, nats per token", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    if drawn:
        write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)
    return drawn


def _evaluations(runs: list[Run], places: list[Path]) -> list[str]:
    lines = []
    records: dict[str, list[dict[str, Any]]] = {}
    for path in (path for place in places for path in sorted((place / "eval").glob("*.json"))):
        record = json.loads(path.read_text(encoding="utf-8"))
        records.setdefault(record["task"], []).append(record)
    for task, found in records.items():
        lines += [f"### {task}", ""]
        if task not in TASKS:
            rows = [[_name(r["model"], runs), r["task"], r["metric"], _share(r["value"]), r["n"]]
                    for record in found for r in record["results"]]  # fmt: skip
            lines += table(["model", "task", "metric", "value", "examples"], rows)
            continue
        grader = TASKS[task].grader
        results = [result for record in found for result in record["results"]]
        rows = [[_name(r["model"], runs), r["mode"], r["count"], *cells(r, grader)] for r in results]
        lines += table(["model", "mode", "examples", *columns(grader)], rows)
        mended = [row for record in found for row in record["corrections"]]
        if mended:
            keys = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")
            rows = [
                [_name(r["model"], runs), *(r[key] for key in keys), Interval(**r["difference"]).points()]
                for r in mended
            ]
            head = ("wrong→right", "right→wrong", "right→right", "wrong→wrong", "corrected less first, points")
            lines += table(["model", *head], rows)
        for row in (row for record in found for row in record["differences"]):
            lines.append(
                f"- {_name(row['second'], runs)} less {_name(row['first'], runs)} ({row['mode']}, {row['metric']}): "
                f"{Interval(**row['difference']).points()} points over {row['examples']} shared examples"
            )
        lines += [f"- {row['text']}" for record in found for row in record.get("win_rates", ())]
        lines.append("")
    return lines or ["No evaluation: `gapbridge eval --task TASK --model RUN` makes one.", ""]


def _gaps(runs: list[Run], places: list[Path], directory: Path) -> list[str]:
    gaps: dict[str, Gap] = {}
    for path in (place / "gap" / "gap.json" for place in places):
        if path.exists():
            models = json.loads(path.read_text(encoding="utf-8"))["models"]
            gaps |= {_name(record["model"], runs): Gap.from_json(record) for record in models}
    if not gaps:
        return ["Not measured: `gapbridge gap --model RUN --config RECIPE` measures it.", ""]
    rows = [
        [name, gap.examples, nats(vars(gap.recovery.mean)), gap.decisions.drop.points(),
         gap.excess_error and f"{gap.excess_error.excess[-1].mean:+.0f}"]
        for name, gap in gaps.items()
    ]  # fmt: skip
    head = ["model", "examples", "Δ over all k ≥ 1, nats", "reference less own context, points", "ExAccErr, %"]
    if len({gap.excess_error is None for gap in gaps.values()}) == 1:
        plot_gaps(directory / "gap.png", gaps)
        return [*table(head, rows), "![gap](gap.png)", ""]
    return table(head, rows)


def _cost(runs: list[Run]) -> list[str]:
    def seconds(run: Run, find: Callable[[Path], Path]) -> float | None:
        files = [find(stage) for stage in stages(run.path)]
        values = [json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in files if file.exists()]
        return round(sum(values), 1) if values else None

    rows = []
    for run in runs:
        place = run.path / "environment.json"
        environment = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        rows.append(
            [
                run.name,
                seconds(run, lambda stage: stage / "contexts" / "seconds.json"),
                seconds(run, lambda stage: stage / "training_seconds.json"),
                ", ".join(sorted(set(environment.get("devices", ())))) or None,
                len(environment.get("devices", ())) or None,
                environment.get("packages", {}).get("torch"),
            ]
        )
    head = ["run", "generation, s", "training, s", "device", "devices a machine", "torch"]
    return [*table(head, rows), "Wall seconds of process 0, over all starts of a run.", ""]


def _answers(runs: list[Run], places: list[Path]) -> list[str]:
    """The first examples with every model's answer."""
    answers: dict[str, dict[str, Any]] = {}
    for path in (path for place in places for path in sorted((place / "eval").glob("*.samples.jsonl"))):
        with open(path, encoding="utf-8") as file:
            for sample in map(json.loads, file):
                key = f"{path.name}/{sample['id']}"
                if key not in answers and len(answers) == _SAMPLES:
                    continue
                entry = answers.setdefault(key, {"prompt": sample["prompt"], "reference": sample["reference"]})
                mark = {True: " (right)", False: " (wrong)"}.get(sample.get("correct"), "")
                name = f"{_name(sample['model'], runs)}, {sample['mode']}{mark}"
                entry.setdefault("answers", {})[name] = sample["answer"]
    lines = []
    for entry in answers.values():
        lines += ["**prompt**", "", *_block(entry["prompt"]), "**reference**", "", *_block(entry["reference"])]
        for name, answer in entry["answers"].items():
            lines += [f"**{name}**", "", *_block(answer)]
    return lines or ["No answers: they come with an evaluation.", ""]


def _block(text: str) -> list[str]:
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text.rstrip(), fence, ""]


def _name(model: str, runs: list[Run]) -> str:
    """A run's name for a model that is one of the runs."""
    return next((run.name for run in runs if Path(model).resolve() == run.path.resolve()), model)


def _share(value: float) -> str:
    return f"{value:.4g}"


def _show(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
