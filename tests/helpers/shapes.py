"""One tiny random model of each shape that is promised to take future heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from conftest import VOCAB, sharpen, tiny_llama
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)


SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
_GROUPED = {**SHAPE, "num_key_value_heads": 2}
SHAPES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "mistral": lambda: sharpen(MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=6)), 3.0),
    "qwen": lambda: sharpen(Qwen2ForCausalLM(Qwen2Config(**_GROUPED, tie_word_embeddings=True)), 3.0),
    "gpt-neox": lambda: sharpen(GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)), 3.0),
}


def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return SHAPES[name]()
