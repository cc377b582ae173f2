"""Small recipes, and the command line: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import BASE, ROOT
from hypothesis import HealthCheck, Phase, settings

from gapbridge import cli, methods
from gapbridge.data.sources import DataConfig, LoadedData, find_data, standard_columns
from gapbridge.runs.run_config import recipe_classes
from gapbridge.tasks.word_problems import problems
from gapbridge.training.dataset_builder import require_rows


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
# Imports the package once; every command is a process that is forked from it, and can be killed.
# tests/integration/test_cli.py starts real interpreters.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["gapbridge.cli", "gapbridge.runs.train", "gapbridge.evaluation.command"]
    + ["deepspeed", "scipy.io", "matplotlib.backends.backend_agg"]  # what accelerate and a report import
    + [f"gapbridge.methods.{name}.trainer" for name in methods.list_methods()]
)


def recipe_keys(method: str) -> set[str]:
    """The keys that a recipe of a method may have."""
    return {field.name for kind in recipe_classes(method) for field in fields(kind) if field.init}


def load_data(config: DataConfig, script: Any, *, needs_eval: bool) -> LoadedData:
    """Training and held-out data in TRL's columns."""
    found = find_data(config, script, needs_eval=needs_eval)
    train = standard_columns(found.train, config, found.source)
    evaluation = found.eval if found.eval is None else standard_columns(found.eval, config, found.eval_source)
    return replace(found, train=train, eval=evaluation)


def built_rows(method: Any, pairs: Any, examples: Any, tokenizer: Any, args: Any) -> tuple[list[Any], Any]:
    """All rows of examples and of what was generated for them, and their stats."""
    built = list(method.build_rows(pairs, examples, tokenizer, args))
    stats = sum((counted for _, counted in built), start=method.stats_class())
    require_rows(stats, examples, args)
    return [row for rows, _ in built for row in rows], stats


def begin(output: Path | str, errors: Path | str) -> None:
    """What every process that is forked from the server does first."""
    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    gc.freeze()  # what is imported is no garbage: each collection would look at all of it


def _command(arguments: tuple[str, ...], output: str, errors: str) -> None:
    begin(output, errors)
    cli.main(list(arguments))


def gapbridge(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("output", "errors")]
        process = SERVER.Process(target=_command, args=(arguments, *map(str, said)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()  # or pytest would wait for it at its end
            process.join()
            raise AssertionError(f"{arguments} takes more than {timeout} s")
        output, errors = (path.read_text() for path in said)
    assert not check or process.exitcode == 0, errors[-3000:]
    return subprocess.CompletedProcess(arguments, process.exitcode, output, errors)


def kill_when(condition: Callable[[], bool], *arguments: str, timeout: float = 180) -> None:
    """Start a command and SIGKILL it as soon as `condition` holds."""
    process = SERVER.Process(target=_command, args=(arguments, os.devnull, os.devnull))
    process.start()
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.is_alive(), "the command ended before it could be killed"
            assert time.monotonic() < deadline, "the condition never came"
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()


def accelerate_config(name: str, folder: Path) -> Path:
    """A configuration of `accelerate_configs` without mixed precision, for processes on a CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "accelerate_configs" / f"{name}.yaml").read_text(encoding="utf-8")
    (folder / "accelerate.yaml").write_text(text.replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    return folder / "accelerate.yaml"


def same_draws(max_examples: int) -> settings:
    """The same inputs in every run: a red build is about the change, not about the draw. Shrinking takes minutes."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


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
