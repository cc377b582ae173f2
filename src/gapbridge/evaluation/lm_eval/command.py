"""`gapbridge eval --task lm_eval`: the harness's results in the table and the files of every other task."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError, describe, require
from ...files import write_json_atomic
from ...generation.common import output_directory
from ...generation.recorded_settings import finished_record, recorded_settings
from ...reporting.evaluations import evaluation_tables
from ...reporting.tables import print_table
from ...runs.run_directory import environment
from .harness import evaluate_model, harness_model_args, task_files
from .harness_recipe import read_lm_eval_recipe


def run_lm_eval(args: argparse.Namespace, others: list[str]) -> Path:
    """Run the recipe of `--config` for each model. Returns the file with the figures.

    Raises:
        ConfigError: options that the harness does not take, or errors of the recipe. RunError: the harness failed.
    """
    place = "--task lm_eval"
    errors = [
        describe("argument", f"the unknown option {option}", "a known option", "Correct or remove the option")
        for option in others
        if option.startswith("--")
    ]
    advice = "Give --model and --config, such as recipes/eval/general_qa.yaml"
    errors += require(args.config and args.model, place, "no --model or no --config", "both", advice)
    if args.completions_file or args.judge or args.vllm_server_base_url or set(args.decoding_mode) - {"single_pass"}:
        got = "one of --completions_file, --judge, --decoding_mode and --vllm_server_base_url"
        errors.append(describe(place, got, "none, since the harness generates and grades", "Remove the option"))
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])
    recipe = read_lm_eval_recipe(args.config, limit=args.max_examples)
    path = output_directory(args) / "eval" / "lm_eval.json"
    settings = recorded_settings(args, others, [*args.model, *task_files(recipe)]) | {"recipe": asdict(recipe)}
    if path.exists():
        _show(finished_record(path, settings))
        print(f"{path}: this evaluation is complete; remove the file to do it again")
        return path
    model_args = {model: harness_model_args(model, recipe.model_args) for model in args.model}
    results = [
        {"model": model, **row}
        for model in args.model
        for row in evaluate_model(recipe, model_args[model], path.parent)
    ]
    record = {"task": "lm_eval", "settings": settings, "environment": environment(), "results": results}
    write_json_atomic(path, record)
    _show(record)
    print(f"figures: {path}")
    return path


def _show(record: dict[str, Any]) -> None:
    for table in evaluation_tables(record):
        print_table(table)
