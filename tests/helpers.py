"""Small recipes, and the command line: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE, ROOT

from gapbridge import cli
from gapbridge.tasks.word_problems import problems


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def gapbridge(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, "-m", "gapbridge", *arguments],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert not check or process.returncode == 0, process.stderr[-3000:]
    return process


def kill_when(condition: Callable[[], bool], *arguments: str, timeout: float = 180) -> None:
    """Start a command and SIGKILL it as soon as `condition` holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gapbridge", *arguments],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < deadline, "the condition never came"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder: Path, **changes: Any) -> list[str]:
    """A small good recipe with changes; None takes a key out."""
    data = write_rows(folder / "train.jsonl", [problem.row() for problem in problems("train", count=8, steps=(2,))])
    values = {
        "method": "bash",
        "model_name_or_path": str(BASE),
        "datasets": [{"path": "json", "data_files": data}],
        "output_dir": str(folder / "run"),
        "use_cpu": True,
        "bf16": False,
        "max_length": 256,
        "max_steps": 1,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return ["--config", str(path)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; return what it says."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == cli.EXIT_USER_ERROR
    _, name, said = capsys.readouterr().err.partition("gapbridge: ")
    assert name and "Traceback" not in said
    return said


def rows_with(row: Any) -> Callable[[Path], dict[str, Any]]:
    """A change to a recipe: its data are a good row and `row`."""

    def change(folder: Path) -> dict[str, Any]:
        good = {"prompt": "one\n", "completion": "two"}
        return {"datasets": [{"path": "json", "data_files": write_rows(folder / "bad.jsonl", [good, row])}]}

    return change
