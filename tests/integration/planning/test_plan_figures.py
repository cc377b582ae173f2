"""What a plan is made of, figure by figure: rows and tokens of a round, sequences of a step, copies, seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, tiny_llama
from helpers import recipe, write_rows
from transformers import AutoConfig, AutoTokenizer

from gapbridge.compare.cost_profile import profile_rows
from gapbridge.planning.command import Plan, added_parameters, count_checkpoints, plan
from gapbridge.planning.fake_step import run_fake_step
from gapbridge.planning.memory import generation_parts
from gapbridge.planning.workload import Workload, workload
from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.run_config import RunConfig, read_job


PAIR = {"prompt": "one and", "chosen": " two", "rejected": " three"}


def job_of(folder: Path, method: str, **keys: Any) -> RunConfig:
    settings: dict[str, Any] = {"per_device_train_batch_size": 2, "max_steps": None, "num_train_epochs": 1}
    if method == "dpo":
        settings["datasets"] = [{"path": "json", "data_files": write_rows(folder / "pairs.jsonl", [PAIR] * 8)}]
    return read_job(recipe(folder, method=method, **{**settings, "gradient_checkpointing": False, **keys}))


def planned(job: RunConfig, work: Workload | None = None, **options: Any) -> Plan:
    return plan(job, work or workload(job, 1), gpus=1, usable=2**40, **options)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "epoch", "num_train_epochs": 3}, 3),
        ({"save_strategy": "steps", "save_steps": 3}, 2),
        ({"save_strategy": "steps", "save_steps": 0.25, "num_rounds": 2}, 8),
        ({"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}, 2),
    ],
)
def test_how_many_checkpoints_stay(keys: dict[str, Any], expected: int, tmp_path: Path) -> None:
    job = job_of(tmp_path, "bash", **keys)
    assert count_checkpoints(job, workload(job, 1)) == expected


def test_tokens_of_several_epochs(tmp_path: Path) -> None:
    job = job_of(tmp_path, "sft", num_train_epochs=3)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    examples = load_examples(job, tokenizer, None)["train"]
    (found,) = workload(job, 1).rounds
    assert found.rows == len(examples) == 8 and found.steps == 12
    assert found.tokens == 3 * sum(
        len(e.prompt) + len(e.completion_ids) + len(e.template_suffix_ids) for e in examples
    )


def test_drafts_are_drawn_behind_prompts(tmp_path: Path) -> None:
    job = job_of(tmp_path, "rac", max_completion_length=40)
    examples = load_examples(job, AutoTokenizer.from_pretrained(BASE), None)["train"]
    (found,) = workload(job, 1).rounds
    assert found.generated == pytest.approx(sum(len(e.generation_prompt_ids) + 40 for e in examples))


def test_a_pair_is_two_sequences_and_has_a_reference_model(tmp_path: Path) -> None:
    job = job_of(tmp_path, "dpo")
    work = workload(job, 1)
    assert work.sequences == 2
    found, single = (planned(job, replace(work, sequences=count)) for count in (2, 1))
    assert found.step.activations > 1.6 * single.step.activations
    assert found.memories["single"].training["reference model"] == found.step.weights
    job.args.precompute_ref_log_probs = True
    assert "reference model" not in planned(job, work).memories["single"].training


def test_checkpointing_is_one_more_pass(tmp_path: Path) -> None:
    jobs = [job_of(tmp_path, "sft", gradient_checkpointing=on) for on in (False, True)]
    plain, again = (planned(job, tflops=1.0).seconds[0] for job in jobs)
    assert plain is not None and again == pytest.approx(plain * 4 / 3)


def test_the_parameters_that_a_method_adds_are_planned(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(BASE)
    job = job_of(tmp_path, "mtp")
    added = added_parameters(job, config)
    plain = run_fake_step(config, torch.float32, rows=2, length=8, checkpointing=False)
    step = planned(job).step
    assert added > 0 and (step.parameters, step.trained) == (plain.parameters + added, plain.trained + added)
    assert step.weights == plain.weights + 4 * added and step.gradients == plain.gradients + 4 * added


def test_a_cache_holds_keys_and_values() -> None:
    config = tiny_llama(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2).config
    dim = config.hidden_size // 4
    options: dict[str, Any] = {"fed": 1, "seen": 10, "generated": 1, "eager": False, "on_cpu": True}
    found = generation_parts(config, 4, rows=5, length=10, **options)
    assert found["cache"] == (3 * 5 * 10 * 2 * dim * 4) * 2


@pytest.mark.parametrize("rounds", [1, 3])
def test_what_comparing_by_compute_counts_as_drawn(rounds: int, tmp_path: Path) -> None:
    """Prompts are fed, too, and every round draws again."""
    job = job_of(tmp_path, "bash", num_rounds=rounds)
    model, tokenizer = load_initial_model(job)
    examples = load_examples(job, tokenizer, model)["train"]
    load = profile_rows(job, model, tokenizer).load
    assert load.generated_tokens == rounds * sum(len(e.prompt) + len(e.completion_ids) for e in examples)
