"""Training and evaluating the variants: each is an ordinary run, and what is finished is not done again.

DIR/seed_1/<variant>/               the run, with eval/ and gap/ as the commands leave them
DIR/seed_1/_recipes/<variant>.yaml  its recipe; `gapbridge METHOD` runs it again as it is
DIR/seed_1/_plans/<variant>.json    how many steps, and why
DIR/seed_1/_results/<variant>.json  its figures: this variant and seed are finished

With `--delete_models` a finished variant keeps everything but its model and checkpoints.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import methods
from ..errors import RunError
from ..files import write_json_atomic, write_text_atomic
from ..gap.forced_errors import SELF
from ..runs.load_inputs import load_initial_model
from ..signals import EXIT_INTERRUPTED, Interrupted, stop_at_once
from ..store.file_hashes import hash_model, model_files
from ..store.records import read_record
from ..tasks.task import EvalTask
from ..training.metrics import read_metrics
from ..training.run_files import stages
from .budget import StepCost, budget_steps
from .cost_profile import profile_rows
from .experiment_config import START, Variant
from .experiment_plan import LENGTH_KEYS, ExperimentPlan, dropped_keys, read_run_config, recipe_text, variant_recipe
from .inputs import MODEL_CONFIGS
from .run_records import Record, read_cost, read_figures, read_scores


_SAME = "same_completions"
Run = Callable[[list[str]], Any]  # a command line in this process, as `gapbridge.cli.run`


def run_seeds(
    comparison: ExperimentPlan, task: EvalTask, run: Run, workers: int, *, delete_models: bool = False
) -> None:
    """All variants with all seeds that are not finished, `workers` seeds at once in processes of their own.

    Raises:
        GapbridgeError: what a command refuses; a worker was killed. Interrupted: a signal came; what is whole is kept.
    """
    seeds = comparison.experiment.seeds
    if workers == 1 or len(seeds) == 1:
        for seed in seeds:
            run_seed(comparison, task, run, seed, delete_models=delete_models)
        return
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_enter_worker, initargs=(threads,)) as pool:
        left, running = list(seeds), set[Future[int]]()
        try:
            while left or running:
                # No seed waits in the pool: a worker that is told to stop would go on with it.
                while left and len(running) < workers:
                    running.add(pool.submit(_run_seed, comparison, task, run, left.pop(0), delete_models))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    if number := future.result():
                        raise Interrupted(number)
        except BrokenProcessPool as error:
            advice = "Repeat the command with more memory or fewer --num_parallel_seeds"
            place = f"{comparison.directory}, worker"
            raise RunError(place, "the end of a process", "a normal exit", advice) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # a run saves a checkpoint and stops
            raise


def _enter_worker(threads: int) -> None:
    torch.set_num_threads(threads)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(EXIT_INTERRUPTED)  # else it would go on beside the comparison that is started again

    threading.Thread(target=follow, daemon=True).start()


def _run_seed(comparison: ExperimentPlan, task: EvalTask, run: Run, seed: int, delete_models: bool) -> int:
    """In a worker. Returns the number of the signal that stopped it, or 0."""
    try:
        with stop_at_once():
            run_seed(comparison, task, run, seed, delete_models=delete_models)
    except Interrupted as stop:
        return signal.Signals[str(stop)].value
    return 0


def run_seed(comparison: ExperimentPlan, task: EvalTask, run: Run, seed: int, *, delete_models: bool = False) -> None:
    for order, variant in enumerate(comparison.experiment.variants.values()):
        result = comparison.result_file(seed, variant.name)
        if not result.exists():
            record = {"order": order, **_run_variant(comparison, task, run, seed, variant)}
            write_text_atomic(result, json.dumps(record, ensure_ascii=False) + "\n")  # scores keep their order
        if delete_models:
            _delete_models(comparison, seed)


def _delete_models(comparison: ExperimentPlan, seed: int) -> None:
    """Delete the models and checkpoints of a seed's finished variants; that of the start stage, from which unfinished
    ones start or take forced errors and completions, once all are finished."""
    variants = comparison.experiment.variants.values()
    unfinished = [variant for variant in variants if not comparison.result_file(seed, variant.name).exists()]
    for variant in variants:
        own = comparison.place(seed) / variant.name
        if variant in unfinished or (unfinished and variant.name == START) or not own.is_dir():
            continue
        # First what makes a directory a model's: a part of one would be taken for another model.
        for path in sorted(model_files(own), key=lambda path: path.name not in MODEL_CONFIGS):
            path.unlink()
        for stage in stages(own):
            for folder in (stage / "model", *stage.glob("checkpoint-*")):
                shutil.rmtree(folder, ignore_errors=True)


def _run_variant(comparison: ExperimentPlan, task: EvalTask, run: Run, seed: int, variant: Variant) -> Record:
    """Train a variant and evaluate it; each step is a command that a user could have given."""
    place = comparison.place(seed)
    plan = _plan(comparison, seed, variant)
    recipe = place / "_recipes" / f"{variant.name}.yaml"
    write_text_atomic(recipe, recipe_text(variant_recipe(comparison, variant, seed, plan["max_steps"])))
    print(f"seed {seed}, {variant.name}: {variant.method}, {plan['steps'] or 'its own'} steps", flush=True)
    run([variant.method, "--config", str(recipe)])
    own, evaluation = place / variant.name, comparison.experiment.evaluation
    asked = ["--config", str(recipe), "--model", str(own)]
    if evaluation.max_examples is not None:
        asked += ["--max_examples", str(evaluation.max_examples)]
    length = ["--max_completion_length", str(evaluation.max_completion_length or task.max_completion_length)]
    scores: dict[str, dict[str, Any]] = {}
    for number, temperature in enumerate(evaluation.temperatures):
        asked_modes = variant.decoding_modes if number == 0 else variant.decoding_modes[:1]
        modes = [word for mode in asked_modes for word in ("--decoding_mode", mode)]
        output = own / f"temperature_{temperature:g}"
        how = ["--temperature", f"{temperature:g}", "--output_dir", str(output)]
        figures = run(["eval", "--task", task.name, *asked, *length, *modes, *how])
        for mode, found in read_scores(Path(figures).with_suffix(".samples.jsonl"), task, temperature).items():
            scores.setdefault(mode, {}).update(found)
    gap = _gap(comparison, run, seed, [*asked, *length], own) if evaluation.gap else {}
    load = StepCost(**plan["load"])
    return {
        "seed": seed,
        "variant": variant.name,
        "method": variant.method,
        "model": hash_model(own),
        "scores": scores,
        "figures": gap,
        "cost": read_cost(own, load),
        "plan": plan,
        "ignored_keys": dropped_keys(comparison, variant),
    }


def _gap(comparison: ExperimentPlan, run: Run, seed: int, asked: list[str], own: Path) -> Record:
    """The gap. Errors are forced twice: the same for all variants of a seed, those of the model that the
    control starts from, and (`own_forced_errors`) the variant's own, since a method may change which forced errors are
    made as well as what follows them."""
    evaluation, start = comparison.experiment.evaluation, comparison.start_of(comparison.experiment.control, seed)
    places = [f"{place:g}" for place in evaluation.error_positions]
    forced_errors = ["--error_positions", *places]
    source = ["--error_source", start] if places else []
    if evaluation.prefix_lengths is not None:
        asked = [*asked, "--prefix_lengths", *map(str, evaluation.prefix_lengths)]
    path = run(["gap", *asked, *forced_errors, *source, "--output_dir", str(own)])
    figures = read_figures(read_record(Path(path))["models"][0])
    if places:
        second = own / "own_forced_errors"
        _take_answers(own / "gap" / "completions", second / "gap" / "completions")
        again = ["--error_source", SELF, "--prefix_lengths", "1", "--output_dir", str(second)]
        path = run(["gap", *asked, *forced_errors, *again])
        figures |= read_figures({"own_forced_errors": read_record(Path(path))["models"][0]["forced_errors"]})
    if evaluation.same_completions:
        folders = [comparison.place(seed) / name / _SAME for name in comparison.experiment.variants]
        stores = [folder / "gap" / "completions" for folder in (Path(start), *folders)]
        if made := next((store for store in stores if store.exists()), None):
            _take_answers(made, own / _SAME / "gap" / "completions")
        same = ["--error_positions", "--completions_from", start, "--output_dir", str(own / _SAME)]
        measured = read_record(Path(run(["gap", *asked, *same])))["models"][0]
        figures |= read_figures({_SAME: {key: measured[key] for key in ("recovery", "losses")}})
    return figures


def _take_answers(source: Path, target: Path) -> None:
    """Copy finished answers, in stores that their contents name, so that the same are not generated again."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        temporary.rename(target)


