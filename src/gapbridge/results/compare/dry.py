"""`gapbridge compare --dry-run`: how long a comparison takes, from a step and a few tokens of the actual model.

Each distinct cost is measured once, on few tokens: a prompt token and a generated one at the evaluation's batch, an
arm's training step, its mixed contexts. Data sets are not tokenized beyond their first rows. What would exceed
`_PATIENCE` seconds is left out by name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ... import methods
from ...decoding import draft_answers
from ...decoding.mode import generation_precision, place_for_generation
from ...reporting.tables import Table, print_table
from ...runs.inputs import count_held_out_rows, load_held_out, load_start
from ...runs.job import Job
from ...runs.rounds import rounds_of
from ...tasks.task import EvalTask
from .matching import Load, matched_steps
from .recipes import Comparison, arm_recipe, job_of, known_keys
from .running import is_matched
from .sampling import Sample, sequences_of, take_sample
from .suite import Arm


_PATIENCE = 90.0  # seconds after which no further arm is measured
_ROWS_READ = 16  # of each data set
_SAMPLED = 4  # examples of which an arm's rows are made
_STEP_TOKENS = 512  # of the step that is measured, at most, or one sequence
_BATCH = 64  # completions at once, as by default
_TIMED_PROMPT, _TIMED_TOKENS = 32, 4
_DRAFT_LIMIT = "max_draft_length"  # the key of methods that train on whole completions
_SCORED = 20  # forward passes an example that the gap takes, about


@dataclass(frozen=True)
class Estimate:
    """What one run of an arm takes: optimizer steps, training tokens, and wall seconds of all it does."""

    arm: str
    runs: int  # that are left to do
    steps: int
    tokens: float
    seconds: float


@dataclass(frozen=True)
class _Decoding:
    """Seconds of a prompt token and of a generated one at the evaluation's batch; mean tokens of a held-out prompt and
    of a completion, which is taken to be as long as its reference."""

    prompt_token: float
    token: float
    prompt: float
    completion: float
    held_out: int

    @property
    def completion_seconds(self) -> float:
        return self.prompt * self.prompt_token + self.completion * self.token


def run_dry(comparison: Comparison, task: EvalTask, workers: int) -> list[Estimate]:
    """Print what the comparison would do and about how long that takes here; nothing is written.

    Models that arms start from and that are not trained yet are stood in for by the first seed's first model.
    """
    started = time.monotonic()
    suite, seed = comparison.suite, comparison.suite.seeds[0]
    control: tuple[Sample, int] | None = None
    decoding: _Decoding | None = None
    estimates, left_out = [], []
    arms = sorted(suite.arms.values(), key=lambda arm: arm.name != methods.CONTROL)
    with tqdm(arms, desc="measuring", unit="arm") as bar:
        for arm in bar:
            if time.monotonic() - started > _PATIENCE:
                left_out.append(arm.name)
                continue
            bar.set_postfix_str(arm.name)
            job, model, tokenizer = _load(comparison, arm, seed, decoding)
            decoding = decoding or _decoding(comparison, task, job, model, tokenizer)
            sample = take_sample(job, model, tokenizer, sampled=_SAMPLED, rows_read=_ROWS_READ)
            step_seconds = seconds_of_step(job, model, sample)
            steps = sample.load.own_steps(_epochs(job), job.args.max_steps)
            if control is None:
                control = sample, steps
            elif is_matched(comparison, arm):
                steps = matched_steps(suite.match, control[0].load, control[1], sample.load)
            context = sample.drawing_seconds
            if _DRAFT_LIMIT in known_keys(arm.method):  # measured at a batch of few, which takes longer for each
                context = min(context, decoding.completion_seconds)
            seconds = steps * step_seconds + context * sample.examples * rounds_of(job.args)
            sequences = [tokens for row in sample.rows for tokens in sequences_of(job, row)]
            row_seconds = step_seconds / sequences_per_step(sample.load, sequences)
            seconds += decoding.held_out * _asked(comparison, arm, decoding.completion_seconds, row_seconds)
            left = [s for s in suite.seeds if not (comparison.place(s) / "_results" / f"{arm.name}.json").exists()]
            estimates.append(Estimate(arm.name, len(left), steps, sample.load.tokens(steps), seconds))
            del model
    _show(comparison, task, estimates, workers)
    if left_out:
        print(f"not measured, because the others took {_PATIENCE:.0f} s: {', '.join(left_out)}")
    if decoding is not None:
        print(f"completions are taken to be as long as the references: {decoding.completion:.0f} tokens")
    return estimates


def _load(
    comparison: Comparison, arm: Arm, seed: int, decoding: _Decoding | None
) -> tuple[Job, PreTrainedModel, PreTrainedTokenizerBase]:
    keys = arm_recipe(comparison, arm, seed)
    if decoding is not None and _DRAFT_LIMIT in known_keys(arm.method):
        length = max(1, round(decoding.completion))
        keys[_DRAFT_LIMIT] = min(length, int(keys.get(_DRAFT_LIMIT, length)))
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


def _decoding(
    comparison: Comparison, task: EvalTask, job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> _Decoding:
    """What a token of the evaluation's completions takes, from the ends of a few prompts and a few tokens."""
    evaluation = comparison.suite.evaluation
    held_out = count_held_out_rows(job, evaluation.limit)
    examples = list(load_held_out(job, tokenizer, model, limit=min(_ROWS_READ, held_out)))
    prompts = [list(e.asked[-_TIMED_PROMPT:]) for e in islice(cycle(examples), min(_BATCH, held_out))]

    def seconds(prompts: Sequence[Sequence[int]], tokens: int) -> float:
        started = time.perf_counter()
        draft_answers(
            model,
            prompts,
            ids=range(len(prompts)),
            max_completion_length=tokens,
            stop_tokens=(),
            temperature=evaluation.temperatures[0],
        )
        return time.perf_counter() - started

    with generation_precision(model, job.args):
        seconds(prompts[:1], 1)  # what the first pass of a process takes is paid once
        prefill = seconds(prompts, 1)
        token = max(0.0, seconds(prompts, 1 + _TIMED_TOKENS) - prefill) / _TIMED_TOKENS / len(prompts)
    longest = evaluation.max_completion_length or task.max_completion_length
    completion = min(longest, sum(len(e.reference) for e in examples) / len(examples))
    prompt = sum(len(e.asked) for e in examples) / len(examples)
    return _Decoding(prefill / sum(map(len, prompts)), token, prompt, completion, held_out)


