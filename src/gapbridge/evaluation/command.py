"""`gapbridge eval`: answer, grade, one table, plain files.

eval/<task>.json            settings, versions, figures with 95 % intervals
eval/<task>.samples.jsonl   every answer with its grade
eval/answers/               the models' answers as they come; a killed evaluation continues from them
eval/verdicts/              a judge's replies
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from accelerate import PartialState
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..answers.answering import Answer, AnswerOptions, answer_examples
from ..answers.files import read_answers
from ..answers.intervals import Interval
from ..contexts.fill import place_for_generation
from ..contexts.fingerprint import path_sketch
from ..errors import ConfigError
from ..examples.example import ExampleSet
from ..files import write_json_atomic, write_text_atomic
from ..methods.rac.config import CORRECTION_PROMPT, RACConfig
from ..runs.directory import RUN_FILE, environment
from ..runs.pipeline import Job, load_held_out, load_start, read_job
from ..tasks.task import EvalTask, task_named, task_recipe
from ..training.parallel import check_processes
from .judge.options import FREE_OPTIONS, add_judge_options, judge_groups
from .summaries import (
    Group,
    Sample,
    cells,
    columns,
    corrections,
    differences,
    grade_math,
    grade_rouge,
    label_agreement,
    summarise,
)
from .verification import TIMEOUT_SECONDS


logger = logging.getLogger(__name__)

MODES = ("direct", "corrected", "both")
_LISTED = 10


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}")


def parser() -> argparse.ArgumentParser:
    options = Parser(
        prog="gapbridge eval",
        allow_abbrev=False,
        description="Evaluate models, or files of ready answers. Other options are recipe keys (--dtype bfloat16).",
    )
    add = options.add_argument
    add_shared_options(options)
    add("--task", required=True, help="math, gsm8k, math500, word_problems, summarization, tldr, winrate or lm_eval")
    add("--answers", action="append", default=[], type=Path, metavar="FILE.jsonl",
        help="ready answers (id, prompt, reference, answer a line) instead of a model; can be repeated")  # fmt: skip
    add("--labels", metavar="KEY", help="a field of the answer files with published marks to compare the grades with")
    add("--mode", choices=MODES, default="direct", help="grade first answers, corrected ones, or both")
    add("--max_completion_length", type=int, help="most tokens of an answer; default: the task's")
    add("--temperature", type=float, help="0 is greedy; default: the task's")
    add("--top_p", type=float, default=1.0)
    add("--top_k", type=int, default=0)
    add("--correction_prompt", help="the request for a correction; default: the recipe's, or RAC's")
    add("--grading_timeout", type=float, default=TIMEOUT_SECONDS, help="seconds for one answer in math-verify")
    add("--grading_workers", type=int, default=2, help="processes of math-verify")
    add_judge_options(options)
    return options


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """What `gapbridge eval` and `gapbridge gap` both take: models, data, and where the files go."""
    add = parser.add_argument
    add("--model", action="append", default=[], help="a path or hub id; repeat it to compare models on the same data")
    add("--config", metavar="RECIPE", help="a recipe whose held-out data and chat settings are used")
    add("--limit", type=int, help="the first so many examples only")
    add("--output_dir", type=Path, help="where the files go; default: the model's run directory, else here")
    add("--seed", type=int, default=0, help="of sampled answers")
    add("--batch_size", type=int, default=64, help="rows in one pass; changes the speed only")


def run_eval(argv: Sequence[str]) -> Path:
    """`gapbridge eval`. Returns the file with the figures.

    Raises:
        ConfigError, DataError, StoreError: see the messages; nothing is overwritten.
    """
    args, others = parser().parse_known_args(list(argv))
    if args.task == "lm_eval":
        from .lm_eval.command import run_lm_eval_task

        return run_lm_eval_task(args, others)
    task = task_named(args.task)
    _check(args, task, others)
    args.temperature = task.temperature if args.temperature is None else args.temperature
    args.max_completion_length = args.max_completion_length or task.max_completion_length
    directory = output_directory(args) / "eval"
    settings = recorded_settings(args, others, [*args.answers, *args.model])
    path = directory / f"{args.task}.json"
    if path.exists():
        record = finished_record(path, settings, "evaluation")
        if PartialState().is_main_process:
            show(record, task.grader)
            print(f"{path}: this evaluation is complete; remove the file to do it again")
        return path
    if args.answers:
        groups = [_file_group(file, args) for file in args.answers]
    else:
        groups = [group for model in args.model for group in _model_groups(model, args, others, task, directory)]
    if not PartialState().is_main_process:
        return path
    if task.grader == "math":
        grade_math(groups, timeout=args.grading_timeout, workers=args.grading_workers)
    elif task.grader == "rouge":
        grade_rouge(groups)
    record = {
        "task": args.task,
        "settings": settings,
        "environment": environment(),
        "results": [summarise(group, task.grader) for group in groups],
        "corrections": corrections(groups) if task.grader == "math" else [],
        "differences": differences(groups, task.grader),
    }
    if args.labels:
        record["labels"] = label_agreement(groups, args.labels)
    if args.judge:
        record["win_rates"] = judge_groups(groups, args, directory / "verdicts")
    _write_samples(directory / f"{args.task}.samples.jsonl", groups)
    write_json_atomic(path, record)
    show(record, task.grader)
    print(f"figures: {path}   answers: {directory / f'{args.task}.samples.jsonl'}")
    return path


def output_directory(args: argparse.Namespace) -> Path:
    """Where `eval/` goes: as asked, or beside the one run that is evaluated, or here."""
    if args.output_dir is not None:
        return Path(args.output_dir)
    if len(args.model) == 1 and (Path(args.model[0]) / RUN_FILE).is_file():
        return Path(args.model[0])
    return Path()


def _check(args: argparse.Namespace, task: EvalTask, others: list[str]) -> None:
    faults = []
    if bool(args.model) == bool(args.answers):
        faults.append("give either --model (once or several times) or --answers")
    faults += count_faults(args, "limit", "max_completion_length", "batch_size", "grading_workers")
    if not args.grading_timeout > 0:
        faults.append(f"--grading_timeout is {args.grading_timeout}: it must be larger than 0")
    if args.labels and (not args.answers or task.grader != "math"):
        faults.append("--labels needs --answers and a task of mathematics: it names a field of the answer files")
    if args.answers and args.mode != "direct":
        faults.append("--mode corrected needs --model: ready answers are graded as they are")
    if args.answers and (args.config or others):
        faults.append(
            f"--answers needs no recipe: leave out {' '.join(['--config'] * bool(args.config) + others[:1])}"
        )
    if args.mode != "direct" and task.grader != "math":
        faults.append(f"--mode {args.mode}: corrected answers are graded in tasks of mathematics")
    if task.grader == "none" and not args.judge:
        faults.append(f"--task {task.name} needs --judge")
    names = [str(path) for path in [*args.model, *args.answers]]
    if len(set(names)) < len(names):
        faults.append("a model or file is given twice")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])


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
    left_out = {"output_dir", "batch_size", "grading_workers", *FREE_OPTIONS}
    settings = {key: value for key, value in vars(args).items() if key not in left_out}
    settings["recipe_options"] = others
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


def _file_group(path: Path, args: argparse.Namespace) -> Group:
    return Group(str(path), "direct", read_answers(path, label=args.labels, limit=args.limit))


def _model_groups(
    model_path: str, args: argparse.Namespace, others: list[str], task: EvalTask, directory: Path
) -> list[Group]:
    job = job_for(model_path, args.config or task_recipe(task, directory), others)
    check_processes(job.args)
    model, tokenizer, examples = load_evaluated(job, model_path, args.limit)
    request = args.correction_prompt
    if request is None:
        request = job.args.correction_prompt if isinstance(job.args, RACConfig) else CORRECTION_PROMPT
    options = AnswerOptions(
        max_completion_length=args.max_completion_length,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=args.seed,
        batch_size=args.batch_size,
        corrected=args.mode != "direct",
        correction_prompt=request,
    )
    answers = answer_examples(model, tokenizer, examples, job.args, options, directory / "answers")
    del model
    gc.collect()  # the next model needs the room
    groups = []
    if args.mode in ("direct", "both"):
        groups.append(Group(model_path, "direct", [_sample(a, model_path, corrected=False) for a in answers]))
    if args.mode in ("corrected", "both"):
        groups.append(Group(model_path, "corrected", [_sample(a, model_path, corrected=True) for a in answers]))
    return groups


def job_for(model_path: str, recipe: str | Path, others: Sequence[str]) -> Job:
    """The recipe with the model that is evaluated in place of its own."""
    # An adapter of its own is loaded from the model's path; the recipe's would start a new one.
    fixed = ["--model_name_or_path", model_path, "--use_peft", "false"]
    options = ["--config", str(recipe), "--output_dir", "outputs", "--report_to", "none", *others, *fixed]
    return read_job(options)


def load_evaluated(
    job: Job, model_path: str, limit: int | None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, ExampleSet]:
    """The model on its device, its tokenizer, and the examples that it is asked."""
    model, tokenizer = load_start(job, model_path)
    place_for_generation(model, job.args)
    return model, tokenizer, load_held_out(job, tokenizer, model, limit=limit)


def _sample(answer: Answer, model: str, *, corrected: bool) -> Sample:
    draft = answer.corrected_draft if corrected else answer.first_draft
    assert draft is not None
    sample: Sample = {
        "model": model,
        "mode": "corrected" if corrected else "direct",
        "id": answer.id,
        "prompt": answer.prompt,
        "reference": answer.reference,
        "answer": answer.corrected if corrected else answer.first,
        "tokens": len(draft.tokens),
        "capped": not draft.finished,
    }
    return {**sample, "first_answer": answer.first} if corrected else sample


def _write_samples(path: Path, groups: Sequence[Group]) -> None:
    rows = [{"model": group.model, "mode": group.mode, **sample} for group in groups for sample in group.samples]
    write_text_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def show(record: dict[str, Any], grader: str) -> None:
    """Print an evaluation's tables."""
    console = Console() if Console().is_terminal else Console(width=180)
    count = record["results"][0]["count"]
    table = Table(title=f"{record['task']}: {count} examples, 95 % intervals", title_justify="left")
    head = ("model", "mode", *columns(grader), *(("capped",) if "capped" in record["results"][0] else ()))
    for name in head:
        table.add_column(name, justify="left" if name in ("model", "mode") else "right", overflow="fold")
    for result in record["results"]:
        capped = [str(result["capped"])] if "capped" in result else []
        table.add_row(result["model"], result["mode"], *cells(result, grader), *capped)
    console.print(table)
    for row in record["corrections"]:
        console.print(
            f"{row['model']}: wrong→right {row['wrong_to_right']}, right→wrong {row['right_to_wrong']}, right→right "
            f"{row['right_to_right']}, wrong→wrong {row['wrong_to_wrong']}; corrected less first "
            f"{Interval(**row['difference']).points()} points",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for row in record["differences"]:
        console.print(
            f"{row['second']} less {row['first']}, {row['mode']}, {row['metric']}: "
            f"{Interval(**row['difference']).points()} points over {row['examples']} shared examples",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for row in record.get("labels", ()):
        _show_labels(console, row)
    for row in record.get("win_rates", ()):
        console.print(row["text"], highlight=False, soft_wrap=True)


def _show_labels(console: Console, row: dict[str, Any]) -> None:
    differing = row["disagreements"]
    console.print(
        f"{row['model']}: grades agree with {row['label']} on {100 * row['agreement']:.2f} % of {row['count']} "
        f"answers, {len(differing)} differ",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for sample in differing[:_LISTED]:
        end = " ".join(sample["answer"][-60:].split())
        wanted = " ".join(sample["reference"][-20:].split())
        console.print(
            f"  {sample['id']}: marked {sample['label']}, graded {sample['correct']}: …{end}   reference …{wanted}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if len(differing) > _LISTED:
        console.print(f"  and {len(differing) - _LISTED} more, all in the file of figures")
