"""The recipe of a run of lm-evaluation-harness: which tasks, with how many examples in the prompt, by which metric."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...recipe.values import nearest, read_yaml


# What the harness could read as several names, as a pattern or as a path.
_NO_TASK_NAME = re.compile(r"[\s,*?\[\]/\\]|\.yaml$")
_ELSEWHERE = {
    "pretrained": "the model is given with --model",
    "peft": "the adapter is given with --model",
    "device": "the device is given with --device",
    "batch_size": "it is a key of the recipe itself",
}


@dataclass(frozen=True)
class Task:
    """One row of the table. `metric` is the harness's name, `acc`, or with its filter, `exact_match,strict-match`."""

    name: str
    num_fewshot: int
    metric: str


@dataclass(frozen=True)
class LmEvalRecipe:
    """A parsed recipe. `limit` is a number of examples a task, or a share of them below 1; None is all."""

    path: Path
    tasks: tuple[Task, ...]
    batch_size: int | str = 8
    apply_chat_template: bool | str = False
    include_path: str | None = None
    limit: int | float | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    log_samples: bool = False


KEYS = tuple(entry.name for entry in dataclasses.fields(LmEvalRecipe) if entry.name != "path")
TASK_KEYS = tuple(entry.name for entry in dataclasses.fields(Task))


def read_lm_eval_recipe(path: str | Path, *, limit: int | float | None = None) -> LmEvalRecipe:
    """Read and check a recipe. `limit` wins over the file's.

    Raises:
        ConfigError: with all faults of the file.
    """
    path = Path(path)
    values = {key: value for key, value in read_yaml(path).items() if value is not None}
    if limit is not None:
        values["limit"] = limit
    faults = [f"unknown key {key!r}{nearest(key, KEYS)}" for key in values if key not in KEYS]
    tasks = _tasks(values.get("tasks"), faults)
    _check_options(values, faults)
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    return LmEvalRecipe(path=path, **{**values, "tasks": tuple(tasks)})


def _tasks(entries: Any, faults: list[str]) -> list[Task]:
    if not isinstance(entries, list) or not entries:
        faults.append("tasks: give a list of {name, num_fewshot, metric}")
        return []
    tasks: list[Task] = []
    for row, entry in enumerate(entries, start=1):
        where = f"tasks, entry {row}"
        if not isinstance(entry, dict):
            faults.append(f"{where} is {entry!r}: it must be {{name, num_fewshot, metric}}")
            continue
        found = [
            f"{where}: unknown key {key!r}{nearest(str(key), TASK_KEYS)}" for key in entry if key not in TASK_KEYS
        ]
        found += [f"{where}: {key} is missing" for key in TASK_KEYS if entry.get(key) is None]
        name: Any = entry.get("name")
        shots: Any = entry.get("num_fewshot")
        metric: Any = entry.get("metric")
        if name is not None and (not isinstance(name, str) or not name or _NO_TASK_NAME.search(name)):
            found.append(f"{where}: name is {name!r}: give one task or group; a local task's folder is include_path")
        if shots is not None and (not _is_int(shots) or shots < 0):
            found.append(f"{where}: num_fewshot is {shots!r}: it must be a whole number from 0 on")
        if metric is not None and (not isinstance(metric, str) or not metric):
            found.append(f"{where}: metric is {metric!r}: it must be a name, such as acc")
        if not found:
            task = Task(name, shots, metric)
            if task in tasks:
                found.append(f"{where}: {name} with {shots} examples and {metric} is there twice: remove one")
            tasks.append(task)
        faults += found
    return tasks


def _check_options(values: Mapping[str, Any], faults: list[str]) -> None:
    size = values.get("batch_size", 8)
    automatic = isinstance(size, str) and re.fullmatch(r"auto(:[1-9]\d*)?", size)
    if not automatic and not (_is_int(size) and size >= 1):
        faults.append(f"batch_size is {size!r}: it must be a whole number from 1 on, auto, or auto:N")
    template = values.get("apply_chat_template", False)
    if not isinstance(template, (bool, str)) or template == "":
        faults.append(f"apply_chat_template is {template!r}: it must be true, false or a template's name")
    folder = values.get("include_path")
    if folder is not None and not (isinstance(folder, str) and Path(folder).is_dir()):
        faults.append(f"include_path is {folder!r}: no such directory (looked from {Path.cwd()})")
    limit = values.get("limit")
    if limit is not None and not ((_is_int(limit) and limit >= 1) or (isinstance(limit, float) and 0 < limit < 1)):
        faults.append(f"limit is {limit!r}: it must be a whole number from 1 on, or a share between 0 and 1")
    extra = values.get("model_args", {})
    if not isinstance(extra, dict):
        faults.append(f"model_args is {extra!r}: it must map names to values")
    else:
        faults += [f"model_args: {key}: {reason}" for key, reason in _ELSEWHERE.items() if key in extra]
        faults += [f"model_args: {key} is {value!r}: {_NO_JSON}" for key, value in extra.items() if not _plain(value)]
    samples = values.get("log_samples", False)
    if not isinstance(samples, bool):
        faults.append(f"log_samples is {samples!r}: it must be true or false")


_NO_JSON = "it must be text, a number, true, false, empty, or a list or mapping of these"


def _plain(value: Any) -> bool:
    """Whether JSON can carry the value to the harness. YAML also knows dates."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(_plain(entry) for entry in value)
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
