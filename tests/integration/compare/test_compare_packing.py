"""Budgets of packed rows: what a comparison says that steps cost is what the runs' own token counters say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import recipe, write_rows

from gapbridge.compare.budget import budget_steps
from gapbridge.compare.cost_profile import CostProfile, count_sequences, profile_rows
from gapbridge.compare.dry_run import seconds_of_step, sequences_per_step
from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.run_config import RunConfig, read_job
from gapbridge.runs.train import train
from gapbridge.tasks.word_problems import problems
from gapbridge.training.metrics import read_metrics
from gapbridge.training.packing import packed_lengths


def job_of(folder: Path, method: str, examples: int = 30, **keys: Any) -> RunConfig:
    folder.mkdir()
    rows = [problem.row() for problem in problems("train", count=examples, steps=(1, 2))]
    data = [{"path": "json", "data_files": write_rows(folder / "rows.jsonl", rows)}]
    settings: dict[str, Any] = {"max_completion_length": 8} if method == "rac" else {}
    settings |= {"max_steps": None, "num_train_epochs": 1, "max_length": 400, "logging_steps": 1}
    return read_job(recipe(folder, method=method, datasets=data, **{**settings, **keys}))


def sample_of(job: RunConfig) -> CostProfile:
    model, tokenizer = load_initial_model(job)
    return profile_rows(job, model, tokenizer)


@pytest.mark.parametrize("method", ["sft", pytest.param("rac", marks=pytest.mark.nightly)])  # the same count
def test_tokens_are_those_that_runs_count(method: str, tmp_path: Path) -> None:
    """Two epochs whose last step has fewer rows."""
    keys: dict[str, Any] = {"packing": True, "num_train_epochs": 2, "per_device_train_batch_size": 2, "examples": 13}
    sample = sample_of(job_of(tmp_path / "sampled", method, **keys))
    run = train(job_of(tmp_path / "trained", method, **keys))
    counted = [entry["num_tokens"] for entry in read_metrics(run / "round_1") if "num_tokens" in entry]
    assert sample.load.configured_steps(2) == len(counted)
    assert sample.load.tokens(len(counted)) == pytest.approx(counted[-1])


@pytest.mark.parametrize("match", ["tokens", "compute"])
def test_packed_arms_get_equal_budgets(match: str, tmp_path: Path) -> None:
    """Of packed rows all are about as long: a variant with longer rows makes about as many steps for as many
    tokens."""
    keys: dict[str, Any] = {"packing": True, "per_device_train_batch_size": 1}
    control = sample_of(job_of(tmp_path / "sft", "sft", **keys)).load
    variant = sample_of(job_of(tmp_path / "rac", "rac", **keys)).load
    assert variant.row_tokens == pytest.approx(control.row_tokens, rel=0.2) and 280 < variant.row_tokens <= 400
    steps = budget_steps(match, control, 60, variant)
    cost = {
        "tokens": (control.tokens(60), variant.tokens(steps)),
        "compute": (control.compute(60), variant.compute(steps)),
    }
    assert cost[match][1] == pytest.approx(cost[match][0], rel=0.02)


def test_a_packed_step_takes_as_long_as_its_sequences(tmp_path: Path) -> None:
    job = job_of(tmp_path / "sft", "sft", packing=True, per_device_train_batch_size=2)
    model, tokenizer = load_initial_model(job)
    sample = profile_rows(job, model, tokenizer)
    sequences = [tokens for row in sample.rows for tokens in count_sequences(job, row)]
    held = sequences_per_step(sample.load, sequences)
    assert held == pytest.approx(len(sequences) / sample.load.configured_steps(1), rel=0.01) and held > 3
    assert seconds_of_step(job, model, sample) > 0


def test_the_budget_of_many_rows_follows_from_a_few(tmp_path: Path) -> None:
    """The first 32 of 200 examples are measured; packed are all."""
    job = job_of(tmp_path / "sft", "sft", examples=200, packing=True)
    model, tokenizer = load_initial_model(job)
    load = profile_rows(job, model, tokenizer).load
    lengths = [
        len(example.prompt) + len(example.completion_ids) for example in load_examples(job, tokenizer, model)["train"]
    ]
    packed = packed_lengths(lengths, job.args)
    assert load.rows == pytest.approx(len(packed), rel=0.1)
    assert load.tokens(load.configured_steps(1)) == pytest.approx(sum(packed), rel=0.1)
