"""`gapbridge compare --dry-run`: how long a comparison takes, from a few steps and answers of the actual model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ... import methods
from ...answers.session import print_table
from ...decoding import draft_answers
from ...decoding.mode import generation_precision, place_for_generation
from ...examples.example import Example
from ...examples.tokens import stop_tokens
from ...runs.inputs import load_held_out, load_start
from ...runs.job import Job
from ...runs.rounds import rounds_of
from ...runs.tables import number
from ...tasks.task import EvalTask
from .matching import Load, matched_steps
from .recipes import Comparison, arm_recipe, job_of
from .running import is_matched
from .sampling import Sample, sequences_of, take_sample
from .suite import Arm


_STEPS = 3  # probed; the first warms up
_ANSWERS = 64  # as many as are drawn at once, by default: fewer take nearly as long
_SCORED = 20  # forward passes an example that the gap takes, about


@dataclass(frozen=True)
class Estimate:
    """What one run of an arm takes: optimizer steps, training tokens, and wall seconds of all it does."""

    arm: str
    runs: int  # that are left to do
    steps: int
    tokens: float
    seconds: float


def run_dry(comparison: Comparison, task: EvalTask, workers: int) -> list[Estimate]:
    """Print what the comparison would do and about how long that takes here; nothing is written.

    Models that arms start from and that are not trained yet are stood in for by the first seed's first model.
    """
    suite, seed = comparison.suite, comparison.suite.seeds[0]
    control: tuple[Sample, int] | None = None
    estimates = []
    answer_seconds = 0.0
    held_out = 0
    for arm in sorted(suite.arms.values(), key=lambda arm: arm.name != methods.CONTROL):
        job, model, tokenizer = _load(comparison, arm, seed)
        if not held_out:
            answer_seconds, held_out = _answering(comparison, task, job, model, tokenizer)
        sample = take_sample(job, model, tokenizer)
        step_seconds = seconds_of_step(job, model, sample)
        steps = sample.load.own_steps(_epochs(job), job.args.max_steps)
        if control is None:
            control = sample, steps
        elif is_matched(comparison, arm):
            steps = matched_steps(suite.match, control[0].load, control[1], sample.load)
        seconds = steps * step_seconds + sample.drawing_seconds * sample.examples * rounds_of(job.args)
        sequences = [tokens for row in sample.rows for tokens in sequences_of(job, row)]
        row_seconds = step_seconds / sequences_per_step(sample.load, sequences)
        seconds += held_out * _asked(comparison, arm, answer_seconds, row_seconds)
        left = [s for s in suite.seeds if not (comparison.place(s) / "_results" / f"{arm.name}.json").exists()]
        estimates.append(Estimate(arm.name, len(left), steps, sample.load.tokens(steps), seconds))
        del model
    _show(comparison, task, estimates, workers)
    return estimates


def _load(comparison: Comparison, arm: Arm, seed: int) -> tuple[Job, PreTrainedModel, PreTrainedTokenizerBase]:
    keys = arm_recipe(comparison, arm, seed)
    if not (Path(keys["model_name_or_path"]) / "config.json").is_file():
        keys["model_name_or_path"] = comparison.first_model(seed)
    job = job_of(keys, f"arm {arm.name}")
    model, tokenizer = load_start(job)
    place_for_generation(model, job.args)
    return job, model, tokenizer


def _epochs(job: Job) -> float:
    """Mean epochs of a round."""
    rounds = rounds_of(job.args)
    if rounds == 1:
        return float(job.args.num_train_epochs)
    return float(sum(job.args.epochs_of_round(index) for index in range(1, rounds + 1))) / rounds


def _asked(comparison: Comparison, arm: Arm, answer: float, row: float) -> float:
    """Seconds that the evaluations of an arm take for one held-out example."""
    evaluation = comparison.suite.evaluation
    answers = len(evaluation.temperatures) + len(arm.modes) - 1
    if not evaluation.gap:
        return answers * answer
    behind = 2 * sum(1 - place for place in evaluation.slips)  # the same for all, and the arm's own: what follows them
    return (answers + 1 + behind) * answer + _SCORED * row / 3


def _answering(
    comparison: Comparison, task: EvalTask, job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[float, int]:
    """Seconds an answer takes, from a few, and how many held-out examples there are."""
    evaluation = comparison.suite.evaluation
    examples = load_held_out(job, tokenizer, model, limit=evaluation.limit)
    some: list[Example] = examples.part(0, _ANSWERS)

    def draw(longest: int) -> float:
        started = time.perf_counter()
        draft_answers(
            model,
            [example.asked for example in some],
            ids=[example.id for example in some],
            max_completion_length=longest,
            stop_tokens=stop_tokens(tokenizer, model),
            temperature=evaluation.temperatures[0],
        )
        return time.perf_counter() - started

    with generation_precision(model, job.args):
        draw(1)  # what the first pass of a process takes is paid once
        seconds = draw(evaluation.max_completion_length or task.max_completion_length)
    return seconds / len(some), len(examples)


def seconds_of_step(job: Job, model: PreTrainedModel, sample: Sample) -> float:
    """Seconds of an optimizer step, from a few at a learning rate of 0, which leave the weights as they are."""
    sequences = [tokens for row in sample.rows for tokens in sequences_of(job, row)]
    size = min(len(sequences), job.args.per_device_train_batch_size)
    batch = sequences[:size]
    longest = max(map(len, batch))
    device = next(model.parameters()).device
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in batch], device=device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in batch], device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    taken = []
    model.train()
    for _ in range(_STEPS):
        started = time.perf_counter()
        loss: Any = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - started)
    model.eval()
    return min(taken[1:]) * sequences_per_step(sample.load, sequences) / size * sample.load.passes / 3


def sequences_per_step(load: Load, sequences: Sequence[Sequence[int]]) -> float:
    """How many sequences as long as these an optimizer step holds: of a pair both, of a packed row all."""
    return load.tokens(1) / (sum(map(len, sequences)) / len(sequences))


def _show(comparison: Comparison, task: EvalTask, estimates: Sequence[Estimate], workers: int) -> None:
    head = ("arm", "runs left", "steps", "tokens", "seconds a run")
    lines = [(e.arm, e.runs, number(e.steps), number(e.tokens), number(e.seconds)) for e in estimates]
    seeds = ", ".join(map(str, comparison.suite.seeds))
    print_table(f"{comparison.suite.name}: graded as {task.name}, seeds {seeds}", head, lines)
    minutes = sum(estimate.runs * estimate.seconds for estimate in estimates) / 60
    shared = f", in {workers} processes at best {minutes / workers:.1f}" if workers > 1 else ""
    runs = sum(estimate.runs for estimate in estimates)
    print(f"{runs} runs, about {minutes:.1f} minutes here{shared}; loading, saving and evaluation in training aside")
    for seed in comparison.suite.seeds:
        print(f"would write {comparison.place(seed)}: {', '.join(comparison.suite.arms)}")
    names = ("suite.json", "compare.json", "compare.md", "compare.png")
    print(f"would write {', '.join(str(comparison.directory / name) for name in names)}")