def seconds_of_step(job: Job, model: PreTrainedModel, sample: Sample) -> float:
    """Seconds of an optimizer step, from one on a few sequences at a learning rate of 0, which leaves the weights as
    they are."""
    sequences = [tokens for row in sample.rows for tokens in sequences_of(job, row)]
    size = min(len(sequences), job.args.per_device_train_batch_size)
    size = max(1, min(size, _STEP_TOKENS // max(map(len, sequences))))
    batch = sequences[:size]
    longest = max(map(len, batch))
    device = next(model.parameters()).device
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in batch], device=device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in batch], device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    model.train()

    def step(width: int) -> float:
        started = time.perf_counter()
        part, seen = ids[:, :width], mask[:, :width]
        with generation_precision(model, job.args):
            loss: Any = model(input_ids=part, attention_mask=seen, labels=part.masked_fill(seen == 0, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    step(min(longest, 8))  # warms up: the optimizer makes its state
    seconds = step(longest)
    model.eval()
    return seconds * sequences_per_step(sample.load, sequences) / size * sample.load.passes / 3


def sequences_per_step(load: Load, sequences: Sequence[Sequence[int]]) -> float:
    """How many sequences as long as these an optimizer step holds: of a pair both, of a packed row all."""
    return load.tokens(1) / (sum(map(len, sequences)) / len(sequences))


def _show(comparison: Comparison, task: EvalTask, estimates: Sequence[Estimate], workers: int) -> None:
    head = ("variant", "runs left", "steps", "tokens", "time per run (s)")
    lines = [(e.arm, e.runs, e.steps, e.tokens, e.seconds) for e in estimates]
    seeds = ", ".join(map(str, comparison.suite.seeds))
    print_table(Table(head, lines, f"{comparison.suite.name}: graded as {task.name}, seeds {seeds}"))
    minutes = sum(estimate.runs * estimate.seconds for estimate in estimates) / 60
    shared = f", in {workers} processes at best {minutes / workers:.1f}" if workers > 1 else ""
    runs = sum(estimate.runs for estimate in estimates)
    print(f"{runs} runs, about {minutes:.1f} minutes here{shared}; loading, saving and evaluation in training aside")
    for seed in comparison.suite.seeds:
        print(f"would write {comparison.place(seed)}: {', '.join(comparison.suite.arms)}")
    names = ("suite.json", "compare.json", "compare.md", "compare.html", "plots")
    print(f"would write {', '.join(str(comparison.directory / name) for name in names)}")
