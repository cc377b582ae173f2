"""What a comparison's figures depend on beside its keys: rows, starting models, files that recipes name, and, of what
is finished, the variants' models. All seeds and variants of a directory are made from the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from trl import ScriptArguments

from .. import methods
from ..data.arrow_files import content_fingerprint
from ..data.sources import DataConfig, find_data
from ..runs.run_config import RunConfig
from ..runs.run_directory import RUNTIME_ONLY_KEYS
from ..store.file_hashes import hash_model, hash_path
from ..store.records import read_record
from .experiment_config import Experiment
from .experiment_plan import ExperimentPlan, read_run_config, variant_recipe


_DATA_KEYS = {entry.name for kind in (DataConfig, ScriptArguments) for entry in fields(kind)}
MODEL_CONFIGS = ("config.json", "adapter_config.json")  # a directory with one of them is a model's


def runtime_only_keys(experiment: Experiment) -> frozenset[str]:
    """Keys that change neither data nor weights of any variant."""
    kinds = {methods.get_method(variant.method) for variant in experiment.variants.values()}
    return RUNTIME_ONLY_KEYS.union(*(kind.config_class.runtime_only_keys() for kind in kinds))


def experiment_device(comparison: ExperimentPlan) -> str:
    """The kind of device that the variants run on; no device is opened."""
    use_cpu = {**comparison.keys, **comparison.experiment.overrides}.get("use_cpu")
    found = None if use_cpu or not torch.accelerator.is_available() else torch.accelerator.current_accelerator()
    return found.type if found else "cpu"


def comparison_inputs(comparison: ExperimentPlan) -> dict[str, dict[str, str]]:
    """`rows`: a fingerprint of each variant's training and held-out rows, by variant and source; `files`: hashes of
    the starting models and of the files and models that recipes name, by path."""
    rows: dict[str, str] = {}
    files: dict[str, str] = {}
    known: dict[str, dict[str, str]] = {}  # of data that several variants and seeds share
    free = runtime_only_keys(comparison.experiment)
    for variant in comparison.experiment.variants.values():
        for seed in comparison.experiment.seeds:
            first = comparison.first_model(seed)
            keys = {**variant_recipe(comparison, variant, seed), "model_name_or_path": first}
            data = json.dumps({key: value for key, value in keys.items() if key in _DATA_KEYS}, default=str)
            if data not in known:
                known[data] = _rows(read_run_config(keys, f"variant {variant.name}"))
            rows |= {f"variant {variant.name}: {source}": found for source, found in known[data].items()}
            others = {key: value for key, value in keys.items() if key not in _DATA_KEYS | free}
            named = [first, *(text for text in _texts(others) if Path(text).exists())]
            files |= {name: found for name in named if name not in files and (found := hash_path(name))}
    return {"rows": rows, "files": files}


def finished_models(directory: Path) -> dict[Path, tuple[str | None, str]]:
    """Each finished variant's record with the hash of the model that it was made with, and of the one that lies there
    now; models that were deleted since are left out."""
    found = {}
    for path in sorted(directory.glob("seed_*/_results/*.json")):
        model = path.parents[1] / path.stem
        if is_model(model):
            found[path] = read_record(path).get("model"), str(hash_model(model))
    return found


def is_model(directory: Path) -> bool:
    """Whether a directory holds a model or an adapter."""
    return any((directory / name).is_file() for name in MODEL_CONFIGS)


def _rows(job: RunConfig) -> dict[str, str]:
    """Source → fingerprint."""
    needs_eval = bool(job.data.eval_datasets or job.data.splits_off or job.script.dataset_name)
    found = find_data(job.data, job.script, needs_eval=needs_eval)
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
