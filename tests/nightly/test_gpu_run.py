"""The run that waits for a GPU: every step at a tiny size, and the tables that its figures fill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT


GPU = ROOT / "benchmarks" / "gpu"


def run(
    script: str, *arguments: str, path: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, str(GPU / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.nightly  # some minutes
def test_every_step_runs_without_a_gpu(tmp_path: Path) -> None:
    line = ("--device", "cpu", "--scale", "tiny", "--budget_minutes", "3", "--output", str(tmp_path))
    done = run("run.py", *line, timeout=200)
    states = {path.stem: json.loads(path.read_text())["state"] for path in tmp_path.glob("*.json")}
    assert len(states) == 8 and set(states.values()) == {"done"}, (states, done.stderr[-3000:])
    assert done.returncode == 0


def test_a_budget_that_is_spent_and_a_step_that_fails_are_recorded(tmp_path: Path) -> None:
    line = ("--device", "cpu", "--scale", "tiny", "--output", str(tmp_path), "--steps", "contexts,kernels")
    done = run("run.py", *line, "--budget_minutes", "0")
    assert done.returncode == 1
    for name in ("contexts", "kernels"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["state"].startswith("not started")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "datasets.py").write_text("raise SystemExit(7)\n")
    done = run("run.py", *line, "--budget_minutes", "1", path=broken)
    assert done.returncode == 1 and "contexts: failed with exit code 7" in done.stdout
    done = run("run.py", *line[:-1], "contexts,nothing", "--budget_minutes", "1")
    assert done.returncode == 2 and "--steps: got nothing" in done.stderr


def test_docs_hold_the_figures_of_the_last_run() -> None:
    assert run("tables.py", "--check").returncode == 0, "run benchmarks/gpu/tables.py"


def test_tables_hold_what_was_measured_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GPU)
    import tables

    assert tables.cost_table(tmp_path).startswith("Not measured on GPU.") and "| BASH | not measured |" in (
        tables.cost_table(tmp_path)
    )
    record: dict[str, Any] = {"settings": {"device": "cpu"}, "machine": "one GPU", "versions": "torch 9"}
    record["cases"] = {"BASH, answers of 64 tokens": {"times_sft": 1.257}, "RAC, answers of 64 tokens": {"error": "x"}}
    path = tmp_path / "method_cost.json"
    path.write_text(json.dumps(record))
    assert "1.26" not in tables.cost_table(tmp_path), "a dry run on a CPU is no figure"
    path.write_text(json.dumps({**record, "settings": {"device": "cuda"}}))
    found = tables.cost_table(tmp_path)
    assert found.startswith("one GPU; torch 9.") and "| BASH | 1.26 | not measured |" in found
    assert "| RAC | not measured | not measured |" in found
    with pytest.raises(ValueError, match="expected a place for the table"):
        tables.filled("no marks", "method_cost", found)
