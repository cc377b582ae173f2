"""vLLM in the process that trains (`vllm_mode: colocate`), where this Python has vLLM: `make test-vllm`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import recipe


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="this Python has no vLLM: make test-vllm"),
]


@pytest.mark.parametrize("method", ["rac", "spin"])
def test_training(method: str, tmp_path: Path) -> None:
    """In a process of its own: vLLM starts its engine in a child that imports the main module again."""
    options = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 512, "max_completion_length": 24}
    arguments = recipe(tmp_path, method=method, max_steps=1, temperature=1.0, max_length=400, **options)
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gapbridge", method, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    assert (tmp_path / "run" / "model.safetensors").is_file()
