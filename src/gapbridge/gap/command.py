"""`gapbridge gap`: how much models are disturbed by their own words; several models in one picture.

gap/gap.json   settings, versions, every measure with 95 % intervals
gap/gap.png    the picture
gap/answers/   the drafts; a killed measurement continues from them
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..answers.answering import AnswerOptions, answer_examples
from ..answers.intervals import Interval, paired_difference
from ..errors import ConfigError
from ..evaluation.command import (
    Parser,
    add_shared_options,
    count_faults,
    finished_record,
    job_for,
    load_evaluated,
    output_directory,
    recorded_settings,
)
from ..files import write_json_atomic
from ..runs.directory import environment
from .measure import Gap, measure_gap
from .plot import plot_gaps


PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)


def parser() -> argparse.ArgumentParser:
    options = Parser(
        prog="gapbridge gap",
        allow_abbrev=False,
        description="Measure the gap of one or several models. Other options are recipe keys (--dtype bfloat16).",
    )
    add_shared_options(options)
    add = options.add_argument
    add("--prefix_lengths", type=int, nargs="+", default=list(PREFIX_LENGTHS), metavar="K",
        help="own tokens before the reference goes on")  # fmt: skip
    add("--max_completion_length", type=int, default=256, help="most tokens of a draft")
    add("--temperature", type=float, default=1.0, help="of the drafts; 0 is greedy")
    return options


def run_gap(argv: Sequence[str]) -> Path:
    """`gapbridge gap`. Returns the file with the measures.

    Raises:
        ConfigError, DataError, StoreError: see the messages; nothing is overwritten.
    """
    args, others = parser().parse_known_args(list(argv))
    _check(args)
    directory = output_directory(args) / "gap"
    settings = recorded_settings(args, others, args.model)
    path = directory / "gap.json"
    if path.exists():
        show(finished_record(path, settings, "measurement"))
        print(f"{path}: this measurement is complete; remove the file to do it again")
        return path
    gaps = {model: _measure(model, args, others, directory) for model in args.model}
    record = {
        "settings": settings,
        "environment": environment(),
        "models": [{"model": name, **asdict(gap)} for name, gap in gaps.items()],
        "differences": _differences(gaps),
    }
    plot_gaps(directory / "gap.png", {short_name(name, args.model): gap for name, gap in gaps.items()})
    write_json_atomic(path, record)
    show(record)
    print(f"measures: {path}   picture: {directory / 'gap.png'}")
    return path


def _check(args: argparse.Namespace) -> None:
    faults = []
    if not args.model:
        faults.append("give a model with --model (once or several times)")
    if not args.config:
        faults.append("name the recipe whose held-out data are used with --config RECIPE")
    faults += count_faults(args, "limit", "max_completion_length", "batch_size")
    if any(k < 1 for k in args.prefix_lengths):
        faults.append(f"--prefix_lengths is {args.prefix_lengths}: each must be at least 1 (0 is always measured)")
    if len(set(args.model)) < len(args.model):
        faults.append("a model is given twice")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])


def _measure(model_path: str, args: argparse.Namespace, others: list[str], directory: Path) -> Gap:
    job = job_for(model_path, args.config, others)
    model, tokenizer, examples = load_evaluated(job, model_path, args.limit)
    options = AnswerOptions(
        max_completion_length=args.max_completion_length,
        temperature=args.temperature,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    answers = answer_examples(model, tokenizer, examples, job.args, options, directory / "answers")
    gap = measure_gap(
        model,
        tokenizer,
        list(examples),
        answers,
        job.args,
        prefix_lengths=args.prefix_lengths,
        batch_size=args.batch_size,
    )
    del model
    gc.collect()  # the next model needs the room
    return gap


def _differences(gaps: dict[str, Gap]) -> list[dict[str, Any]]:
    """Each model's mean recovery loss less the first one's, over the examples they share."""
    (first, base), *rest = gaps.items()
    found = []
    for name, gap in rest:
        shared = [key for key in gap.recovery_by_example if key in base.recovery_by_example]
        if shared:
            difference = paired_difference(
                [base.recovery_by_example[key] for key in shared], [gap.recovery_by_example[key] for key in shared]
            )
            found.append({"first": first, "second": name, "examples": len(shared), "difference": vars(difference)})
    return found


def short_name(name: str, names: Sequence[str]) -> str:
    """The last part of a path where that is enough to tell the models apart."""
    last = Path(name).name
    return last if sum(Path(other).name == last for other in names) == 1 else name


def show(record: dict[str, Any]) -> None:
    """Print the measures' summary."""
    names, first = [gap["model"] for gap in record["models"]], record["models"][0]
    table = Table(title=f"The gap over {first['examples']} examples, 95 % intervals", title_justify="left")
    ks = [k for k in first["recovery"]["k"] if k == 32]
    head = ["model", "Δ, all k ≥ 1", *(f"Δ({k})" for k in ks), "reference less own context, points"]
    if first["excess_error"]:
        head += [f"ExAccErr({first['excess_error']['length'][-1]}), %", "drafts with every step right"]
    for column in head:
        table.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for gap in record["models"]:
        curve = dict(zip(gap["recovery"]["k"], gap["recovery"]["delta"], strict=True))
        row = [short_name(gap["model"], names), nats(gap["recovery"]["mean"])]
        row += [nats(curve[k]) if k in curve else "–" for k in ks]
        row.append(Interval(**gap["decisions"]["drop"]).points())
        if gap["excess_error"]:
            last = gap["excess_error"]["excess"][-1]
            row.append(f"{last['mean']:+.0f} [{last['low']:+.0f}, {last['high']:+.0f}]")
            row.append(f"{100 * gap['wrong_steps']['all_right'] / gap['examples']:.1f} %")
        table.add_row(*row)
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
    for row in record["differences"]:
        console.print(
            f"{short_name(row['second'], names)} less {short_name(row['first'], names)}: "
            f"{nats(row['difference'])} nats per token over {row['examples']} shared examples",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def nats(interval: dict[str, float]) -> str:
    """An interval of nats per token, with signs."""
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"
