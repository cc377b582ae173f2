"""`gapbridge eval`: answer, grade, one table, plain files.

eval/<task>.json            settings, versions, figures with 95 % intervals
eval/<task>.samples.jsonl   every answer with its grade
eval/completions/           the completions as they come; a killed evaluation continues from them
eval/verdicts/              a judge's replies
"""

from __future__ import annotations

import argparse
import gc
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..decoding.vllm_generation import ServerEngine
from ..display import printable
from ..errors import ConfigError, describe, require
from ..files import sha256, write_json_atomic, write_text_atomic
from ..generation.common import job_for, load_evaluated, output_directory
from ..generation.completion_files import read_answers
from ..generation.decoding_modes import SINGLE_PASS, mode_settings, read_modes
from ..generation.held_out_completions import ExampleCompletions, complete_examples, completion_options
from ..generation.recorded_settings import asked_identity, finished_record, recorded_settings, shown_recipe
from ..generation.server import connect, server_errors
from ..reporting.evaluations import evaluation_tables
from ..reporting.samples import EvalRecord
from ..reporting.tables import console, print_table
from ..runs.run_config import RunConfig
from ..runs.run_directory import environment
from ..tasks.task import EvalTask, task_named, task_recipe
from ..training.distributed_checks import check_processes
from .aggregate import Group, corrections, differences, grade_edits, grade_math, grade_rouge, summarize_group
from .judge.command import judge_groups, make_judge
from .judge.prompt_templates import load_template
from .lm_eval.command import run_lm_eval


MANY_CUT = 0.1  # a fraction: with more completions cut at the limit the limit is named


def run_eval(args: argparse.Namespace, others: list[str]) -> Path:
    """`gapbridge eval`. Returns the file with the figures.

    Args:
        others: recipe options, and those of the answer modes.
    """
    if args.task == "lm_eval":
        return run_lm_eval(args, others)
    task = task_named(args.task)
    requested, rest = read_modes(args, others)
    args.decoding_mode = list(requested)
    args.temperature = task.temperature if args.temperature is None else args.temperature
    _check(args, task, rest)
    judge = make_judge(args) if args.judge else None  # refused before anything is generated
    template = load_template(args.judge_prompt or task.judge_prompt)
    args.max_completion_length = args.max_completion_length or task.max_completion_length
    directory = output_directory(args) / "eval"
    path = directory / f"{args.task}.json"
    jobs = {model: job_for(model, args.config or task_recipe(task, directory), rest) for model in args.model}
    settings = _settings(args, others, jobs, requested)
    recipe = {model: shown_recipe(job) for model, job in jobs.items()}
    if path.exists():
        record = finished_record(path, settings, recipe)
        _check_samples(path, record)
        if PartialState().is_main_process:
            print_results(record)
            print(f"{path}: this evaluation is complete; remove the file to do it again")
        return path
    if args.completions_file:
        groups = [
            Group(str(file), SINGLE_PASS, read_answers(file, args.max_examples)) for file in args.completions_file
        ]
    else:
        engines = connect(args, args.model)
        groups = [
            group
            for model, job in jobs.items()
            for group in _model_groups(model, job, args, requested, directory, engines.get(model))
        ]
    if not PartialState().is_main_process:
        return path
    if task.grader == "math":
        grade_math(groups, timeout=args.grading_timeout, workers=args.grading_workers)
    elif task.grader == "rouge":
        grade_rouge(groups)
    grade_edits(groups)
    record = {
        "task": args.task,
        "settings": settings,
        "recipe": recipe,
        "environment": environment(),
        "results": [summarize_group(group, task.grader) for group in groups],
        "corrections": corrections(groups) if task.grader == "math" else [],
        "differences": differences(groups, task.grader),
    }
    if judge is not None:
        record["win_rates"] = judge_groups(groups, judge, template, directory / "verdicts")
    names = [{"model": group.model, "decoding_mode": group.mode} for group in groups]
    rows = [{**name, **sample} for name, group in zip(names, groups, strict=True) for sample in group.samples]
    samples_path = _samples_path(path)
    write_text_atomic(samples_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json_atomic(path, {**record, "samples": sha256(samples_path)})
    print_results(record)
    print(f"figures: {path}   answers: {samples_path}")
    return path


def _check(args: argparse.Namespace, task: EvalTask, others: list[str]) -> None:
    got = "both it and --completions_file" if args.model else "neither it nor --completions_file"
    advice = "Give --model (once or several times) or --completions_file"
    errors = require(bool(args.model) != bool(args.completions_file), "--model", got, "one of them", advice)
    seconds, expected = args.grading_timeout, "a number of seconds above 0"
    errors += require(seconds > 0, "--grading_timeout", seconds, expected, "Correct the value")
    if args.completions_file and set(args.decoding_mode) - {SINGLE_PASS}:
        got, expected = f"{args.decoding_mode[-1]} with --completions_file", "--model, since a file is only graded"
        errors.append(describe("--decoding_mode", got, expected, "Remove one of the options"))
    if args.completions_file and (args.config or others):
        advice = f"Remove {' '.join(['--config'] * bool(args.config) + others[:1])}"
        errors.append(describe("--completions_file", "a recipe or its keys beside the file", "the file alone", advice))
    errors += server_errors(args, args.model, args.decoding_mode)
    can_grade = task.grader != "none" or args.judge
    errors += require(can_grade, "--judge", f"none for --task {task.name}", "a judge", "Give one with --judge")
    if bool(args.judge) != bool(args.judge_url):
        got, advice = "one of the two", "Give the name of the judge and the address of its server (`vllm serve JUDGE`)"
        errors.append(describe("--judge, --judge_url", got, "both", advice))
    names = [str(path) for path in [*args.model, *args.completions_file]]
    repeated = ", ".join(name for name, count in Counter(names).items() if count > 1)
    place = "--model, --completions_file"
    errors += require(not repeated, place, f"{repeated} twice", "each once", "Remove one of them")
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])


