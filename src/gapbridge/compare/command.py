"""`gapbridge compare`: each method and control trained from the same start on the same rows, over seeds.

experiment.json    what is compared; other settings are refused, further variants and seeds are added
compare.json  every score of every example, variant and seed, and what follows from them
compare.md    a conclusion, tables and forest plots (in plots/); compare.html: the same in one file
seed_1/ …     the runs, see `execute.py`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import methods
from ..display import notice_if_slow, say
from ..errors import ConfigError, RunError, require
from ..files import write_json_atomic, write_text_atomic
from ..generation.common import OUTPUTS
from ..jsonl import as_json_values
from ..recipe.secrets import redact
from ..reporting.page import write_page
from ..reporting.tables import print_table
from ..runs.run_directory import environment
from ..store.records import read_record
from ..tasks.task import EvalTask
from .dry_run import run_dry
from .execute import Run, run_seeds
from .experiment_config import NONE, Experiment, Variant, experiment_of_options, read_experiment, with_seeds
from .experiment_plan import ExperimentPlan, experiment_task, read_comparison
from .inputs import comparison_inputs, experiment_device, finished_models, is_model, runtime_only_keys
from .markdown_report import comparison_page, score_tables, verdict
from .run_records import read_cells
from .variant_results import summarize_variants


EXPERIMENT_FILE = "experiment.json"
_IN_EXPERIMENT_FILE = (
    "config methods budget task max_completion_length temperatures max_examples gap error_positions".split()
)


def run_compare(args: argparse.Namespace, options: list[str], run: Run) -> Path:
    """`gapbridge compare`. Returns the page, or for a dry run the directory that would be written.

    Args:
        options: recipe keys, as on the command line. run: runs a command line in this process.
    """
    experiment = _read_experiment(args)
    directory = Path(args.output_dir or OUTPUTS / experiment.name)
    with notice_if_slow("checking the recipe of each variant …"):
        comparison = read_comparison(experiment, directory, options)
    task = experiment_task(comparison)
    settings = merged_settings(directory, recorded(comparison, task))
    check_models(directory)
    check_starting_models(comparison)
    if args.dry_run:
        run_dry(comparison, task, args.num_parallel_seeds)
        return directory
    write_json_atomic(directory / EXPERIMENT_FILE, settings)
    run_seeds(comparison, task, run, args.num_parallel_seeds, delete_models=args.delete_models)
    return write_comparison(directory, settings, task)


def _read_experiment(args: argparse.Namespace) -> Experiment:
    if args.experiment_config is None:
        return experiment_of_options(args)
    given = [name for name in _IN_EXPERIMENT_FILE if vars(args)[name] not in (None, False)]
    if given:
        names = ", ".join("RECIPE" if name == "config" else f"--{name}" for name in given)
        place, advice = "command line, --experiment_config", f"Remove {names}, or change {args.experiment_config}"
        raise ConfigError(place, f"a file beside {names}", "the file alone", advice)
    experiment = read_experiment(args.experiment_config)
    return experiment if args.seeds is None else with_seeds(experiment, args.seeds)


def recorded(comparison: ExperimentPlan, task: EvalTask) -> dict[str, Any]:
    """Everything that can change a figure, as JSON values; the variants by name."""
    experiment, free = comparison.experiment, runtime_only_keys(comparison.experiment)

    def remaining(keys: Mapping[str, Any]) -> dict[str, Any]:
        return redact({key: value for key, value in keys.items() if key not in free}).keys

    def described(variant: Variant) -> dict[str, Any]:
        return {**asdict(variant), "overrides": remaining(variant.overrides)}

    evaluation = {**asdict(experiment.evaluation), "task": task.name}
    evaluation["same_completions"] = experiment.evaluation.same_completions or None
    settings = {
        "name": experiment.name,
        "recipe": experiment.recipe,
        "method": comparison.method,
        "keys": remaining(comparison.keys),
        "overrides": remaining(experiment.overrides),
        "init_model": experiment.init_model and asdict(experiment.init_model),
        "budget": experiment.budget,
        "evaluation": evaluation,
        "variants": {name: described(variant) for name, variant in experiment.variants.items()},
        "device": experiment_device(comparison),
        "inputs": comparison_inputs(comparison),
    }
    return as_json_values(settings)


def merged_settings(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the variants and inputs that the directory has besides.

    Raises:
        RunError: it holds a comparison with other settings, rows or models, which are named, or something else.
    """
    path, advice = directory / EXPERIMENT_FILE, "Choose another --output_dir"
    if not path.exists():
        if directory.is_dir() and any(directory.iterdir()):
            expected = "an empty directory or a comparison"
            raise RunError(directory, f"files but no {EXPERIMENT_FILE}", expected, advice)
        return settings
    try:
        before = read_record(path)
        variants, inputs = dict(before["variants"]), dict(before.get("inputs", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(path, f"a damaged file ({error})", "the one that was written", advice) from error
    merged = {name: {**inputs.get(name, {}), **found} for name, found in settings["inputs"].items()}
    alone: dict[str, Any] = {"variants": {}, "inputs": {}}
    changed = _changed({**before, **alone}, {**settings, **alone})
    known = {name: variant for name, variant in settings["variants"].items() if name in variants}
    changed += _changed(variants, known, "variant ")
    for name, found in merged.items():  # of other seeds and variants there may be more, or none of what is there
        old = inputs.get(name, dict.fromkeys(found, "nothing"))
        changed += _changed(old, {key: value for key, value in found.items() if key in old})
    if changed:
        raise RunError([f"{path}, {message}" for message in changed])
    return {**settings, "variants": {**variants, **settings["variants"]}, "inputs": merged}


def check_models(directory: Path) -> None:
    """Raise a RunError where finished variants have other models than those that were evaluated."""
    errors = []
    for path, (before, now) in finished_models(directory).items():
        expected = f"{now}, the hash of {path.parents[1] / path.stem}"
        advice = "Restore its files, or choose another --output_dir"
        errors += require(before == now, f"{path}, model", before or "nothing", expected, advice)
    if errors:
        raise RunError(errors)


def check_starting_models(comparison: ExperimentPlan) -> None:
    """Raise a RunError where a variant that is to be trained starts from a model that `--delete_models` deleted."""
    errors = []
    for seed in comparison.experiment.seeds:
        for variant in comparison.experiment.variants.values():
            if variant.init_from == NONE or comparison.result_file(seed, variant.name).exists():
                continue
            model = Path(comparison.start_of(variant, seed))
            is_deleted = comparison.result_file(seed, model.name).exists() and not is_model(model)
            expected = f"the one that variant {variant.name} starts from"
            advice = "Choose another --output_dir, without --delete_models"
            errors += require(not is_deleted, f"{model}, model", "a deleted model", expected, advice)
    if errors:
        raise RunError(errors)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs, by name; of mappings the entries."""
    errors = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            errors += _changed(old, {**dict.fromkeys(old), **value}, f"{prefix}{key}, ")
        else:
            advice = "Restore the value, or choose another --output_dir"
            errors += require(old == value, f"{prefix}{key}", repr(old), repr(value), advice)
    return errors


def write_comparison(directory: Path, settings: dict[str, Any], task: EvalTask) -> Path:
    """Gather what is finished in the directory, and write record and report."""
    cells = read_cells(directory)
    rows = summarize_variants(cells, methods.CONTROL)
    words = verdict(rows, methods.CONTROL)
    record = {
        "settings": settings,
        "task": task.name,
        "conclusion": words,
        "rows": [asdict(row) for row in rows],
        "cells": cells,
        "environment": environment(),
    }
    write_text_atomic(directory / "compare.json", json.dumps(record, ensure_ascii=False) + "\n")
    path = write_page(comparison_page(record, rows, methods.CONTROL), directory, "compare")
    for table in score_tables(rows, methods.CONTROL):
        print_table(table)
    say(words)
    print(f"report: {path.with_suffix('.html')}   as Markdown: {path}   record: {directory / 'compare.json'}")
    return path
