"""Real architectures with weights set by hand, so that what they write is known; their words are numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from gapbridge.data.example import EXAMPLE_FEATURES, ExampleSet


VOCAB, EOS = 16, 15
SHARP = 40.0  # a logit that no noise of a test outdoes


def numbers_tokenizer() -> PreTrainedTokenizerFast:
    words = {str(i): i for i in range(EOS)} | {"<eos>": EOS}
    inner = Tokenizer(WordLevel(words, unk_token="0"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def examples_of(prompt: Sequence[int], reference: Sequence[int], count: int) -> ExampleSet:
    """`count` times the same example, each with an id of its own."""
    rows: dict[str, Any] = {
        "id": [f"e{i}" for i in range(count)],
        "prompt": [list(prompt)] * count,
        "completion_ids": [list(reference)] * count,
        "template_suffix_ids": [[]] * count,
        "loss_mask": [None] * count,
        "generation_prompt_ids": [None] * count,
        "template_kwargs_json": [None] * count,
        "has_prompt": [None] * count,
    }
    return ExampleSet(Dataset.from_dict(rows, EXAMPLE_FEATURES), [], "test", 0, 0, False, (EOS,))


def by_last_token(logits: torch.Tensor) -> PreTrainedModel:
    """A Llama whose logits `[VOCAB]` depend on the last token alone: row k of `logits` `[VOCAB, VOCAB]`."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=VOCAB, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, eos_token_id=EOS, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB))
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.copy_(logits.T / math.sqrt(VOCAB))  # the norm makes one-hot rows √VOCAB long
    return model


def counting(forced_errors: torch.Tensor | None = None) -> PreTrainedModel:
    """Goes on counting from whatever stands last: 1 2 … 7 <eos>, and 8 … 14 in a circle.

    Args:
        forced_errors: `[VOCAB]`, the logits of the other tokens.
    """
    logits = torch.zeros(VOCAB, VOCAB) if forced_errors is None else forced_errors.expand(VOCAB, VOCAB).clone()
    for token in range(VOCAB):
        following = EOS if token == 7 else 8 if token >= 14 else token + 1
        logits[token, following] = SHARP
    return by_last_token(logits)


def by_position(answers: Sequence[int]) -> PreTrainedModel:
    """A GPT-2 that writes `answers[p]` behind position p, whatever stands there."""
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=32, n_embd=32, n_layer=1, n_head=2, eos_token_id=EOS, bos_token_id=EOS,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.copy_(torch.eye(32))
        block = model.transformer.h[0]
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            projection.weight.zero_()
            projection.bias.zero_()
        model.lm_head.weight.zero_()
        for position, token in enumerate(answers):
            model.lm_head.weight[token, position] = 1.0
    return model
