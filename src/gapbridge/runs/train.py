"""A run, from its recipe to its report: one function for every method."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState
from peft import PeftModel
from rich.console import Console
from trl import get_peft_config

from ..display import say
from ..errors import ConfigError
from ..files import directory_removed_on_error, write_json_atomic, write_text_atomic
from ..reporting.runs import write_report
from ..store.fingerprint import tokenizer_fingerprint
from ..training.distributed_checks import check_processes
from ..training.loading import record_revision
from ..training.method import GapTrainerMixin
from ..training.metrics import MetricsFile
from ..training.rows import LEGEND, row_record
from .data_record import write_data_record
from .hub import name_errors, open_repository, upload
from .load_inputs import RoundStart, load_examples, load_initial_model, started_inputs
from .packages import package_errors
from .rounds import last_model, publish_last, round_arguments, round_directory, train_round, unfinished_rounds
from .run_config import RunConfig
from .run_directory import RunDirectory


SHOWN_ROWS = 3
_NOTHING_TO_PREPARE = "Train it without `gapbridge prepare`"


def train(job: RunConfig) -> Path:
    """Run all rounds of a recipe from the first unfinished stage on, and write the report.

    Raises:
        ConfigError, DataError, StoreError, RunError: what cannot work, said before anything is written.
        TrainingError: the loss is not finite. Interrupted: SIGTERM or Ctrl-C; the same command continues.
    """
    check_processes(job.args)
    if errors := [*name_errors(job.args), *package_errors(job)]:
        raise ConfigError([f"{job.recipe.path}, {error}" for error in errors])
    run = job.run_directory()
    if run.check(job.resume) == "complete":
        if PartialState().is_main_process:
            run.check_inputs(started_inputs(job))
        _print_header(f"{run.path}: this run is complete, nothing to do")
        return run.path
    # The run pushes its model and nothing else; the trainers would push what else lies in their directories.
    job.args.push_to_hub, pushes = False, job.args.push_to_hub
    with run.locked():
        run.check(job.resume)  # another one may have written to it meanwhile
        trainer = open_round(job, run, pushes=pushes)
        while trainer is not None:
            prepare_round(job, run, trainer)
            train_round(trainer, job.args, run.finish_round)
            trainer = None  # its model ends with its round
            trainer = open_round(job, run, is_first=False)
        publish_last(job.args)
        if PartialState().is_main_process:
            report = write_report(run.path)
            if pushes:
                upload(last_model(job.args), job.args)
            run.complete()
            _print_header(f"model: {run.path}   report: {report}")
        PartialState().wait_for_everyone()
    return run.path


def prepare(job: RunConfig) -> Path:
    """Build the contexts of the first unfinished round and stop; training later finds them in the store."""
    check_processes(job.args)
    if not job.method.generates_contexts:
        got, expected = f"{job.name}, which generates nothing before training", "a method that generates contexts"
        raise ConfigError(f"{job.recipe.path}, method", got, expected, _NOTHING_TO_PREPARE)
    run = job.run_directory()
    is_complete = run.check() == "complete"
    with run.locked():
        trainer = None if is_complete else open_round(job, run, generates=True)
        if trainer is None:
            _print_header(f"{run.path}: every round is trained, nothing to generate")
            return run.path
        prepare_round(job, run, trainer)
    directory = trainer.pending["train"].store.directory
    _print_header(f"{directory}: {len(trainer.examples)} contexts, complete")
    return directory


def open_round(
    job: RunConfig, run: RunDirectory, *, is_first: bool = True, pushes: bool = False, generates: bool = False
) -> GapTrainerMixin | None:
    """Construct the trainer of the first unfinished round, which refuses whatever can be refused.

    Args:
        is_first: whether it is the first one of this start: then the inputs are checked, and the run is entered.
        pushes: whether the model goes to a hub, whose repository is opened first.
        generates: whether a round that generates nothing is refused.

    Returns:
        The trainer, not prepared yet; None where all rounds are trained.
    """
    index, start = next(unfinished_rounds(job.args), (None, None))
    checks = is_first and PartialState().is_main_process
    inputs: dict[str, str] = {}
    before = last_model(job.args).parent if index is None else start and start.parent
    if before and checks:
        inputs = run.round_inputs(before)
        run.check_inputs(inputs)
    if index is None:
        return None
    job.args.chat_template_date = job.args.chat_template_date or run.date()
    model, tokenizer = load_initial_model(job, start, whole=job.method.generates_contexts)
    found = job.find_data()
    loaded = RoundStart(model, tokenizer, load_examples(job, tokenizer, model, found=found, keep=True))
    if not is_first:
        return construct(job, index, loaded)
    if checks:
        inputs |= {f"{name} examples": part.fingerprint() for name, part in loaded.examples.items()}
        inputs |= {"tokenizer": tokenizer_fingerprint(tokenizer)} if start is None else {}
        inputs |= started_inputs(job, found)
        run.check_inputs(inputs)
    directory = round_directory(job.args.output_dir, index)  # the trainer's constructor makes it
    with directory_removed_on_error(directory) if checks else nullcontext():
        trainer = construct(job, index, loaded)
        if generates and not trainer.pending:
            got = f"options with which {job.name} generates nothing before training"
            raise ConfigError(job.recipe.path, got, "options that generate contexts", _NOTHING_TO_PREPARE)
        if pushes and checks:
            open_repository(job.args)
    PartialState().wait_for_everyone()  # each has looked at the directory before one writes to it
    if checks:
        run.enter(job.recipe, inputs)
        write_data_record(run.path, loaded.examples)
    PartialState().wait_for_everyone()
    return trainer


def construct(job: RunConfig, index: int, loaded: RoundStart) -> GapTrainerMixin:
    """The trainer of a round. It generates nothing before `prepare_dataset`."""
    args = round_arguments(job.args, index)
    args.model_init_kwargs = None  # used up
    # An adapter, of an SFT stage or of the round before, is trained on rather than topped with another.
    adapter = None if isinstance(loaded.model, PeftModel) else get_peft_config(job.model)
    if adapter is not None:
        record_revision(adapter, job.model.model_revision)
    return job.method(
        model=loaded.model,
        args=args,
        train_dataset=loaded.examples["train"],
        eval_dataset=loaded.examples.get("eval"),
        processing_class=loaded.tokenizer,
        peft_config=adapter,
        callbacks=[MetricsFile()],
    )


def prepare_round(job: RunConfig, run: RunDirectory, trainer: GapTrainerMixin) -> None:
    """Generate the round's contexts and make its rows; write what they were made from, and of round 1 the first."""
    trainer.prepare_dataset()
    if not trainer.is_world_process_zero():
        return
    directory = Path(trainer.args.output_dir)
    counts = json.dumps(trainer.stats.counts(), indent=2)  # in the method's order: the total comes first
    write_text_atomic(directory / "generation_stats.json", f"{counts}\n")
    if directory == round_directory(job.args.output_dir, 1):
        shown = list(trainer.row_ids.select(range(min(SHOWN_ROWS, len(trainer.row_ids)))))
        rows = [job.method.render_row(row, trainer.processing_class) for row in shown]
        Console(stderr=True, soft_wrap=True).print(rows[0])
        text = "\n".join([f"{LEGEND}\n", *(row.plain for row in rows)])
        write_text_atomic(run.path / "samples" / "first_rows.txt", text)
        sequences = [each for row in shown for each in job.method.shown_sequences(row)]
        records = [row_record(each, trainer.processing_class) for each in sequences]
        write_json_atomic(run.path / "samples" / "first_rows.json", {"rows": records})


def _print_header(text: str) -> None:
    if PartialState().is_main_process:
        say(text)
