"""A run that is resumed inside a later epoch trains the batches that it would have trained, whatever orders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import recipe

from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.rounds import round_arguments
from gapbridge.runs.run_config import read_job
from gapbridge.training.method import GapTrainerMixin


def trainer_in(folder: Path, name: str, **keys: Any) -> GapTrainerMixin:
    """SFT on eight rows in batches of two, two epochs of four steps."""
    folder.mkdir(exist_ok=True)
    settings = {
        "method": "sft", "max_steps": None, "num_train_epochs": 2, "per_device_train_batch_size": 2, "save_steps": 6,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "output_dir": str(folder / name), **keys,
    }  # fmt: skip
    job = read_job(recipe(folder, **settings), "sft")
    model, tokenizer = load_initial_model(job)
    examples = load_examples(job, tokenizer, model)
    args = round_arguments(job.args, 1)
    return job.method(model=model, args=args, train_dataset=examples["train"], processing_class=tokenizer)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"train_sampling_strategy": "group_by_length"}, id="by length"),
        # The same path with other settings: two seconds each.
        pytest.param(
            {"train_sampling_strategy": "group_by_length", "gradient_accumulation_steps": 2, "save_steps": 3},
            id="by length, accumulated", marks=pytest.mark.nightly,
        ),
        pytest.param(
            {"accelerator_config": json.dumps({"use_seedable_sampler": False})},
            id="not seeded by accelerate", marks=pytest.mark.nightly,
        ),
        pytest.param({}, id="random", marks=pytest.mark.nightly),
    ],
)  # fmt: skip
def test_resumed_in_the_second_epoch(keys: dict[str, Any], tmp_path: Path) -> None:
    full = trainer_in(tmp_path, "whole", **keys)
    full.train()
    resumed = trainer_in(tmp_path, "resumed", **keys)
    [checkpoint] = (tmp_path / "whole" / "round_1").glob(f"checkpoint-{keys.get('save_steps', 6)}")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == full.state.global_step
    weights = full.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.model.state_dict().items())


def test_each_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, "run", train_sampling_strategy="group_by_length")
    sampler = trainer._get_train_sampler()
    first = list(sampler)
    assert list(sampler) == first and sorted(first) == list(range(8))
    trainer.state.epoch = 1.5
    assert list(sampler) != first
