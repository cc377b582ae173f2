"""`gapbridge compare --dry_run`: how long a comparison takes, from a step and a few tokens of the actual model.

Each distinct cost is measured once, on few tokens: a prompt token and a generated one at the evaluation's batch, an
variant's training step, its mixed contexts. Data sets are not tokenized beyond their first rows. What would exceed
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

from .. import methods
from ..decoding import generate_completions
from ..decoding.forward import SlotRunners
from ..decoding.model_state import generation_precision, move_to_device
from ..reporting.tables import Table, print_table
from ..runs.load_inputs import count_held_out_rows, load_eval_examples, load_initial_model
from ..runs.rounds import number_of_rounds
from ..runs.run_config import RunConfig
from ..tasks.task import EvalTask
from .budget import StepCost, budget_steps
from .cost_profile import CostProfile, count_sequences, profile_rows
from .execute import is_matched
from .experiment_config import Variant
from .experiment_plan import ExperimentPlan, known_keys, read_run_config, variant_recipe


_PATIENCE = 90.0  # seconds after which no further variant is measured
_ROWS_READ = 16  # of each data set
_SAMPLED = 4  # examples of which a variant's rows are made
_STEP_TOKENS = 512  # of the step that is measured, at most, or one sequence
_BATCH = 64  # completions at once, as by default
_TIMED_PROMPT, _TIMED_TOKENS = 32, 4
_DRAFT_LIMIT = "max_completion_length"  # the key of methods that train on whole completions


@dataclass(frozen=True)
class _Completions:
    """The evaluation's completions, each taken to be as long as its reference: how many there are for a decoding mode,
    mean tokens and wall seconds of one."""

    count: int
    tokens: float
    seconds: float


def run_dry(comparison: ExperimentPlan, task: EvalTask, workers: int) -> None:
    """Print what the comparison would do and about how long that takes here; nothing is written.

    Models that variants start from and that are not trained yet are stood in for by the first seed's first model.
    """
    started = time.monotonic()
    experiment, seed = comparison.experiment, comparison.experiment.seeds[0]
    control: tuple[CostProfile, int] | None = None
    completions: _Completions | None = None
    rows, left_out, runs, total = [], [], 0, 0.0
    variants = sorted(experiment.variants.values(), key=lambda variant: variant.name != methods.CONTROL)
    with tqdm(variants, desc="measuring", unit="variant") as bar:
        for variant in bar:
            if time.monotonic() - started > _PATIENCE:
                left_out.append(variant.name)
                continue
            bar.set_postfix_str(variant.name)
            job, model, tokenizer = _load(comparison, variant, seed, completions)
            completions = completions or _measure_completions(comparison, task, job, model, tokenizer)
            sample = profile_rows(job, model, tokenizer, sampled=_SAMPLED, rows_read=_ROWS_READ)
            steps = sample.load.configured_steps(_epochs(job), job.args.max_steps)
            if control is None:
                control = sample, steps
            elif is_matched(comparison, variant):
                steps = budget_steps(experiment.budget, control[0].load, control[1], sample.load)
            context = sample.generation_seconds
            if _DRAFT_LIMIT in known_keys(variant.method):  # measured at a batch of few, which takes longer for each
                context = min(context, completions.seconds)
            seconds = steps * seconds_of_step(job, model, sample)
            seconds += context * sample.examples * number_of_rounds(job.args)
            seconds += completions.count * _completions_per_prompt(comparison, variant) * completions.seconds
            left = sum(not comparison.result_file(seed, variant.name).exists() for seed in experiment.seeds)
            rows.append((variant.name, left, steps, sample.load.tokens(steps), seconds))
            runs, total = runs + left, total + left * seconds
            del model
    head = ("variant", "runs left", "steps", "tokens", "time per run (s)")
    seeds = ", ".join(map(str, experiment.seeds))
    print_table(Table(head, rows, f"{experiment.name}: graded as {task.name}, seeds {seeds}"))
    shared = f", in {workers} processes at best {total / 60 / workers:.1f}" if workers > 1 else ""
    print(f"{runs} runs, about {total / 60:.1f} minutes on this machine{shared}, without loading and saving")
    for seed in experiment.seeds:
        print(f"would write {comparison.place(seed)}: {', '.join(experiment.variants)}")
    names = ("experiment.json", "compare.json", "compare.md", "compare.html", "plots")
    print(f"would write {', '.join(str(comparison.directory / name) for name in names)}")
    if left_out:
        print(f"not measured, because the others took {_PATIENCE:.0f} s: {', '.join(left_out)}")
    if completions is not None:
        print(f"completions are assumed to be as long as the references: {completions.tokens:.0f} tokens")


def _load(
    comparison: ExperimentPlan, variant: Variant, seed: int, completions: _Completions | None
) -> tuple[RunConfig, PreTrainedModel, PreTrainedTokenizerBase]:
    keys = variant_recipe(comparison, variant, seed)
    if completions is not None and _DRAFT_LIMIT in known_keys(variant.method):
        length = max(1, round(completions.tokens))
        keys[_DRAFT_LIMIT] = min(length, int(keys.get(_DRAFT_LIMIT, length)))
    if not (Path(keys["model_name_or_path"]) / "config.json").is_file():
        keys["model_name_or_path"] = comparison.first_model(seed)
    job = read_run_config(keys, f"variant {variant.name}")
    model, tokenizer = load_initial_model(job)
    move_to_device(model, job.args)
    return job, model, tokenizer


def _epochs(job: RunConfig) -> float:
    """Mean epochs of a round."""
    rounds = number_of_rounds(job.args)
    if rounds == 1:
        return float(job.args.num_train_epochs)
    return float(sum(job.args.num_epochs_of_round(index) for index in range(1, rounds + 1))) / rounds


def _completions_per_prompt(comparison: ExperimentPlan, variant: Variant) -> float:
    """Completions that the evaluations of a variant generate for one held-out prompt."""
    evaluation = comparison.experiment.evaluation
    asked = len(evaluation.temperatures) + len(variant.decoding_modes) - 1
    # After forced errors only what follows them is generated: the same errors for all variants, and the variant's own.
    return asked + evaluation.gap + 2 * sum(1 - position for position in evaluation.error_positions)


def _measure_completions(
    comparison: ExperimentPlan,
    task: EvalTask,
    job: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> _Completions:
    """What a completion takes, from the ends of a few prompts and a few tokens at the evaluation's batch."""
    evaluation = comparison.experiment.evaluation
    count = count_held_out_rows(job, evaluation.max_examples)
    examples = list(load_eval_examples(job, tokenizer, model, limit=min(_ROWS_READ, count)))
    prompts = [list(e.generation_prompt_ids[-_TIMED_PROMPT:]) for e in islice(cycle(examples), min(_BATCH, count))]
    runners = SlotRunners()

    def seconds(prompts: Sequence[Sequence[int]], tokens: int) -> float:
        options: dict[str, Any] = {
            "max_completion_length": tokens,
            "stop_tokens": (),
            "temperature": evaluation.temperatures[0],
        }
        started = time.perf_counter()
        generate_completions(model, prompts, ids=range(len(prompts)), runners=runners, **options)
        return time.perf_counter() - started

    with generation_precision(model, job.args):
        seconds(prompts[:1], 1)  # what the first pass of a process takes is paid once
        prefill = seconds(prompts, 1)
        token = max(0.0, seconds(prompts, 1 + _TIMED_TOKENS) - prefill) / _TIMED_TOKENS / len(prompts)
    longest = evaluation.max_completion_length or task.max_completion_length
    tokens = min(longest, sum(len(e.completion_ids) for e in examples) / len(examples))
    prompt_tokens = sum(len(e.generation_prompt_ids) for e in examples) / len(examples)
    return _Completions(count, tokens, prompt_tokens * prefill / sum(map(len, prompts)) + tokens * token)


def seconds_of_step(job: RunConfig, model: PreTrainedModel, sample: CostProfile) -> float:
    """Seconds of an optimizer step, from one on a few sequences at a learning rate of 0, which leaves the weights as
    they are."""
    sequences = [tokens for row in sample.rows for tokens in count_sequences(job, row)]
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


def sequences_per_step(load: StepCost, sequences: Sequence[Sequence[int]]) -> float:
    """How many sequences as long as these an optimizer step holds: of a pair both, of a packed row all."""
    return load.tokens(1) / (sum(map(len, sequences)) / len(sequences))
