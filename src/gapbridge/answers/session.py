"""What the commands share that ask finished models: where files go, the recipe, the model, and records on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..contexts.fingerprint import path_sketch
from ..decoding.mode import place_for_generation
from ..display import printable
from ..errors import ConfigError
from ..examples.example import ExampleSet
from ..recipe.secrets import redacted_command
from ..runs.directory import RUN_FILE, run_date
from ..runs.inputs import load_held_out, load_start
from ..runs.job import Job, read_job


OUTPUTS = Path("outputs")

# Options that change no figure; a record is the same with other values.
FREE_OPTIONS = frozenset(
    """
    command accelerate_config output_dir batch_size compile_decoding grading_workers
    judge_url judge_api_key_env judge_token_limit_field judge_timeout judge_concurrency
    """.split()
)


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
    """Print a table; the first `texts` columns are text, which may be folded, the others figures, which are not."""
    table = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name in head[:texts]:
        table.add_column(Text(printable(name)), overflow="fold")
    for name in head[texts:]:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        # Side by side, several means with their intervals are wider than a page.
        cells = [*map(str, row[:texts]), *(str(cell).replace(" [", "\n[") for cell in row[texts:])]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console().print(table)


def count_faults(args: argparse.Namespace, *names: str) -> list[str]:
    """Those of the options, where they are given, that are below 1."""
    values = {name: vars(args)[name] for name in names}
    return [
        f"--{name} is {value}: it must be at least 1"
        for name, value in values.items()
        if value is not None and value < 1
    ]


def recorded_settings(args: argparse.Namespace, others: list[str], inputs: Sequence[str | Path]) -> dict[str, Any]:
    """Everything that can change a figure, as JSON values; `inputs` are the files and models that enter."""
    settings = {key: value for key, value in vars(args).items() if key not in FREE_OPTIONS}
    settings["recipe_options"] = redacted_command(others)
    # The same names can come to hold other answers and other weights.
    settings["contents"] = {str(path): path_sketch(path) for path in inputs}
    decoded: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return decoded


def finished_record(path: Path, settings: dict[str, Any], what: str) -> dict[str, Any]:
    """What a finished evaluation or measurement left.

    Raises:
        ConfigError: it was made with other settings, which are named, or the file is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        before = dict(record["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged ({error}); move it away, and it is made again") from error
    changed = [key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)]
    if changed:
        raise ConfigError(
            [f"{path}: holds another {what}; choose another --output_dir, or move it away"]
            + [f"{key}: there {before.get(key)!r}, now {settings.get(key)!r}" for key in changed]
        )
    return record


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
