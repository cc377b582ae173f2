"""Future heads under DDP and ZeRO-2 in two processes on a CPU: the losses and heads of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from safetensors.torch import load_file
from test_distributed import LORA, STEPS, launch, metrics

from gapbridge.decoding.mtp_heads import HEADS_FILE


pytestmark = pytest.mark.slow


def jobs(folder: Path, processes: int) -> list[dict[str, Any]]:
    """All weights with two micro-batches a step, and an adapter on the trunk; 8 rows a step whatever the processes."""
    common = [
        "mtp", "--config", "recipes/tiny/mtp/config_full.yaml", "--model_name_or_path", str(BASE),
        "--max_train_examples", "48", "--eval_strategy", "no", "--max_steps", str(STEPS), "--logging_steps", "1",
        "--num_future_tokens", "3", "--save_strategy", "no",
    ]  # fmt: skip
    full = ["--gradient_accumulation_steps", "2", "--per_device_train_batch_size", str(4 // processes)]
    adapter = [*LORA, "--per_device_train_batch_size", str(8 // processes)]
    return [
        {"arguments": [*common, "--output_dir", str(folder / name), *options]}
        for name, options in (("whole", full), ("lora", adapter))
    ]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert launch("single", jobs(folder, 1), folder, 1) == ["done", "done"]
    return folder


@pytest.mark.parametrize("config", ["ddp", "zero2"])
def test_two_processes_train_the_heads_of_one(config: str, one_process: Path, tmp_path: Path) -> None:
    assert launch(config, jobs(tmp_path, 2), tmp_path, 2) == ["done", "done"]
    for name in ("whole", "lora"):
        here, there = tmp_path / name / "round_1", one_process / name / "round_1"
        for key in ("loss", "grad_norm", "head_3_loss"):
            expected = metrics(there, key)
            assert len(expected) == STEPS and metrics(here, key) == pytest.approx(expected, rel=1e-4), (name, key)
        heads, others = load_file(here / "model" / HEADS_FILE), load_file(there / "model" / HEADS_FILE)
        assert heads.keys() == others.keys() and len(heads) > 0
        for key, value in heads.items():
            torch.testing.assert_close(value, others[key], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("config", "words"), [("fsdp", "under FSDP, where heads are not trained"), ("zero3", "under ZeRO-3")]
)
@pytest.mark.nightly
def test_sharded_weights_are_refused(config: str, words: str, tmp_path: Path) -> None:
    outcomes = launch(config, jobs(tmp_path, 2)[:1], tmp_path, 2)
    assert outcomes[0].startswith("ConfigError") and words in outcomes[0]
