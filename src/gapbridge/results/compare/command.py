"""`gapbridge compare`: each method and control trained from the same start on the same rows, over seeds.

suite.json    what is compared; other settings are refused, further arms and seeds are added
compare.json  every score of every example, arm and seed, and what follows from them
compare.md    a conclusion, tables and forest plots (in plots/); compare.html: the same in one file
seed_1/ …     the runs, see `running.py`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import methods
from ...answers.session import OUTPUTS
from ...contexts.hashes import FileHashes
from ...contexts.records import read_record
from ...display import say
from ...errors import ConfigError, RunError
from ...files import write_json_atomic, write_text_atomic
from ...jsonl import as_json_values
from ...recipe.secrets import without_secrets
from ...reporting.page import write_page
from ...reporting.tables import print_table
from ...runs.directory import environment
from ...tasks.task import EvalTask
from .cells import read_cells
from .dry import run_dry
from .inputs import comparison_inputs, device_of, finished_models, free_keys
from .page import comparison_page, score_tables, verdict
from .recipes import Comparison, read_comparison, task_of
from .running import Run, run_seeds
from .suite import Suite, read_suite, suite_of_options, with_seeds
from .summary import as_records, summarise


SUITE_FILE = "suite.json"
_OF_A_SUITE = ("config", "methods", "match", "task", "max_completion_length", "temperatures", "limit", "gap", "slips")


def run_compare(args: argparse.Namespace, options: list[str], run: Run) -> Path:
    """`gapbridge compare`. Returns the page, or for a dry run the directory that would be written.

    Args:
        args: its options, see `gapbridge compare --help`.
        options: recipe keys, as on the command line.
        run: runs a command line in this process.

    Raises:
        ConfigError, DataError, RunError: see the messages; nothing is overwritten. Interrupted: a signal came; the
        same command continues.
    """
    suite = _suite(args)
    directory = Path(args.output_dir or OUTPUTS / suite.name)
    comparison = read_comparison(suite, directory, options)
    task = task_of(comparison)
    hashes = FileHashes.of_record(directory / SUITE_FILE)
    settings = merged_settings(directory, recorded(comparison, task, hashes))
    check_models(directory, hashes)
    if args.dry_run:
        run_dry(comparison, task, args.workers)
        return directory
    write_json_atomic(directory / SUITE_FILE, {**settings, "files": hashes.record()})
    run_seeds(comparison, task, run, args.workers)
    return write_comparison(directory, settings, task)


def _suite(args: argparse.Namespace) -> Suite:
    if args.suite is None:
        return suite_of_options(args)
    given = [name for name in _OF_A_SUITE if vars(args)[name] not in (None, False)]
    if given:
        names = ", ".join("RECIPE" if name == "config" else f"--{name}" for name in given)
        raise ConfigError(f"command line: --suite says it all: leave out {names}, or change {args.suite}")
    suite = read_suite(args.suite)
    return suite if args.seeds is None else with_seeds(suite, args.seeds)


def recorded(comparison: Comparison, task: EvalTask, hashes: FileHashes) -> dict[str, Any]:
    """Everything that can change a figure, as JSON values; the arms by name."""
    suite, free = comparison.suite, free_keys(comparison.suite)

    def kept(keys: Mapping[str, Any]) -> dict[str, Any]:
        return without_secrets({key: value for key, value in keys.items() if key not in free})

    settings = {
        "name": suite.name,
        "recipe": suite.recipe,
        "method": comparison.method,
        "keys": kept(comparison.keys),
        "overrides": kept(suite.overrides),
        "base": suite.base and asdict(suite.base),
        "match": suite.match,
        "evaluation": {**asdict(suite.evaluation), "task": task.name},
        "arms": {name: {**asdict(arm), "overrides": kept(arm.overrides)} for name, arm in suite.arms.items()},
        "device": device_of(comparison),
        "inputs": comparison_inputs(comparison, hashes),
    }
    return as_json_values(settings)


def merged_settings(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the arms and inputs that the directory has besides.

    Raises:
        RunError: the directory holds a comparison with other settings, rows or models, which are named, or something
        else.
    """
    path = directory / SUITE_FILE
    if not path.exists():
        if directory.is_dir() and any(directory.iterdir()):
            raise RunError(f"{directory}: holds files but no {SUITE_FILE}: choose another --output_dir")
        return settings
    try:
        before = read_record(path)
        arms, inputs = dict(before["arms"]), dict(before.get("inputs", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is damaged ({error}); choose another --output_dir") from error
    merged = {name: {**inputs.get(name, {}), **found} for name, found in settings["inputs"].items()}
    alone: dict[str, Any] = {"arms": {}, "inputs": {}}
    changed = _changed({**before, **alone}, {**settings, **alone})
    changed += _changed(arms, {name: arm for name, arm in settings["arms"].items() if name in arms}, "arm ")
    for name, found in merged.items():  # of other seeds and arms there may be more, or none of what is there
        old = inputs.get(name, dict.fromkeys(found, "nothing"))
        changed += _changed(old, {key: value for key, value in found.items() if key in old})
    if changed:
        raise RunError([f"{path}, {fault}. Set it back, or choose another --output_dir" for fault in changed])
    return {**settings, "arms": {**arms, **settings["arms"]}, "inputs": merged}


def check_models(directory: Path, hashes: FileHashes) -> None:
    """Raise a RunError where finished arms have other models than those that were evaluated."""
    faults = [
        f"{path}, model: got {before or 'nothing'}, expected {now}, the hash of {path.parents[1] / path.stem}. Put "
        "its files back, or choose another --output_dir"
        for path, (before, now) in finished_models(directory, hashes).items()
        if before != now
    ]
    if faults:
        raise RunError(faults)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs, by name; of mappings the entries."""
    faults = []
    for key, value in now.items():
        old = before.get(key)
        if old == value:
            continue
        if isinstance(old, dict) and isinstance(value, dict):
            every = {**dict.fromkeys(old), **value}
            faults += _changed(old, every, f"{prefix}{key}: ")
        else:
            faults.append(f"{prefix}{key}: got {old!r}, expected {value!r}")
    return faults


def write_comparison(directory: Path, settings: dict[str, Any], task: EvalTask) -> Path:
    """Gather what is finished in the directory, and write record and report."""
    cells = read_cells(directory)
    rows = summarise(cells, methods.CONTROL)
    words = verdict(rows, methods.CONTROL)
    record = {
        "settings": settings,
        "task": task.name,
        "words": words,
        "rows": as_records(rows),
        "cells": cells,
        "environment": environment(),
    }
    write_text_atomic(directory / "compare.json", json.dumps(record, ensure_ascii=False) + "\n")
    path = write_page(comparison_page(record, rows, methods.CONTROL, directory), directory, "compare")
    for table in score_tables(rows, methods.CONTROL):
        print_table(table)
    say(words)
    print(f"report: {path.with_suffix('.html')}   as Markdown: {path}   record: {directory / 'compare.json'}")
    return path
