"""Refusals that need no launcher: see `test_distributed.py` for those of real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from gapbridge import BASHConfig, RunError
from gapbridge.decoding.model_state import is_sharded, move_to_device
from gapbridge.training.distributed_checks import check_processes
from gapbridge.training.loading import load_model


COMMON: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none"}


def test_processes_that_do_not_know_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = BASHConfig(str(tmp_path / "run"), **COMMON)
    check_processes(args)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(
        RunError, match=r"got 8 started by the launcher, of which this one \(cpu\) knows 1.* `--use_cpu true`"
    ):
        check_processes(args)
    assert not (tmp_path / "run").exists()


def test_sharded_weights_cannot_generate(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    args = BASHConfig(str(tmp_path), **COMMON)
    move_to_device(llama, args)
    assert not is_sharded(llama)
    llama.model.norm.weight.data = torch.empty(0)  # what DeepSpeed leaves of a parameter that it has partitioned
    assert is_sharded(llama)
    with pytest.raises(
        RunError, match=r"got sharded weights, expected complete weights.*load it with gapbridge\.handbook\.get_model"
    ):
        move_to_device(llama, args)


def test_models_are_whole_where_zero3_would_shard_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish for ZeRO-3, which transformers obeys while loading, is put away for the load and put back."""
    from conftest import BASE
    from transformers.integrations import is_deepspeed_zero3_enabled, unset_hf_deepspeed_config

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    args = BASHConfig(str(tmp_path), **COMMON)
    assert is_deepspeed_zero3_enabled()
    assert not is_sharded(load_model(BASE, args))
    assert is_deepspeed_zero3_enabled()
    unset_hf_deepspeed_config()