def _settings(
    args: argparse.Namespace,
    others: list[str],
    jobs: Mapping[str, RunConfig],
    requested: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """All that enters the figures."""
    prompt = [args.judge_prompt] if args.judge_prompt and Path(args.judge_prompt).is_file() else []
    asked = {
        model: asked_identity(job, model, args.max_examples, mode_settings(requested, job.args))
        for model, job in jobs.items()
    }
    # Behind what is asked: by then a hub's model has a copy here.
    return {**recorded_settings(args, others, [*args.completions_file, *args.model, *prompt]), "asked": asked}


def _samples_path(path: Path) -> Path:
    return path.with_suffix(".samples.jsonl")


def _check_samples(path: Path, record: Mapping[str, Any]) -> None:
    """Raise a ConfigError where the answers beside a record are not those that its figures were made from."""
    samples = _samples_path(path)
    if not samples.is_file() or sha256(samples) != record.get("samples"):
        got = "other answers" if samples.is_file() else "no file"
        expected = f"the answers that {path.name} was made from"
        raise ConfigError(f"{samples}, content", got, expected, "Restore the file, or move both away to measure again")


def _model_groups(
    model_path: str,
    job: RunConfig,
    args: argparse.Namespace,
    requested: Mapping[str, Mapping[str, str]],
    directory: Path,
    engine: ServerEngine | None,
) -> list[Group]:
    check_processes(job.args)
    model, tokenizer, examples = load_evaluated(job, model_path, args.max_examples)
    options = completion_options(args, mode_settings(requested, job.args))
    answers = complete_examples(
        model, tokenizer, examples, job.args, options, directory / "completions", engine=engine
    )
    del model
    gc.collect()  # the next model needs the room
    return [Group(model_path, mode, [_sample(answer, mode) for answer in answers]) for mode in requested]


def _sample(answer: ExampleCompletions, mode: str) -> EvalRecord:
    sample: EvalRecord = {"id": answer.id, "prompt": answer.prompt, "reference": answer.reference}
    completion = answer.completions[mode]
    sample |= {"answer": answer.texts[mode], "tokens": len(completion.tokens), "truncated": not completion.finished}
    return sample if mode == SINGLE_PASS else {**sample, "first_answer": answer.first}


def print_results(record: dict[str, Any]) -> None:
    """Print an evaluation's tables, and what stands below them."""
    for table in evaluation_tables(record):
        print_table(table)
    lines = [
        f"{result['model']} ({result['decoding_mode']}): {result['truncated']} of {result['count']} completions reach "
        "--max_completion_length: raise it"
        for result in record["results"]
        if result.get("truncated", 0) > result["count"] * MANY_CUT
    ]
    for line in lines:
        console().print(printable(line), highlight=False, markup=False, soft_wrap=True)
