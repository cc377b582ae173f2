"""Shared fixtures: one torch thread, no network, tiny models from a configuration."""

from __future__ import annotations

import os
import tempfile


# Before anything imports torch, transformers or datasets.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    # Of this run of the tests alone: nothing is found that older code made.
    HF_DATASETS_CACHE=tempfile.mkdtemp(prefix="gapbridge-test-datasets-"),
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    CUDA_VISIBLE_DEVICES="",
)

import atexit
import gc
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel


ROOT = Path(__file__).parents[1]
BASE = ROOT / "recipes" / "tiny" / "base"
VOCAB = 97

torch.set_num_threads(1)
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """Every trainer collects garbage when it ends: a third of a second for the modules alone, were they looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to anywhere but this machine fail at once."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"the tests must not use the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session", autouse=True)
def in_repository() -> Iterator[None]:
    """Recipes name their files from the top of the repository."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    return tiny_llama()


def tiny_llama(vocab_size: int = VOCAB, sharpness: float = 3.0, **options: Any) -> LlamaForCausalLM:
    """A random two-layer Llama; `sharpness` scales the weights, so that its predictions are not all alike."""
    torch.manual_seed(0)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        **options,
    }
    return sharpen(LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **settings)), sharpness)


def sharpen(model: PreTrainedModel, factor: float) -> PreTrainedModel:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(factor)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture
def own_tokenizer() -> Any:
    """Not the shared one: for tests that add tokens to it."""
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture
def make_base() -> Callable[[], PreTrainedModel]:
    """The embedded base model, freshly loaded."""
    return lambda: AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
