"""A run, from its recipe to its report: one function for every method."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PeftConfig, PeftModel
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import get_peft_config

from ..data.example import ExampleSet
from ..decoding.model_state import move_to_device
from ..display import say
from ..errors import ConfigError
from ..files import write_json_atomic, write_text_atomic
from ..reporting.runs import write_report
from ..store.fingerprint import tokenizer_fingerprint
from ..training.artifact_cache import EXAMPLES, RollbackOnError, prune_stale_artifacts
from ..training.dataset_builder import PendingGeneration, open_context_stores, render_rows, row_records
from ..training.distributed_checks import check_processes
from ..training.loading import record_revision
from ..training.method import GapTrainerMixin
from ..training.metrics import MetricsFile
from ..training.rows import LEGEND
from .data_record import write_data_record
from .hub import name_errors, open_repository, upload
from .load_inputs import load_examples, load_initial_model, started_inputs
from .packages import package_errors
from .rounds import last_model, round_arguments, run_rounds, unfinished_rounds
from .run_config import RunConfig
from .run_directory import RunDirectory


SHOWN_ROWS = 3


@dataclass
class _LoadedRound:
    """The first unfinished round, looked at in every respect but TRL's before anything is written."""

    index: int
    start: Path | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: dict[str, ExampleSet]
    generations: dict[str, PendingGeneration]
    inputs: dict[str, str]


def train(job: RunConfig) -> Path:
    """Run all rounds of a recipe from the first unfinished stage on, and write the report.

    Raises:
        ConfigError, DataError, StoreError, RunError: what cannot work, said before anything is written.
        TrainingError: the loss is not finite. Interrupted: SIGTERM or Ctrl-C; the same command continues.
    """
    check_processes(job.args)
    if errors := [*name_errors(job.args), *package_errors(job)]:
        raise ConfigError([f"{job.recipe.path}: {error}" for error in errors])
    run = job.run_directory()
    if run.check(job.resume) == "complete":
        if PartialState().is_main_process:
            run.check_inputs(started_inputs(job, run.hashes))
        _print_header(f"{run.path}: this run is complete, nothing to do")
        return run.path
    # The run pushes its model and nothing else; the trainers would push what else lies in their directories.
    job.args.push_to_hub, push = False, job.args.push_to_hub
    with run.locked():
        run.check(job.resume)  # another one may have written to it meanwhile
        with _prepared(run) as prepared:
            found = _load_round(job, run)
            if found and push and PartialState().is_main_process:
                open_repository(job.args)
            opened = [found] if found else []  # emptied when a trainer takes it: a model ends with its round
            del found

            def make_trainer(start: Path | None, round_args: Any) -> GapTrainerMixin:
                return _trainer(job, run, round_args, opened.pop() if opened else None, start, prepared)

            run_rounds(job.args, make_trainer, run.finish_round)
        if PartialState().is_main_process:
            report = write_report(run.path)
            if push:
                upload(last_model(job.args), job.args)
            run.complete()
            _print_header(f"model: {run.path}   report: {report}")
        PartialState().wait_for_everyone()
    return run.path


def prepare(job: RunConfig) -> Path:
    """Build the contexts of the first unfinished round and stop; training later finds them in the store."""
    check_processes(job.args)
    if not job.method.generates_contexts:
        raise ConfigError(f"{job.recipe.path}: method {job.name} generates nothing before training")
    run = job.run_directory()
    state = run.check()
    with run.locked(), _prepared(run) as prepared:
        opened = None if state == "complete" else _load_round(job, run)
        if opened is None:
            _print_header(f"{run.path}: every round is trained, nothing to generate")
            return run.path
        if not opened.generations:
            raise ConfigError(f"{job.recipe.path}: with these options {job.name} generates nothing before training")
        _trainer(job, run, round_arguments(job.args, opened.index), opened, opened.start, prepared)
    directory = opened.generations["train"].store.directory
    _print_header(f"{directory}: {len(opened.examples['train'])} contexts, complete")
    return directory


def _prepared(run: RunDirectory) -> RollbackOnError:
    """Around all that comes before the run is entered: its examples go where it is refused."""
    return RollbackOnError(run.path / EXAMPLES, active=PartialState().is_main_process)


