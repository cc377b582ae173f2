"""`gapbridge gap`: how much models are disturbed by their own words; several models in one picture.

gap/gap.json   settings, versions, every measure with 95 % intervals
gap/gap.png    the picture
gap/answers/   the drafts, and the answers behind forced slips; a killed measurement continues from them
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..answers.answering import answer_examples, answer_options
from ..answers.identity import asked_identity, finished_record, recorded_settings, shown_recipe
from ..answers.intervals import paired_difference
from ..answers.server import connect, server_faults
from ..answers.session import (
    count_faults,
    job_for,
    load_evaluated,
    output_directory,
)
from ..contexts.hashes import FileHashes
from ..decoding.vllm_drafts import ServerEngine
from ..display import say
from ..errors import ConfigError
from ..examples.example import ExampleSet
from ..files import write_json_atomic
from ..reporting.gap_plot import draw_gaps
from ..reporting.gaps import SLIP_ROWS, caption, gap_tables
from ..reporting.plots import save
from ..reporting.tables import print_table, short_name
from ..runs.directory import environment
from ..runs.job import Job
from ..training.vocabulary import check_vocabulary
from .measure import Gap, measure_gap
from .slip_scores import score_slips
from .slips import EACH, Slips, answers_behind, draw_slips


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
    further = [args.slips_from] if args.slips and args.slips_from not in (None, EACH, *args.model) else []
    path = directory / "gap.json"
    hashes = FileHashes.of_record(path)
    jobs = {model: job_for(model, args.config, others) for model in [*args.model, *further]}
    asked = {model: asked_identity(job, model, args.limit) for model, job in jobs.items()}
    settings = {**recorded_settings(args, others, [*jobs], hashes), "asked": asked}
    recipe = {model: shown_recipe(job) for model, job in jobs.items()}
    if path.exists():
        show(finished_record(path, settings, recipe))
        print(f"{path}: this measurement is complete; remove the file to do it again")
        return path
    gaps = _measure_all(args, jobs, connect(args, args.model), directory)
    record: dict[str, Any] = {
        "settings": settings,
        "recipe": recipe,
        "environment": environment(),
        "models": [{"model": name, **asdict(gap)} for name, gap in gaps.items()],
        "differences": _differences({name: gap.recovery.by_example for name, gap in gaps.items()}),
        "slip_differences": _slip_differences(gaps),
    }
    models = {short_name(gap["model"], args.model): gap for gap in record["models"]}
    save(draw_gaps(models, caption(record)), directory / "gap.png")
    write_json_atomic(path, {**record, "files": hashes.record()})
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
    faults += server_faults(args, args.model)
    if any(k < 1 for k in args.prefix_lengths):
        faults.append(f"--prefix_lengths is {args.prefix_lengths}: each must be at least 1 (0 is always measured)")
    if any(not 0 <= share < 1 for share in args.slips):
        faults.append(f"--slips is {args.slips}: each must lie in [0, 1), as a share of the reference")
    if len(set(args.slips)) < len(args.slips):
        faults.append("a place is given twice in --slips")
    if args.slips_from is not None and not args.slips:
        faults.append("--slips_from needs places in --slips")
    if len(set(args.model)) < len(args.model):
        faults.append("a model is given twice")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])


def _measure_all(
    args: argparse.Namespace, jobs: Mapping[str, Job], engines: Mapping[str, ServerEngine], directory: Path
) -> dict[str, Gap]:
    """The gap of each model. The one whose slips all are given is measured first."""
    source = args.slips_from or args.model[0]
    shared = None
    if args.slips and source not in (EACH, *args.model):
        shared = _draw(source, jobs[source], *load_evaluated(jobs[source], source, args.limit), args)
        gc.collect()  # the models that are measured need the room
    gaps = {}
    for model in sorted(args.model, key=lambda model: model != source):
        gaps[model], slips = _measure(model, args, jobs[model], directory, shared, engines.get(model))
        shared = None if source == EACH else slips
        gc.collect()
    return {model: gaps[model] for model in args.model}


def _measure(
    model_path: str,
    args: argparse.Namespace,
    job: Job,
    directory: Path,
    slips: Slips | None,
    engine: ServerEngine | None,
) -> tuple[Gap, Slips | None]:
    """A model's gap, and the slips that it was given, or its own where it was given none."""
    model, tokenizer, examples = load_evaluated(job, model_path, args.limit)
    check_vocabulary(model, tokenizer, {"held out": examples})  # references are fed to it
    if slips is not None:
        slips.check(examples, model_path)
    elif args.slips:
        slips = _draw(model_path, job, model, tokenizer, examples, args)
    stored = directory / "answers"
    answers = answer_examples(model, tokenizer, examples, job.args, answer_options(args), stored, engine=engine)
    lengths = {"prefix_lengths": args.prefix_lengths, "batch_size": args.batch_size}
    gap = measure_gap(model, tokenizer, list(examples), answers, job.args, **lengths)
    if slips is not None:
        most = {"max_completion_length": args.max_completion_length, "batch_size": args.batch_size}
        drafts = answers_behind(model, tokenizer, examples, slips, job.args, stored, engine=engine, **most)
        gap = replace(gap, slips=score_slips(tokenizer, list(examples), slips, drafts))
    return gap, slips


def _draw(source: str, job: Job, model: Any, tokenizer: Any, examples: ExampleSet, args: argparse.Namespace) -> Slips:
    return draw_slips(
        model,
        tokenizer,
        examples,
        job.args,
        source=source,
        places=args.slips,
        max_completion_length=args.max_completion_length,
        seed=args.seed,
        batch_size=args.batch_size,
    )


def _differences(by_example: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each model's mean less the first one's, over the examples they share.

    Args:
        by_example: model → example → value.
    """
    (first, base), *rest = by_example.items()
    found = []
    for name, own in rest:
        shared = [key for key in own if key in base]
        if shared:
            difference = paired_difference([base[key] for key in shared], [own[key] for key in shared])
            found.append({"first": first, "second": name, "examples": len(shared), "difference": vars(difference)})
    return found


def _slip_differences(gaps: Mapping[str, Gap]) -> list[dict[str, Any]]:
    """`_differences` of each score behind slips that every model has."""
    found = []
    for measure in SLIP_ROWS:
        scores = {name: vars(gap.slips)[measure] for name, gap in gaps.items() if gap.slips}
        known = {name: score.by_example for name, score in scores.items() if score}
        if len(known) == len(gaps):
            found += [{"measure": measure, **row} for row in _differences(known)]
    return found


def show(record: dict[str, Any]) -> None:
    """Print the tables of a measurement."""
    say(f"The gap. {caption(record)}", "")
    for table in gap_tables(record):
        print_table(table)
