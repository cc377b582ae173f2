"""What a run leaves to read, in plain files: `metrics.jsonl` while it runs, then `loss.png` and `report.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..examples.example import ExampleSet
from ..files import write_atomic, write_json_atomic, write_text_atomic, writing


matplotlib.use("Agg")


class MetricsFile(TrainerCallback):
    """Writes each log entry as a line of `output_dir/metrics.jsonl`.

    At the start the file is written anew from the trainer's state, so that after a resume it holds each step once.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            write_text_atomic(_metrics_path(args), "".join(json.dumps(entry) + "\n" for entry in state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            path = _metrics_path(args)
            with writing(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")


def _metrics_path(args: TrainingArguments) -> Path:
    return Path(args.output_dir) / "metrics.jsonl"


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The log entries of a stage, oldest first; a torn last line is left out."""
    path = directory / "metrics.jsonl"
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def write_data_record(directory: Path, examples: dict[str, ExampleSet]) -> None:
    """`data.json`: where the data came from, how many examples, and every bad row."""
    record = {
        name: {
            "source": part.source,
            "examples": len(part),
            "truncated": part.truncated,
            "prompts_cut_at_the_border": part.cut_prompts,
            "bad_rows": [{"row": bad.row, "id": bad.id, "reason": bad.reason} for bad in part.bad_rows],
        }
        for name, part in examples.items()
    }
    write_json_atomic(directory / "data.json", record)


def stages(run: Path) -> list[Path]:
    """The directories that hold a training stage: the rounds, or the run itself."""
    rounds = [path for path in run.glob("round_*") if path.name.removeprefix("round_").isdecimal()]
    return sorted(rounds, key=lambda path: int(path.name.removeprefix("round_"))) or [run]


def plot_losses(run: Path) -> Path | None:
    """Draw `loss.png`: training and held-out loss over the steps, a panel a round. None where nothing was logged."""
    from matplotlib import pyplot as plt

    series = [(stage, read_metrics(stage)) for stage in stages(run)]
    series = [(stage, entries) for stage, entries in series if any("loss" in entry for entry in entries)]
    if not series:
        return None
    figure, axes = plt.subplots(1, len(series), figsize=(1.5 + 4.5 * len(series), 3.6), sharey=True, squeeze=False)
    curves = (
        ("loss", "training", "-", "C0"),
        ("eval_loss", "held out, reference contexts", "o--", "C1"),
        ("eval_own_loss", "held out, own contexts", "s--", "C2"),
    )
    for axis, (stage, entries) in zip(axes[0], series, strict=True):
        for key, label, style, color in curves:
            points = [(entry["step"], entry[key]) for entry in entries if key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
        axis.set_xlabel("optimizer step")
        axis.set_title(stage.name.replace("_", " ") if stage != run else run.name)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("loss (nats per token)")
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    path = run / "loss.png"
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)
    return path


def write_report(run: Path) -> Path:
    """Write `report.md` (and `loss.png`) from the files of a run."""
    settings = _read_json(run / "run.json").get("settings", {})
    lines = [f"# {run.name}", ""]
    lines += table(["setting", "value"], [[key, _show(value)] for key, value in settings.items() if key != "datasets"])
    data = _read_json(run / "data.json")
    if data:
        lines += ["## Data", ""]
        rows = [[name, p["source"], p["examples"], len(p["bad_rows"]), p["truncated"]] for name, p in data.items()]
        lines += table(["part", "source", "examples", "bad rows skipped", "truncated"], rows)
    lines += ["## Stages", ""]
    lines += table(
        ["stage", "generation (s)", "training (s)", "steps", "last training loss", "held-out loss",
         "held-out loss, own contexts", "counts"],
        [_stage_row(stage, run) for stage in stages(run)],
    )  # fmt: skip
    if plot_losses(run):
        lines += ["![loss](loss.png)", ""]
    samples = run / "samples" / "first_rows.txt"
    if samples.exists():
        lines += ["## First rows", "", "```", samples.read_text(encoding="utf-8").rstrip(), "```", ""]
    write_text_atomic(run / "report.md", "\n".join(lines))
    return run / "report.md"


def _stage_row(stage: Path, run: Path) -> list[Any]:
    entries = read_metrics(stage)
    counts = _read_json(stage / "counts.json")

    def last(key: str) -> Any:
        return next((entry[key] for entry in reversed(entries) if key in entry), None)

    def first_to_last(key: str) -> str | None:
        values = [entry[key] for entry in entries if key in entry]
        if not values:
            return None
        return f"{values[-1]:.4f}" if len(values) == 1 else f"{values[0]:.4f} → {values[-1]:.4f}"

    return [
        stage.name if stage != run else "training",
        _read_json(stage / "contexts" / "seconds.json").get("seconds"),
        _read_json(stage / "training_seconds.json").get("seconds"),
        last("step"),
        last("loss"),
        first_to_last("eval_loss"),
        first_to_last("eval_own_loss"),
        ", ".join(f"{name} {count}" for name, count in counts.items()) or None,
    ]


def table(head: Sequence[str], rows: list[list[Any]]) -> list[str]:
    """The lines of a Markdown table; None is a dash."""
    cells = [
        ["–" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows
    ]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells), ""]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "…"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
