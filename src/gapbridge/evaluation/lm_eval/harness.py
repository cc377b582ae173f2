"""A bridge to lm-evaluation-harness 0.4.13 (extra `lm-eval`): a recipe's tasks in, rows of the results table out.

The harness runs in a process of its own, once for each number of examples in the prompt, in a folder that is named by
what decides the results. A folder with results is not run again:

    lm_eval/5_shot-<hash>/results_<date>.json   the harness's own results (samples_*.jsonl with log_samples)
    lm_eval/5_shot-<hash>/log.txt               what the harness printed
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, RunError, describe
from ...intervals import NORMAL, Interval, fraction_interval
from ...store.file_hashes import hash_path
from .harness_recipe import HarnessTask, LmEvalRecipe


logger = logging.getLogger(__name__)

_WORD = re.compile(r"""[^\s\0"',:\[\]{}]+""")  # of a YAML file: what could be the name of a file
_LONGEST_NAME = 255  # characters


def evaluate_model(recipe: LmEvalRecipe, model_args: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
    """One row a task, in the recipe's order; `model_args` as `harness_model_args` gives them.

    Raises:
        ConfigError: lm-eval is not installed. RunError: the harness failed, or tasks or metrics are missing.
    """
    names: dict[int, list[str]] = {}
    for task in recipe.tasks:
        group = names.setdefault(task.num_fewshot, [])
        group += [task.name] * (task.name not in group)  # two metrics of a task are one evaluation
    results = {shots: _results(recipe, model_args, shots, group, directory) for shots, group in names.items()}
    rows = [metric_row(task, results[task.num_fewshot]) for task in recipe.tasks]
    errors = [row for row in rows if isinstance(row, str)]
    if errors:
        raise RunError(errors)
    return [row for row in rows if not isinstance(row, str)]


def harness_model_args(model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's arguments for a model's directory, a LoRA adapter's (on its base, with its tokenizer) or a hub id.

    Raises:
        ConfigError: there is no such directory, or an adapter names no base model.
    """
    path = Path(model)
    # A hub id is NAME or OWNER/NAME.
    if not path.is_dir() and (path.is_absolute() or model.startswith(".") or len(path.parts) > 2):
        place = f"model {model}"
        raise ConfigError(place, f"no such directory (looked from {Path.cwd()})", "a saved model", "Correct the path")
    adapter = path / "adapter_config.json"
    if not adapter.is_file():
        return {"pretrained": model, **extra}
    try:
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        got = f"no base model, or a damaged file ({error!r})"
        raise ConfigError(adapter, got, "base_model_name_or_path", "Repair the file") from error
    own_tokenizer = {"tokenizer": model} if (path / "tokenizer_config.json").is_file() else {}
    return {"pretrained": base, "peft": model, **own_tokenizer, **extra}


def task_files(recipe: LmEvalRecipe) -> list[Path]:
    """The files of the recipe's own tasks, and those that their YAML files name."""
    if recipe.include_path is None:
        return []
    own = [path for path in Path(recipe.include_path).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in own if path.suffix in (".yaml", ".yml")]
    named = {Path(word) for text in texts for word in _WORD.findall(text) if len(word) < _LONGEST_NAME}
    return sorted({*own, *(path for path in named if path.is_file())})


def _results(
    recipe: LmEvalRecipe,
    model_args: Mapping[str, Any],
    shots: int,
    names: Sequence[str],
    directory: Path,
) -> Path:
    """The results file of the tasks that share a number of examples in the prompt; the harness makes it if need be."""
    options = harness_options(recipe, names, shots, model_args)
    # The same names can come to hold other weights and other tasks.
    inputs = [str(model_args[key]) for key in ("pretrained", "peft") if key in model_args]
    inputs += map(str, task_files(recipe))
    state = json.dumps([options, [(path, hash_path(path)) for path in inputs]])
    folder = directory / "lm_eval" / f"{shots}_shot-{hashlib.blake2b(state.encode(), digest_size=6).hexdigest()}"
    if any(folder.glob("results_*.json")):
        logger.info("%s is complete and is not repeated", folder)
    elif importlib.util.find_spec("lm_eval") is None:
        place = "--task lm_eval"
        raise ConfigError(place, "no lm-evaluation-harness", "an installed package", "Install `gapbridge[lm-eval]`")
    else:
        logger.info("%s with %d examples in the prompt → %s", ", ".join(names), shots, folder)
        command = [sys.executable, "-m", "lm_eval", "run", *options, "--batch_size", str(recipe.batch_size)]
        run_harness(command, folder)
    return next(folder.glob("results_*.json"))


def harness_options(
    recipe: LmEvalRecipe, names: Sequence[str], shots: int, model_args: Mapping[str, Any]
) -> list[str]:
    """The harness's options that decide the results of tasks that share a number of examples."""
    arguments = json.dumps(dict(model_args), default=str)  # JSON: commas and = in a path stay in it
    options = ["--model", "hf", "--model_args", arguments, "--tasks", ",".join(names), "--num_fewshot", str(shots)]
    for name in ("limit", "include_path"):
        options += [] if vars(recipe)[name] is None else [f"--{name}", str(vars(recipe)[name])]
    options += ["--log_samples"] * recipe.log_samples
    return options + ["--apply_chat_template"] * recipe.apply_chat_template


def run_harness(command: Sequence[str], folder: Path) -> None:
    """Run the harness; what it prints goes on to stderr and to log.txt. Raises RunError with its last lines."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "bufsize": 0}
    pipes["env"] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # Written as it comes, not atomically: after a crash the log is what one wants to read.
    with (
        open(log, "wb") as file,
        subprocess.Popen([*command, "--output_path", str(folder / "results.json")], **pipes) as process,
    ):
        assert process.stdout is not None
        try:
            while chunk := process.stdout.read(65536):
                for sink in (sys.stderr.buffer, file):
                    sink.write(chunk)
                    sink.flush()
            process.wait()
        finally:
            process.kill()  # interrupted: leave no process behind
    if process.returncode or not any(folder.glob("results_*.json")):  # it only warns when it cannot write
        # Progress bars redraw their line after a carriage return.
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
        tail = "\n".join([line.rstrip() for line in lines if line.strip()][-15:])
        got = f"exit code {process.returncode} and no results (the last lines of {log}:\n{tail}\n)"
        raise RunError("lm_eval", got, "results", "Repeat the command, which continues from the complete files")


def metric_row(task: HarnessTask, path: Path) -> dict[str, Any] | str:
    """The task's row from a results file of the harness, or what is wrong with it.

    `metric` has its filter (`acc,none`); `value` is in the metric's unit, shares in [0, 1]; `low` and `high` are the
    95 % interval (Wilson's for a share, else ± 1.96 standard errors), None where the harness gives no standard error.
    """
    version = "the results of lm-eval 0.4.13"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table, shots = dict(content["results"]), dict(content["n-shot"])
    except (ValueError, KeyError, TypeError) as error:
        return describe(path, f"other results ({error})", version, f"Remove {path.parent}, which is made again")
    if task.name not in table:
        return describe(path, f"no task {task.name}", f"one of {', '.join(table)}", "Correct the recipe")
    values, where = table[task.name], f"{path}: {task.name}"
    # Keys are `metric,filter`, beside them name, alias and sample_len.
    metrics = [key for key in values if "," in key and not key.split(",")[0].endswith("_stderr")]
    matching = [key for key in metrics if task.metric in (key, key.split(",")[0])]
    if len(matching) != 1:
        got = f"{task.metric}, which {'has several filters' if matching else 'is missing'}"
        if not metrics:
            return describe(f"{where}, metric", got, "a group with a total", "List the group's tasks in the recipe")
        known = ", ".join(f'"{key}"' for key in matching or metrics)
        return describe(f"{where}, metric", got, f"one of {known}", "Name one of these in the recipe")
    if shots.get(task.name, task.num_fewshot) != task.num_fewshot:
        expected = f"{shots[task.name]}, which the task fixes"
        return describe(f"{where}, num_fewshot", task.num_fewshot, expected, "Set it in the recipe")
    value, n = values[matching[0]], values.get("sample_len")
    stderr = values.get("{}_stderr,{}".format(*matching[0].split(",", 1)))
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not isinstance(n, int):
        return describe(f"{where}, {matching[0]}", f"{value!r} over {n!r} examples", version, "Install that version")
    row = {"task": task.name, "num_fewshot": task.num_fewshot, "metric": matching[0], "value": value, "n": n}
    if not isinstance(stderr, (int, float)) or not math.isfinite(stderr):
        return {**row, "stderr": None, "low": None, "high": None}
    interval = Interval(value, value - NORMAL * stderr, value + NORMAL * stderr)
    if 0 <= value <= 1 and math.isclose(value * n, round(value * n), abs_tol=1e-6):
        interval = fraction_interval(round(value * n), n)
    return {**row, "stderr": stderr, "low": interval.low, "high": interval.high}
