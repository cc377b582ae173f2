"""`gapbridge gap`: how much models are disturbed by their own words; several models in one picture.

gap/gap.json   settings, versions, every measure with 95 % intervals
gap/gap.png    the picture
gap/answers/   the drafts; a killed measurement continues from them
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..answers.answering import AnswerOptions, answer_examples
from ..answers.intervals import Interval, paired_difference
from ..answers.session import (
    count_faults,
    finished_record,
    job_for,
    load_evaluated,
    output_directory,
    recorded_settings,
    short_name,
)
from ..errors import ConfigError
from ..files import write_json_atomic
from ..runs.directory import environment
from ..runs.figures import save
from ..runs.tables import share, table
from .measure import Gap, measure_gap
from .plot import draw_gaps


def run_gap(args: argparse.Namespace, others: list[str]) -> Path:
    """`gapbridge gap`. Returns the file with the measures.

    Args:
        args: its options, see `gapbridge gap --help`.
        others: recipe keys, as on the command line.

    Raises:
        ConfigError, DataError, StoreError: see the messages; nothing is overwritten.
    """
    _check(args)
    directory = output_directory(args) / "gap"
    settings = recorded_settings(args, others, args.model)
    path = directory / "gap.json"
    if path.exists():
        show(finished_record(path, settings, "measurement"))
        print(f"{path}: this measurement is complete; remove the file to do it again")
        return path
    gaps = {model: _measure(model, args, others, directory) for model in args.model}
    record: dict[str, Any] = {
        "settings": settings,
        "environment": environment(),
        "models": [{"model": name, **asdict(gap)} for name, gap in gaps.items()],
        "differences": _differences(gaps),
    }
    models = {short_name(gap["model"], args.model): gap for gap in record["models"]}
    save(draw_gaps(models, caption(record)), directory / "gap.png")
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
    lengths = {"prefix_lengths": args.prefix_lengths, "batch_size": args.batch_size}
    gap = measure_gap(model, tokenizer, list(examples), answers, job.args, **lengths)
    del model
    gc.collect()  # the next model needs the room
    return gap


def _differences(gaps: Mapping[str, Gap]) -> list[dict[str, Any]]:
    """Each model's Δ over all k less the first one's, over the examples they share."""
    (first, base), *rest = ((name, gap.recovery.by_example) for name, gap in gaps.items())
    found = []
    for name, own in rest:
        shared = [key for key in own if key in base]
        if shared:
            difference = paired_difference([base[key] for key in shared], [own[key] for key in shared])
            found.append({"first": first, "second": name, "examples": len(shared), "difference": vars(difference)})
    return found


def caption(record: dict[str, Any]) -> str:
    """What a measurement was taken on: data, number of examples, temperature of the drafts."""
    settings, examples = record["settings"], sorted({gap["examples"] for gap in record["models"]})
    return (
        f"{settings['config']}: {' or '.join(map(str, examples))} held-out examples\n"
        f"drafts of at most {settings['max_completion_length']} tokens at temperature {settings['temperature']:g}, "
        "95 % intervals"
    )


def summary(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of each model, by path, for a table."""
    differences = {row["second"]: row for row in record["differences"]}
    first = record["models"][0]["model"]
    less = f"… less that of {short_name(first, [gap['model'] for gap in record['models']])}, paired"
    found: dict[str, dict[str, Any]] = {}
    for gap in record["models"]:
        curve = gap["recovery"]
        rows: dict[str, Any] = {"examples": gap["examples"]}
        rows["drafts cut at the limit"] = share(gap["capped"], gap["examples"])
        rows["Δ over all k ≥ 1, nats per token"] = _signed(curve["mean"])
        difference = differences.get(gap["model"])
        rows[less] = difference and _signed(difference["difference"])
        rows |= {f"Δ({k})": _signed(at) for k, at in zip(curve["k"], curve["delta"], strict=True) if k == 32}
        rows["accuracy lost to own context, points"] = Interval(**gap["decisions"]["drop"]).points()
        if gap["excess_error"]:
            longest, excess = gap["excess_error"]["length"][-1], gap["excess_error"]["excess"][-1]
            rows[f"ExAccErr({longest}), %"] = _signed(excess, 0)
            rows["drafts with every step right"] = share(gap["wrong_steps"]["all_right"], gap["examples"])
        found[gap["model"]] = rows
    return found


def show(record: dict[str, Any]) -> None:
    """Print the measures' summary."""
    found = summary(record)
    print(f"The gap. {caption(record)}", end="\n\n")
    print("\n".join(table("", {short_name(name, list(found)): rows for name, rows in found.items()})))


def _signed(interval: Mapping[str, float], digits: int = 3) -> str:
    mean, low, high = (f"{interval[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
