"""A bridge to lm-evaluation-harness 0.4.13 (extra `lm-eval`): a recipe's tasks in, rows of the results table out.

The harness runs in a process of its own, once for each number of examples in the prompt:

    <output_dir>/lm_eval/5_shot/results_<date>.json   the harness's own results (samples_*.jsonl with log_samples)
    <output_dir>/lm_eval/5_shot/group.json            written last: the settings, and which file holds their results
    <output_dir>/lm_eval/5_shot/log.txt               what the harness printed

A group that is there with the same settings is not run again; one with other settings is refused.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...answers.intervals import Interval
from ...contexts.fingerprint import model_files
from ...errors import ConfigError, RunError
from ...files import write_json_atomic
from .recipe import LmEvalRecipe, Task, read_lm_eval_recipe


logger = logging.getLogger(__name__)

GROUP_FILE = "group.json"
LOG_FILE = "log.txt"
_TAIL_LINES = 15
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class TaskResult:
    """One row. `metric` has its filter (`acc,none`); `value` and `stderr` are in the metric's unit, shares in [0, 1].

    `stderr` is None where the harness gives none; `n` is the number of examples that were evaluated.
    """

    task: str
    num_fewshot: int
    metric: str
    value: float
    stderr: float | None
    n: int

    def interval(self) -> Interval | None:
        """The 95 % interval by the normal approximation: value ± 1.96 · stderr."""
        if self.stderr is None:
            return None
        return Interval(self.value, self.value - _NORMAL_95 * self.stderr, self.value + _NORMAL_95 * self.stderr)


def run_lm_eval(
    config_path: str | Path,
    model: str,
    output_dir: str | Path,
    *,
    limit: int | float | None = None,
    device: str | None = None,
) -> list[TaskResult]:
    """Evaluate `model` on a recipe's tasks and return one row for each, in the recipe's order.

    Args:
        config_path: a recipe such as recipes/eval/general_qa.yaml.
        model: a model's directory, a LoRA adapter's directory, or a hub id.
        output_dir: results go into `lm_eval/` inside it.
        limit: examples a task, or a share of them below 1; wins over the recipe's.
        device: as the harness takes it: cpu, cuda, cuda:1, mps. Without it, the GPU if there is one.

    Raises:
        ConfigError: faults of the recipe or of `model`; lm-eval is not installed.
        RunError: the directory holds results of other settings, the harness failed, or a metric is missing.
    """
    recipe = read_lm_eval_recipe(config_path, limit=limit)
    model_args = harness_model_args(model, recipe.model_args)
    fingerprints = _fingerprints(recipe, model_args)
    groups: dict[int, list[Task]] = {}
    for task in recipe.tasks:
        groups.setdefault(task.num_fewshot, []).append(task)
    folders = {shots: Path(output_dir) / "lm_eval" / f"{shots}_shot" for shots in groups}
    settings = {
        shots: _settings(recipe, tasks, model_args) | {"fingerprints": fingerprints} for shots, tasks in groups.items()
    }
    # All refusals come before the first hour of computing.
    done = {shots: finished_results(folder, settings[shots]) for shots, folder in folders.items()}
    if None in done.values() and importlib.util.find_spec("lm_eval") is None:
        raise ConfigError('general QA needs lm-evaluation-harness: pip install "gapbridge[lm-eval]"')
    rows: dict[Task, TaskResult] = {}
    faults: list[str] = []
    for shots, tasks in groups.items():
        results, folder = done[shots], folders[shots]
        if results is None:
            names = ", ".join(settings[shots]["tasks"])
            logger.info("lm_eval: %s with %d examples in the prompt → %s", names, shots, folder)
            results = _run_group(recipe, tasks, model_args, folder, device)
            write_json_atomic(folder / GROUP_FILE, {"settings": settings[shots], "results": results.name})
        else:
            logger.info("lm_eval: %s is complete and not run again", folder)
        try:
            rows.update(zip(tasks, read_results(results, tasks), strict=True))
        except RunError as error:
            faults += error.faults
    if faults:
        raise RunError(faults)
    return [rows[task] for task in recipe.tasks]


def as_rows(results: Iterable[TaskResult]) -> list[dict[str, Any]]:
    """Plain rows for the results table and for JSON: the fields of `TaskResult`, and `low` and `high` or None."""
    rows = []
    for result in results:
        interval = result.interval()
        bounds = {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}
        rows.append({**asdict(result), **bounds})
    return rows


def harness_model_args(model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's model arguments. An adapter's directory becomes its base model and `peft`.

    The tokenizer is the adapter's own where the directory has one: it carries the chat template it was trained with.

    Raises:
        ConfigError: there is no such directory, it holds no model, or an adapter names no base model.
    """
    path = Path(model)
    if not path.is_dir():
        # A hub id is NAME or OWNER/NAME.
        if path.is_absolute() or model.startswith(".") or len(path.parts) > 2:
            raise ConfigError(f"model {model}: no such directory (looked from {Path.cwd()})")
        return {"pretrained": model, **extra}
    adapter = path / "adapter_config.json"
    if not adapter.is_file():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model {model}: holds neither config.json nor adapter_config.json: it is no model")
        return {"pretrained": model, **extra}
    try:
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ConfigError(f"{adapter}: is damaged ({error})") from error
    if not base:
        raise ConfigError(f"{adapter}: base_model_name_or_path is missing: name the base model there")
    own_tokenizer = {"tokenizer": model} if (path / "tokenizer_config.json").is_file() else {}
    return {"pretrained": base, "peft": model, **own_tokenizer, **extra}


