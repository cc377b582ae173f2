"""Training and evaluating the arms: each is an ordinary run, and what is finished is not done again.

DIR/seed_1/<arm>/               the run, with eval/ and gap/ as the commands leave them
DIR/seed_1/_recipes/<arm>.yaml  its recipe; `gapbridge METHOD` runs it again as it is
DIR/seed_1/_plans/<arm>.json    how many steps, and why
DIR/seed_1/_results/<arm>.json  its figures: this arm and seed are finished
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ... import methods
from ...contexts.hashes import FileHashes
from ...contexts.records import read_record
from ...errors import RunError
from ...files import write_json_atomic, write_text_atomic
from ...runs.inputs import load_start
from ...tasks.task import EvalTask
from ...training.interruption import EXIT_INTERRUPTED, Interrupted, stop_at_once
from ...training.metrics import read_metrics
from ...training.run_files import stages
from .cells import Record, read_cost, read_figures, read_scores
from .matching import Load, matched_steps
from .recipes import LENGTH_KEYS, Comparison, arm_recipe, dropped_keys, job_of, recipe_text
from .sampling import take_sample
from .suite import START, Arm


PATIENCE = 300.0  # seconds for a worker to save a checkpoint when the others are to stop, too
Run = Callable[[list[str]], Any]  # a command line in this process, as `gapbridge.cli.run`


def run_seeds(comparison: Comparison, task: EvalTask, run: Run, workers: int) -> None:
    """All arms with all seeds that are not finished, `workers` seeds at once in processes of their own.

    Raises:
        GapbridgeError: what a command refuses; a worker was killed. Interrupted: a signal came; what is whole on disk
        is kept.
    """
    seeds = comparison.suite.seeds
    if workers == 1 or len(seeds) == 1:
        for seed in seeds:
            run_seed(comparison, task, run, seed)
        return
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_enter_worker, initargs=(threads,))
    processes: set[BaseProcess] = set()
    try:
        waiting = [pool.submit(_run_seed, comparison, task, run, seed) for seed in seeds]
        processes = set(multiprocessing.active_children()) - before
        for done in as_completed(waiting):
            if number := done.result():
                raise Interrupted(number)
    except BrokenProcessPool as error:
        _await_end(processes)  # the pool has told them to stop
        raise RunError(
            f"{comparison.directory}, worker: got {_death_of(processes)}, expected an exit of its own. Give it more "
            "memory or fewer --workers; what is whole on disk is kept, and the same command continues"
        ) from error
    except BaseException:
        for future in waiting:
            future.cancel()
        processes |= set(multiprocessing.active_children()) - before  # a signal may come while they are started
        for process in processes:
            process.terminate()  # a run saves a checkpoint and stops
        _await_end(processes)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _await_end(processes: Collection[BaseProcess]) -> None:
    """Wait for workers that were told to stop; those that do not are killed."""
    deadline = time.monotonic() + PATIENCE
    running = {process.sentinel for process in processes}
    while running and time.monotonic() < deadline:
        running -= set(wait(list(running), timeout=max(0.0, deadline - time.monotonic())))
    for process in processes:
        if process.sentinel in running:
            process.kill()


def _death_of(processes: Collection[BaseProcess]) -> str:
    """How the first worker ended: those beside it were stopped with SIGTERM, which they answer with a code."""
    for process in processes:
        process.join(1)
    codes = [process.exitcode for process in processes if process.exitcode]
    stops = (EXIT_INTERRUPTED, -signal.SIGTERM)
    found = next((code for code in codes if code not in stops), next(iter(codes), 0))
    return signal.Signals(-found).name if -found in set(signal.Signals) else f"exit code {found}"


def _enter_worker(threads: int) -> None:
    torch.set_num_threads(threads)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(EXIT_INTERRUPTED)  # else it would go on beside the comparison that is started again

    threading.Thread(target=follow, daemon=True).start()


def _run_seed(comparison: Comparison, task: EvalTask, run: Run, seed: int) -> int:
    """In a worker. Returns the number of the signal that stopped it, or 0."""
    try:
        with stop_at_once():
            run_seed(comparison, task, run, seed)
    except Interrupted as stop:
        return signal.Signals[str(stop)].value
    return 0


def run_seed(comparison: Comparison, task: EvalTask, run: Run, seed: int) -> None:
    for order, arm in enumerate(comparison.suite.arms.values()):
        result = comparison.place(seed) / "_results" / f"{arm.name}.json"
        if not result.exists():
            record = {"order": order, **_run_arm(comparison, task, run, seed, arm)}
            write_text_atomic(result, json.dumps(record, ensure_ascii=False) + "\n")  # scores keep their order


def _run_arm(comparison: Comparison, task: EvalTask, run: Run, seed: int, arm: Arm) -> Record:
    """Train an arm and evaluate it; each step is a command that a user could have given."""
    place = comparison.place(seed)
    plan = _plan(comparison, seed, arm)
    recipe = place / "_recipes" / f"{arm.name}.yaml"
    write_text_atomic(recipe, recipe_text(arm_recipe(comparison, arm, seed, plan["max_steps"])))
    print(f"seed {seed}, {arm.name}: {arm.method}, {plan['steps'] or 'its own'} steps", flush=True)
    run([arm.method, "--config", str(recipe)])
    own, evaluation = place / arm.name, comparison.suite.evaluation
    asked = ["--config", str(recipe), "--model", str(own)]
    if evaluation.limit is not None:
        asked += ["--limit", str(evaluation.limit)]
    length = ["--max_completion_length", str(evaluation.max_completion_length or task.max_completion_length)]
    scores: dict[str, dict[str, Any]] = {}
    for number, temperature in enumerate(evaluation.temperatures):
        modes = [word for mode in (arm.modes if number == 0 else arm.modes[:1]) for word in ("--mode", mode)]
        output = own / f"temperature_{temperature:g}"
        how = ["--temperature", f"{temperature:g}", "--output_dir", str(output)]
        figures = run(["eval", "--task", task.name, *asked, *length, *modes, *how])
        for mode, found in read_scores(Path(figures).with_suffix(".samples.jsonl"), task, temperature).items():
            scores.setdefault(mode, {}).update(found)
    gap = _gap(comparison, run, seed, [*asked, *length], own) if evaluation.gap else {}
    load = Load(**plan["load"])
    return {
        "seed": seed,
        "arm": arm.name,
        "method": arm.method,
        "model": FileHashes().model(own),
        "scores": scores,
        "figures": gap,
        "cost": read_cost(own, load),
        "plan": plan,
        "dropped keys": dropped_keys(comparison, arm),
    }


def _gap(comparison: Comparison, run: Run, seed: int, asked: list[str], own: Path) -> Record:
    """The figures of the gap. Slips are forced twice: the same for all arms of a seed, those of the model that the
    control starts from, and (`own_slips`) the arm's own, since a method may change which slips are made as well as
    what follows them."""
    places = [f"{place:g}" for place in comparison.suite.evaluation.slips]
    slips = ["--slips", *places]
    source = ["--slips_from", comparison.start_of(comparison.suite.control, seed)]
    path = run(["gap", *asked, *(slips + source if places else []), "--output_dir", str(own)])
    figures = read_figures(read_record(Path(path))["models"][0])
    if places:
        second = own / "own_slips"
        _take_answers(own / "gap" / "answers", second / "gap" / "answers")
        again = ["--slips_from", "each", "--prefix_lengths", "1", "--output_dir", str(second)]
        path = run(["gap", *asked, *slips, *again])
        figures |= read_figures({"own_slips": read_record(Path(path))["models"][0]["slips"]})
    return figures


def _take_answers(source: Path, target: Path) -> None:
    """Copy finished answers, in stores that their contents name, so that the same are not drawn again."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        temporary.rename(target)


