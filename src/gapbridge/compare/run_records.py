"""One variant with one seed: what its evaluations and its run left, gathered into one record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..evaluation.aggregate import MEANS
from ..reporting.evaluations import is_interval
from ..reporting.samples import read_samples
from ..store.records import read_record
from ..tasks.task import EvalTask
from ..training.metrics import read_metrics
from ..training.run_files import seconds, stages
from .budget import StepCost


_JUDGES = ("exact_match", "math_verify")  # of which `accuracy` is made
_EDITS = ("token_f1", "cer")  # of whatever grader, where samples have them
Record = dict[str, Any]


def read_scores(samples: Path, task: EvalTask, temperature: float) -> dict[str, dict[str, dict[str, float]]]:
    """mode → score → example → value, of an evaluation's samples."""
    columns = {name: key for name, key in MEANS[task.grader].items() if name not in _JUDGES}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for sample in read_samples(samples):
        scores = found.setdefault(sample["decoding_mode"], {})
        for name, key in {**columns, **{name: name for name in _EDITS if name in sample}}.items():
            column = f"{name}, T = {temperature:g}" if temperature else f"{name}, greedy"
            scores.setdefault(column, {})[str(sample["id"])] = float(sample[key])
    return found


def read_figures(gap: Mapping[str, Any]) -> dict[str, Record]:
    """The figures of one model in `gap.json`, by their path in it: `mean`, and where it is there `by_example`. Curves,
    which are lists of intervals, and the losses by prefix length are left to the record of the gap."""
    return dict(_figures(gap, ""))


def _figures(value: Any, path: str) -> Iterator[tuple[str, Record]]:
    if isinstance(value, list):
        if not all(isinstance(entry, dict) and not is_interval(entry) for entry in value):
            return
        value = {str(at): entry for at, entry in enumerate(value)}
    if not isinstance(value, dict):
        return
    examples = value.get("by_example")
    if isinstance(examples, dict):
        finite = {key: float(one) for key, one in examples.items() if _is_number(one)}
        if finite:
            yield path, {"mean": sum(finite.values()) / len(finite), "by_example": finite}
    elif is_interval(value):
        if _is_number(value["mean"]):
            yield path, {"mean": float(value["mean"])}
    else:
        for key, entry in value.items():
            if key != "by_prefix_length":
                yield from _figures(entry, f"{path}.{key}" if path else key)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_cost(run: Path, load: StepCost) -> dict[str, float | None]:
    """What a finished run took: wall seconds, optimizer steps, tokens, and forward-token equivalents."""
    took = seconds(stages(run))
    steps = sum(max((entry.get("step", 0) for entry in read_metrics(stage)), default=0) for stage in stages(run))
    return {
        "training time (s)": took["training"],
        "generation time (s)": took["generation"],
        "steps": steps,
        "tokens": round(load.tokens(steps)),
        "forward-token equivalents": round(load.compute(steps)),
    }


def read_cells(directory: Path) -> list[Record]:
    """All finished (seed, variant) of a comparison's directory, by seed and in the order they were made."""
    paths = sorted(directory.glob("seed_*/_results/*.json"))
    return sorted(map(read_record, paths), key=lambda cell: (cell["seed"], cell["order"], cell["variant"]))
