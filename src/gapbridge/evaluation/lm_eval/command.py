"""`gapbridge eval --task lm_eval`: the harness's results in the table and the files of every other task."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...errors import ConfigError
from ...files import write_json_atomic
from ...runs.directory import environment
from .run import TaskResult, as_rows, run_lm_eval


def run_lm_eval_task(args: argparse.Namespace, others: list[str]) -> Path:
    """Run the recipe of `--config` for each model. Returns the file with the figures.

    Raises:
        ConfigError: options that the harness does not take, or faults of the recipe. RunError: the harness failed.
    """
    from ..command import output_directory

    faults = [f"unknown option {option}" for option in others if option.startswith("--")]
    if not args.config:
        faults.append(
            "--task lm_eval needs --config RECIPE with the list of tasks, such as recipes/eval/general_qa.yaml"
        )
    if not args.model:
        faults.append("--task lm_eval needs --model")
    if args.answers or args.judge or args.mode != "direct":
        faults.append("--task lm_eval takes none of --answers, --judge and --mode: the harness asks and grades")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])
    directory = output_directory(args) / "eval"
    results: dict[str, list[TaskResult]] = {}
    for at, model in enumerate(args.model):
        # One model's results lie beside those of the other tasks, several models' in folders of their own.
        folder = directory if len(args.model) == 1 else directory / f"model-{at + 1}"
        results[model] = run_lm_eval(args.config, model, folder, limit=args.limit)
    record = {
        "task": "lm_eval",
        "settings": {"config": args.config, "limit": args.limit, "model": args.model},
        "environment": environment(),
        "results": [{"model": model, **row} for model, rows in results.items() for row in as_rows(rows)],
    }
    path = directory / "lm_eval.json"
    write_json_atomic(path, record)
    _show(results)
    print(f"figures: {path}")
    return path


def _show(results: dict[str, list[TaskResult]]) -> None:
    table = Table(title="lm-evaluation-harness, ± 1.96 standard errors", title_justify="left")
    for name in ("model", "task", "shots", "metric"):
        table.add_column(name)
    for name in ("value", "examples"):
        table.add_column(name, justify="right")
    for model, rows in results.items():
        for row in rows:
            interval = row.interval()
            value = f"{row.value:.4g}" if interval is None else str(interval)
            table.add_row(model, row.task, str(row.num_fewshot), row.metric, value, str(row.n))
    (Console() if Console().is_terminal else Console(width=160)).print(table)