def build_command(
    recipe: LmEvalRecipe, tasks: Sequence[Task], model_args: Mapping[str, Any], folder: Path, device: str | None
) -> list[str]:
    """The command for tasks that share one `num_fewshot`. Results go to `folder/results_<date>.json`."""
    command = [
        sys.executable, "-m", "lm_eval", "run",
        "--model", "hf",
        "--model_args", json.dumps(dict(model_args)),  # as JSON, so that commas and = in a path stay in it
        "--tasks", ",".join(_names(tasks)),
        "--num_fewshot", str(tasks[0].num_fewshot),
        "--batch_size", str(recipe.batch_size),
        "--output_path", str(folder / "results.json"),
    ]  # fmt: skip
    if device is not None:
        command += ["--device", device]
    if recipe.limit is not None:
        command += ["--limit", str(recipe.limit)]
    if recipe.include_path is not None:
        command += ["--include_path", recipe.include_path]
    if recipe.log_samples:
        command += ["--log_samples"]
    if recipe.apply_chat_template:
        template = recipe.apply_chat_template
        command += ["--apply_chat_template", *([template] if isinstance(template, str) else [])]
    return command


def finished_results(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The results file of a group that is complete with these settings, or None if it has to run.

    Raises:
        RunError: the group is there with other settings (all are listed), or its record is damaged.
    """
    record = folder / GROUP_FILE
    if not record.is_file():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        before, results = dict(content["settings"]), folder / str(content["results"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{record}: is damaged ({error}); remove it and the group runs again") from error
    now = json.loads(json.dumps(settings))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        raise RunError(
            [
                f"{folder}: holds results of other settings. Choose another output directory, set these settings "
                "back, or remove the folder",
                *(f"{key}: the results there have {before.get(key)!r}, this run {now.get(key)!r}" for key in changed),
            ]
        )
    return results if results.is_file() else None


def read_results(path: Path, tasks: Sequence[Task]) -> list[TaskResult]:
    """The rows of `tasks` from a results file of the harness 0.4.13.

    Raises:
        RunError: the file is damaged, or tasks or metrics are missing; all are listed, with what there is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table, shots = dict(content["results"]), dict(content["n-shot"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: no results of lm-eval 0.4.13 ({error}); remove {path.parent} and it is made anew"
        ) from error
    rows, faults = [], []
    for task in tasks:
        found = _row(task, table, shots)
        if isinstance(found, str):
            faults.append(f"{path}: {found}")
        else:
            rows.append(found)
    if faults:
        raise RunError(faults)
    return rows


def _row(task: Task, table: Mapping[str, Any], shots: Mapping[str, Any]) -> TaskResult | str:
    """The task's row, or what is wrong with it."""
    values = table.get(task.name)
    if values is None:
        return f"no task {task.name}; there are {', '.join(table)}"
    # Keys are `metric,filter`, beside them name, alias and sample_len.
    metrics = [key for key in values if "," in key and not key.split(",")[0].endswith("_stderr")]
    matching = [key for key in metrics if task.metric in (key, key.split(",")[0])]
    if len(matching) != 1:
        reason = "has several filters" if matching else "is missing"
        known = ", ".join(f'"{key}"' for key in matching or metrics) or "none: the group has no total, list its tasks"
        return f"{task.name}: metric {task.metric} {reason}; name one of these in the recipe: {known}"
    if shots.get(task.name, task.num_fewshot) != task.num_fewshot:
        return (
            f"{task.name}: ran with num_fewshot {shots[task.name]}, which the task fixes, and the recipe asks for "
            f"{task.num_fewshot}: set it in the recipe"
        )
    metric, filter_name = matching[0].split(",", 1)
    value, stderr = values[matching[0]], values.get(f"{metric}_stderr,{filter_name}")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{task.name}: {matching[0]} is {value!r}, no number"
    count = values.get("sample_len")
    if not isinstance(count, int):
        return f"{task.name}: sample_len is {count!r}: these are no results of lm-eval 0.4.13; install that version"
    known_error = float(stderr) if isinstance(stderr, (int, float)) and math.isfinite(stderr) else None
    return TaskResult(task.name, task.num_fewshot, matching[0], float(value), known_error, count)


def _run_group(
    recipe: LmEvalRecipe, tasks: Sequence[Task], model_args: Mapping[str, Any], folder: Path, device: str | None
) -> Path:
    """Run the harness for one group and return its results file, which must be new."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("results_*.json"))
    log = folder / LOG_FILE
    code, tail = stream_command(build_command(recipe, tasks, model_args, folder, device), log)
    if code != 0:
        raise RunError(
            f"lm_eval stopped with exit code {code}; groups that are complete stay, the same command continues. The "
            f"last lines of {log}:\n{tail}"
        )
    new = sorted(set(folder.glob("results_*.json")) - before)
    if not new:  # the harness only warns when it cannot write
        raise RunError(f"lm_eval wrote no results into {folder}: is there room? The last lines of {log}:\n{tail}")
    return new[-1]


def stream_command(command: Sequence[str], log: Path) -> tuple[int, str]:
    """Run a command, pass what it prints on to stderr and `log` as it comes; its exit code and last lines."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tail = ""
    # Written as it comes, not atomically: after a crash the log is what one wants to read.
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        try:
            while chunk := os.read(descriptor, 65536):
                text = decoder.decode(chunk)
                for sink in (sys.stderr, file):
                    sink.write(text)
                    sink.flush()
                tail = (tail + text)[-20_000:]
            process.wait()
        finally:
            if process.poll() is None:  # interrupted: leave no process behind
                process.kill()
    # Progress bars redraw their line behind a carriage return.
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", tail) if line.strip()]
    return process.returncode, "\n".join(lines[-_TAIL_LINES:])


def _settings(recipe: LmEvalRecipe, tasks: Sequence[Task], model_args: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a group's results. Metrics are picked afterwards; batch size and device only move rounding."""
    return {
        "tasks": _names(tasks),
        "num_fewshot": tasks[0].num_fewshot,
        "model_args": dict(model_args),
        "apply_chat_template": recipe.apply_chat_template,
        "include_path": recipe.include_path,
        "limit": recipe.limit,
        "log_samples": recipe.log_samples,
    }


def _names(tasks: Sequence[Task]) -> list[str]:
    """Each name once, in order: two metrics of a task are one evaluation."""
    return list(dict.fromkeys(task.name for task in tasks))


def _fingerprints(recipe: LmEvalRecipe, model_args: Mapping[str, Any]) -> dict[str, str]:
    """A hash of each local directory that enters: training anew into the same directory is another model."""
    places = {str(model_args.get(key, "")) for key in ("pretrained", "peft", "tokenizer")} - {""}
    files = {place: model_files(Path(place)) for place in places if Path(place).is_dir()}
    if recipe.include_path is not None:
        found = Path(recipe.include_path).rglob("*")
        files[recipe.include_path] = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return {place: _fingerprint(Path(place), paths) for place, paths in sorted(files.items())}


def _fingerprint(folder: Path, paths: Iterable[Path]) -> str:
    """A hash of names and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            while chunk := file.read(2**24):
                digest.update(chunk)
    return digest.hexdigest()