def _load_round(job: RunConfig, run: RunDirectory) -> _LoadedRound | None:
    """Load the first unfinished round and compare everything with what the run has."""
    index, start = next(unfinished_rounds(job.args), (None, None))
    before = last_model(job.args).parent if index is None else start and start.parent
    inputs: dict[str, str] = {}
    if before and PartialState().is_main_process:
        inputs = run.round_inputs(before)
        run.check_inputs(inputs)
    if index is None:
        return None
    job.args.chat_template_date = job.args.chat_template_date or run.date()
    model, tokenizer = load_initial_model(job, start, whole=job.method.generates_contexts)
    if job.method.generates_contexts:
        move_to_device(model, job.args)
    examples = load_examples(job, tokenizer, model, run.path / EXAMPLES)
    inputs |= {f"{name} examples": part.fingerprint() for name, part in examples.items()}
    if PartialState().is_main_process:
        if start is None:
            inputs["tokenizer"] = tokenizer_fingerprint(tokenizer)
        inputs |= started_inputs(job, run.hashes)
        run.check_inputs(inputs)
    generations = open_context_stores(job.method, model, tokenizer, examples, round_arguments(job.args, index))
    for generation in generations.values():
        if not generation.store.is_complete():
            generation.contexts.open()
    return _LoadedRound(index, start, model, tokenizer, examples, generations, inputs)


def _mark_started(job: RunConfig, run: RunDirectory, opened: _LoadedRound, prepared: RollbackOnError) -> None:
    """Enter the run's directory: nothing can be refused any more, and nothing has been generated yet."""
    PartialState().wait_for_everyone()  # each has looked at the directory before one writes to it
    prepared.commit()
    if PartialState().is_main_process:
        prune_stale_artifacts(run.path / EXAMPLES, opened.examples)
        run.enter(job.recipe, opened.inputs)
        write_data_record(run.path, opened.examples)
    PartialState().wait_for_everyone()


def _trainer(
    job: RunConfig,
    run: RunDirectory,
    round_args: Any,
    opened: _LoadedRound | None,
    start: Path | None,
    prepared: RollbackOnError,
) -> GapTrainerMixin:
    """The trainer of a round; what it counted and the first rows that it trains are written."""
    if opened is None:
        model, tokenizer = load_initial_model(job, start, whole=job.method.generates_contexts)
        examples, generations = load_examples(job, tokenizer, model, run.path / EXAMPLES), None
    else:
        model, tokenizer, examples, generations = opened.model, opened.tokenizer, opened.examples, opened.generations
    round_args.model_init_kwargs = None  # used up
    trainer = job.method(
        model=model,
        args=round_args,
        train_dataset=examples["train"],
        eval_dataset=examples.get("eval"),
        processing_class=tokenizer,
        # An adapter, of an SFT stage or of the round before, is trained on rather than topped with another.
        peft_config=None if isinstance(model, PeftModel) else _new_adapter(job),
        callbacks=[MetricsFile()],
        generations=generations,
        on_checked=None if opened is None else partial(_mark_started, job, run, opened, prepared),
    )
    if trainer.is_world_process_zero():
        counts = json.dumps(trainer.stats.counts(), indent=2)  # in the method's order: the total comes first
        write_text_atomic(Path(trainer.args.output_dir) / "generation_stats.json", f"{counts}\n")
        if start is None:
            rows = render_rows(job.method, trainer.row_ids, tokenizer, SHOWN_ROWS)
            Console(stderr=True, soft_wrap=True).print(rows[0])
            text = "\n".join([f"{LEGEND}\n", *(row.plain for row in rows)])
            write_text_atomic(run.path / "samples" / "first_rows.txt", text)
            records = row_records(job.method, trainer.row_ids, tokenizer, SHOWN_ROWS)
            write_json_atomic(run.path / "samples" / "first_rows.json", {"rows": records})
    return trainer


def _new_adapter(job: RunConfig) -> PeftConfig | None:
    config = get_peft_config(job.model)
    if config is not None:
        record_revision(config, job.model.model_revision)
    return config


def _print_header(text: str) -> None:
    if PartialState().is_main_process:
        say(text)