def is_matched(comparison: Comparison, arm: Arm) -> bool:
    """Whether the arm's length follows from the control's."""
    own = arm.name in (START, methods.CONTROL) or any(key in arm.overrides for key in LENGTH_KEYS)
    return comparison.suite.match != "none" and not own


def _plan(comparison: Comparison, seed: int, arm: Arm) -> Record:
    """The arm's load and its steps, measured the first time and kept."""
    path = comparison.place(seed) / "_plans" / f"{arm.name}.json"
    if path.exists():
        return read_record(path)
    job = job_of(arm_recipe(comparison, arm, seed), f"arm {arm.name}")
    model, tokenizer = load_start(job)
    load = take_sample(job, model, tokenizer).load
    plan: Record = {"load": asdict(load), "match": "own length", "steps": None, "max_steps": None}
    if is_matched(comparison, arm):
        control = comparison.place(seed) / methods.CONTROL
        control_load = Load(**read_record(control.parent / "_plans" / f"{control.name}.json")["load"])
        made = sum(max(entry["step"] for entry in read_metrics(stage)) for stage in stages(control))
        steps = matched_steps(comparison.suite.match, control_load, made, load)
        plan |= {"match": comparison.suite.match, "steps": steps, "max_steps": steps // load.rounds}
    write_json_atomic(path, plan)
    return plan
