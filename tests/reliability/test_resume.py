"""Killed and started again = never killed: contexts byte for byte, final weights bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import BASE
from helpers import contents, gapbridge, kill_when


pytestmark = pytest.mark.slow


def command(run: Path) -> list[str]:
    return [
        "bash", "--config", "recipes/tiny/bash/config_full.yaml", "--model_name_or_path", str(BASE), "--output_dir",
        str(run), "--max_train_examples", "96", "--max_eval_examples", "16", "--generation_shard_size", "8",
        "--per_device_train_batch_size", "8", "--num_rounds", "2", "--num_epochs_per_round", "0.5", "--save_steps",
        "2",
        "--logging_steps", "1", "--generation_batch_size", "4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    gapbridge(*command(run))
    return run


def shards(run: Path, index: int) -> int:
    return len(list((run / f"round_{index}" / "_contexts").glob("shard-*")))


@pytest.mark.nightly  # these moments are among the kill points of tests/reliability/test_kill.py
@pytest.mark.parametrize("moment", ["generation", "training", "second round"])
def test_killed_and_resumed_equals_undisturbed(moment: str, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    conditions = {
        "generation": lambda: 3 <= shards(run, 1) < 12,
        "training": lambda: (run / "round_1" / "checkpoint-4" / "COMPLETE.json").exists(),
        "second round": lambda: shards(run, 2) >= 2,
    }
    kill_when(conditions[moment], *command(run))
    assert not (run / "model.safetensors").exists()
    gapbridge(*command(run))
    for pattern in ("round_*/_contexts/shard-*", "round_*/_contexts/manifest.json", "round_*/_eval_contexts/shard-*"):
        assert contents(run, pattern) == contents(undisturbed, pattern) != {}
    for pattern in ("round_*/model/model.safetensors", "model.safetensors"):
        assert contents(run, pattern) == contents(undisturbed, pattern) != {}
    again = gapbridge(*command(run))
    assert "this run is complete, nothing to do" in again.stdout


def test_two_rounds_differ(undisturbed: Path) -> None:
    assert list(contents(undisturbed / "round_1", "_contexts/shard-*").values()) != list(
        contents(undisturbed / "round_2", "_contexts/shard-*").values()
    )


def test_generating_first_gives_the_same_contexts(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = command(run)[1:]
    gapbridge("prepare", *arguments)
    assert contents(run, "round_1/_contexts/shard-*") == contents(undisturbed, "round_1/_contexts/shard-*") != {}
    assert not (run / "round_1" / "model").exists()
