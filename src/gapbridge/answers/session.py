"""What the commands share that ask finished models: where files go, the recipe, the model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding.mode import place_for_generation
from ..display import printable
from ..examples.example import ExampleSet
from ..runs.directory import RUN_FILE, run_date
from ..runs.inputs import load_held_out, load_start
from ..runs.job import Job, read_job


OUTPUTS = Path("outputs")


def output_directory(args: argparse.Namespace) -> Path:
    """Where the files go: as asked with `output_dir`, or beside the one run that is asked, or to `outputs`."""
    if args.output_dir is not None:
        return Path(args.output_dir)
    if len(args.model) == 1 and (Path(args.model[0]) / RUN_FILE).is_file():
        return Path(args.model[0])
    return OUTPUTS


def short_name(name: str, names: Sequence[str]) -> str:
    """The last part of a path where that is enough to tell the models apart."""
    last = Path(name).name
    return last if sum(Path(other).name == last for other in set(names)) == 1 else name


def console() -> Console:
    """The terminal, or where there is none a page of 100 columns."""
    return Console() if Console().is_terminal else Console(width=100)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1) -> None:
    """Print a table below its title; the first `texts` columns are text, which may be folded, the others figures."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name in head[:texts]:
        table.add_column(Text(printable(name)), overflow="fold")
    for name in head[texts:]:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        # Side by side, several means with their intervals are wider than a page.
        cells = [*map(str, row[:texts]), *(str(cell).replace(" [", "\n[") for cell in row[texts:])]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console().print(printable(title), highlight=False, markup=False, soft_wrap=True)
    console().print(table)


def count_faults(args: argparse.Namespace, *names: str) -> list[str]:
    """Those of the options, where they are given, that are below 1."""
    values = {name: vars(args)[name] for name in names}
    return [
        f"--{name} is {value}: it must be at least 1"
        for name, value in values.items()
        if value is not None and value < 1
    ]


def job_for(model_path: str, recipe: str | Path, others: Sequence[str]) -> Job:
    """The recipe with the model that is asked in place of its own."""
    # An adapter of its own is loaded from the model's path; the recipe's would start a new one.
    fixed = ["--model_name_or_path", model_path, "--use_peft", "false"]
    options = ["--config", str(recipe), "--output_dir", str(OUTPUTS), "--report_to", "none", *others, *fixed]
    return read_job(options)


def load_evaluated(
    job: Job, model_path: str, limit: int | None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, ExampleSet]:
    """The model on its device, its tokenizer, and the examples that it is asked."""
    job.args.template_date = job.args.template_date or run_date(Path(model_path))
    model, tokenizer = load_start(job, model_path)
    place_for_generation(model, job.args)
    return model, tokenizer, load_held_out(job, tokenizer, model, limit=limit)
