"""What a comparison's figures depend on beside its keys: rows, starting models, files that recipes name, and, of what
is finished, the arms' models. All seeds and arms of a directory are made from the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from trl import ScriptArguments

from ... import methods
from ...contexts.hashes import FileHashes
from ...contexts.records import read_record
from ...examples.data import DataConfig, find_data
from ...examples.tables import content_fingerprint
from ...runs.directory import FREE_SETTINGS
from ...runs.job import Job
from .recipes import Comparison, arm_recipe, job_of
from .suite import Suite


_DATA_KEYS = {entry.name for kind in (DataConfig, ScriptArguments) for entry in fields(kind)}
_SPLIT_SEED = 0  # of rows that are split off: which seeds the arms have is known by their names


def free_keys(suite: Suite) -> frozenset[str]:
    """Keys that change neither data nor weights of any arm."""
    kinds = {methods.find(arm.method) for arm in suite.arms.values()}
    return FREE_SETTINGS.union(*(kind.config_class.free_settings() for kind in kinds))


def device_of(comparison: Comparison) -> str:
    """The kind of device that the arms run on; no device is opened."""
    use_cpu = {**comparison.keys, **comparison.suite.overrides}.get("use_cpu")
    found = None if use_cpu or not torch.accelerator.is_available() else torch.accelerator.current_accelerator()
    return found.type if found else "cpu"


def comparison_inputs(comparison: Comparison, hashes: FileHashes) -> dict[str, dict[str, str]]:
    """`rows`: a fingerprint of each arm's training and held-out rows, by arm and source; `files`: hashes of the
    starting models and of the files and models that recipes name, by path.

    Raises:
        ConfigError, DataError: data cannot be loaded.
    """
    rows: dict[str, str] = {}
    files: dict[str, str] = {}
    known: dict[str, dict[str, str]] = {}  # of data that several arms and seeds share
    free = free_keys(comparison.suite)
    for arm in comparison.suite.arms.values():
        for seed in comparison.suite.seeds:
            first = comparison.first_model(seed)
            keys = {**arm_recipe(comparison, arm, seed), "model_name_or_path": first}
            data = json.dumps({key: value for key, value in keys.items() if key in _DATA_KEYS}, default=str)
            if data not in known:
                known[data] = _rows(job_of(keys, f"arm {arm.name}"))
            rows |= {f"arm {arm.name}: {source}": found for source, found in known[data].items()}
            others = {key: value for key, value in keys.items() if key not in _DATA_KEYS | free}
            named = [first, *(text for text in _texts(others) if Path(text).exists())]
            files |= {name: found for name in named if (found := hashes.of(name))}
    return {"rows": rows, "files": files}


def finished_models(directory: Path, hashes: FileHashes) -> dict[Path, tuple[str | None, str]]:
    """Each finished arm's record with the hash of the model that it was made with, and of the one that lies there now;
    models that were deleted since are left out."""
    found = {}
    for path in sorted(directory.glob("seed_*/_results/*.json")):
        model = path.parents[1] / path.stem
        if any((model / name).is_file() for name in ("config.json", "adapter_config.json")):
            found[path] = read_record(path).get("model"), str(hashes.model(model))
    return found


def _rows(job: Job) -> dict[str, str]:
    """Source → fingerprint."""
    evaluates = str(job.args.eval_strategy.value) != "no" and bool(job.script.dataset_name)
    needs_eval = bool(job.data.eval_datasets or job.data.splits_off) or evaluates
    found = find_data(job.data, job.script, seed=_SPLIT_SEED, needs_eval=needs_eval)
    rows = {f"training rows of {found.source}": content_fingerprint(found.train)}
    if found.eval is not None:
        rows[f"held-out rows of {found.eval_source}"] = content_fingerprint(found.eval)
    return rows


def _texts(value: Any) -> Iterator[str]:
    """The strings in a value, short enough to name a file."""
    if isinstance(value, str) and 0 < len(value) < 256 and "\0" not in value:
        yield value
    elif isinstance(value, (Mapping, list)):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry)