def is_matched(comparison: ExperimentPlan, variant: Variant) -> bool:
    """Whether the variant's length follows from the control's."""
    own = variant.name in (START, methods.CONTROL) or any(key in variant.overrides for key in LENGTH_KEYS)
    return comparison.experiment.budget != "none" and not own


def _plan(comparison: ExperimentPlan, seed: int, variant: Variant) -> Record:
    """The variant's load and its steps, measured the first time and kept."""
    path = comparison.place(seed) / "_plans" / f"{variant.name}.json"
    if path.exists():
        return read_record(path)
    job = read_run_config(variant_recipe(comparison, variant, seed), f"variant {variant.name}")
    model, tokenizer = load_initial_model(job)
    load = profile_rows(job, model, tokenizer).load
    plan: Record = {"load": asdict(load), "budget": "own length", "steps": None, "max_steps": None}
    if is_matched(comparison, variant):
        control = comparison.place(seed) / methods.CONTROL
        control_load = StepCost(**read_record(control.parent / "_plans" / f"{control.name}.json")["load"])
        made = sum(max(entry["step"] for entry in read_metrics(stage)) for stage in stages(control))
        steps = budget_steps(comparison.experiment.budget, control_load, made, load)
        plan |= {"budget": comparison.experiment.budget, "steps": steps, "max_steps": steps // load.rounds}
    write_json_atomic(path, plan)
    return plan
