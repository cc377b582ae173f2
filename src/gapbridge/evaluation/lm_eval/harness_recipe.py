"""The recipe of a run of lm-evaluation-harness: which tasks, with how many examples in the prompt, by which metric."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError, describe, require
from ...recipe.type_checks import known_values, read_yaml


@dataclass(frozen=True)
class HarnessTask:
    """One row of the table. `metric` is the harness's name, `acc`, or with its filter, `exact_match,strict-match`."""

    name: str
    num_fewshot: int
    metric: str


@dataclass(frozen=True)
class LmEvalRecipe:
    """A parsed recipe.

    batch_size: a number, or the harness's `auto` or `auto:N`. model_args: further arguments of its `hf` model.
    limit: a number of examples a task, or a share of them below 1; None is all.
    include_path: a folder with tasks of one's own. log_samples: whether every prompt and answer is kept.
    """

    tasks: list[HarnessTask]
    batch_size: int | str = 8
    apply_chat_template: bool = False
    include_path: str | None = None
    limit: int | float | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    log_samples: bool = False


def read_lm_eval_recipe(path: str | Path, *, limit: int | float | None = None) -> LmEvalRecipe:
    """Read and check a recipe. `limit` wins over the file's. Raises ConfigError with all errors of the file."""
    values = {key: value for key, value in read_yaml(Path(path)).items() if value is not None}
    values |= {} if limit is None else {"limit": limit}
    errors: list[str] = []
    known_values(values, LmEvalRecipe, "", errors)
    errors += _range_errors(values)
    rows = values.pop("tasks") if isinstance(values.get("tasks"), list) else []
    for at, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            found: list[str] = []
            known_values(row, HarnessTask, "", found)
            # What the harness could read as several names, as a pattern or as a path.
            is_one = not re.search(r"[\s,*?\[\]/\\]|\.yaml$", str(row.get("name")))
            advice = "Give its name, and the folder of a local task as include_path"
            found += require(is_one, "name", repr(row.get("name")), "one task or group", advice)
            shots = row.get("num_fewshot")
            is_good = not isinstance(shots, int) or shots >= 0
            found += require(is_good, "num_fewshot", shots, "at least 0", "Correct the value")
            errors += [f"tasks, entry {at}, {error}" for error in found]
    if errors:
        raise ConfigError([f"{path}, {error}" for error in errors])
    return LmEvalRecipe(tasks=[HarnessTask(**row) for row in rows], **values)


def _range_errors(values: Mapping[str, Any]) -> list[str]:
    size, limit, folder = values.get("batch_size", 8), values.get("limit", 1), values.get("include_path", ".")
    is_limit = not isinstance(limit, (int, float)) or 0 < limit < 1 or (limit >= 1 and isinstance(limit, int))
    is_folder, found = not isinstance(folder, str) or Path(folder).is_dir(), f"{folder!r}, which is no directory"
    is_size = re.fullmatch(r"[1-9]\d*|auto(:[1-9]\d*)?", str(size)) is not None
    cases = (
        ("tasks", values.get("tasks", True), "an empty list", "entries with name, num_fewshot and metric"),
        ("batch_size", is_size, repr(size), "an integer of at least 1, auto, or auto:N"),
        ("limit", is_limit, repr(limit), "an integer of at least 1, or a fraction between 0 and 1"),
        ("include_path", is_folder, f"{found} (looked from {Path.cwd()})", "a directory"),
    )
    errors = [describe(key, got, wanted, "Correct the value") for key, is_good, got, wanted in cases if not is_good]
    elsewhere = {"pretrained": "--model", "peft": "--model", "batch_size": "its own key", "device": "the environment"}
    return errors + [
        describe(f"model_args, {key}", "a value", f"none, since it is given with {place}", "Remove the key")
        for key, place in elsewhere.items()
        if key in values.get("model_args", ())
    ]
