"""`report.md` and `loss.png` of one run, from the plain files that it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapbridge.reporting.plots import LOSSES, draw_losses
from gapbridge.reporting.runs import write_report
from gapbridge.reporting.tables import Table, estimate, in_columns, markdown, number, short
from gapbridge.training.run_files import flat, stages


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if isinstance(value, list) else [value]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _run(run: Path, *, rounds: int = 2, evaluated: bool = True) -> Path:
    long = "Check your answer. " * 20
    datasets = [{"path": "json", "data_files": "data/train.jsonl", "split": None}]
    _write(run / "run.json", {"settings": {"seed": 7, "request": long, "datasets": datasets}, "state": "running"})
    part = {"source": "data/" + "x" * 200, "examples": 38, "truncated": 1, "invalid_examples": [{"row": 3}] * 2}
    _write(run / "data.json", {"train": part, "eval": {**part, "invalid_examples": [], "truncated": 0}})
    for index in range(1, rounds + 1):
        stage = run / f"round_{index}"
        entries: list[dict[str, Any]] = [{"step": 4, "loss": 0.123456}, {"step": 8, "loss": 0.0456789}]
        if evaluated:
            entries = [
                {"step": 0, "eval_loss": 2.5},
                *entries,
                {"step": 8, "eval_loss": 0.5, "eval_generated_loss": 1.0},
            ]
        _write(stage / "metrics.jsonl", entries)
        _write(stage / "generation_stats.json", {"tokens": 9340, "sampled": 1869, "differing": 56})
        _write(stage / "_contexts" / "timing.json", {"seconds": 1234.56})
    return run


def test_the_report_of_a_run(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", rounds=11)
    (run / "round_1.tmp").mkdir()
    assert [stage.name for stage in stages(run)] == [f"round_{index}" for index in range(1, 12)]
    text = write_report(run).read_text(encoding="utf-8")
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    rows = {line[1].strip(): line[2].strip() for line in reversed(lines)}
    assert {"tokens", "sampled", "differing"} <= rows.keys()
    assert (
        rows["training loss, first (nats/token)"] == "0.1235" and rows["training loss, last (nats/token)"] == "0.04568"
    )
    assert rows["eval loss, last (nats/token)"] == "0.5" and rows["generation time (s)"] == "1,235"
    assert rows["invalid rows, skipped (%)"] == "5" and rows["truncated (%)"] == "2.632"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<td class="text">sampled</td>' in page and "data:image/png;base64," in page
    assert "datasets.0.data_files | data/train.jsonl" in text and "split" not in text
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_has_not_come_far(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", rounds=0)
    assert stages(run) == []
    assert "## Rounds" in write_report(run).read_text(encoding="utf-8") and not (run / "loss.png").exists()


def test_losses_without_evaluation_points_say_so() -> None:
    trained = [[{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.9}], [{"step": 1, "loss": 0.8}]]
    figure = draw_losses({"run": trained})
    assert figure is not None and len(figure.axes) == 1, "no empty panel"
    assert figure.get_suptitle() == "no evaluation was logged: run"
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [[1, 2], [3]], "a line for each round"
    assert figure.axes[0].get_title() == "training loss: lower is better"
    both = draw_losses({"run": trained, "other": [[{"step": 0, "eval_loss": 1.0}, {"step": 9, "eval_loss": 0.01}]]})
    assert both is not None and len(both.axes) == 2 and both.get_suptitle() == "no evaluation was logged: run"
    assert [axis.get_yscale() for axis in both.axes] == ["linear", "log"]
    assert draw_losses({"run": [[{"step": 1, "train_runtime": 3.0}]]}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000123456, "0.0001235"), (1.0, "1"), (12.345678, "12.35"), (999.96, "1000"), (1234567.8, "1,234,568")],
)
def test_four_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_tables_leave_nothing_out() -> None:
    columns = {name: {"loss": 0.25, "nothing": None, "text": f"a|b {name}"} for name in ("run 0", "run 1")}
    columns["run 1"]["late"] = 3
    text = "\n".join(markdown(in_columns("figure", columns)))
    assert "nothing" not in text and "a\\|b run 0" in text and "late" in text
    assert short("abcdefghij", 5) == "a…hij" and short("abcde", 5) == "abcde"


def test_each_figure_has_a_cell() -> None:
    interval = {"mean": 0.123456, "low": -0.05, "high": float("nan")}
    assert estimate(interval, 100, sign=True) == ["+12.35", "[-5, –]"] and estimate(None) == [None, None]
    lines = markdown(Table(["model", "value (%)"], [["<pad>|x", 69.5], ["\x1b\ud800", None]]))
    assert lines == [
        "| model      | value (%) |", "| ---------- | --------: |", "| \\<pad>\\|x  |      69.5 |",
        "| \\x1b\\ud800 |         – |", "",
    ]  # fmt: skip


def test_nested_settings_are_flat() -> None:
    assert flat({"a": [{"b": 1, "c": None}, "x"], "d": {}, "e": 0.1, "f": True}) == {
        "a.0.b": "1", "a.1": "x", "d": "{}", "e": "0.1", "f": "true",
    }  # fmt: skip


def test_no_label_of_a_loss_is_shortened() -> None:
    assert [name for name in LOSSES.values() if (row := f"{name}, first (nats/token)") != short(row)] == []
