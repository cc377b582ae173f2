"""Every architecture of the table gives the contexts and drafts of the definition, in the way the table says."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from conftest import VOCAB, sharpen
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from gapbridge.decoding import generate_completions, mix_contexts, mix_contexts_sequential
from gapbridge.decoding.forward import SlotRunner, slot_runner


LONGEST, WINDOW = 40, 8
# Mistral-v0.1 and others, Gemma-2 and -3, gpt-oss: alone or beside layers that see everything.
SLIDING = (
    "mistral, window",
    "mixtral",
    "phi3",
    "starcoder2",
    "qwen2, windows",
    "gemma2",
    "gemma3",
    "gpt-oss",
    "cohere2",
)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 8}
EXPERTS = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    **SHAPE, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1,
    "topk_group": 1,
}  # fmt: skip
OLD = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0,
       "eos_token_id": 0}  # fmt: skip
FALCON = {**SHAPE, "num_kv_heads": 4, "new_decoder_architecture": False}
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}

# Through the slot cache.
SLOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", {**GROUPED, "sliding_window": None}),
    "mistral, window": ("mistral", {**GROUPED, "sliding_window": WINDOW}),
    "mixtral": ("mixtral", {**EXPERTS, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", GROUPED),
    "qwen2, windows": (
        "qwen2",
        {**GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", HEADS),
    "gemma": ("gemma", HEADS),
    "gemma2": ("gemma2", {**HEADS, **ALTERNATING, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {**HEADS, **ALTERNATING, "final_logit_softcapping": 3.0}),
    "gpt-oss": ("gpt_oss", {**HEADS, **ALTERNATING, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek-v3": ("deepseek_v3", {**LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1}),
    "gpt-neox": ("gpt_neox", SHAPE),
    "gpt2": ("gpt2", OLD),
    "gpt-j": ("gptj", {**OLD, "rotary_dim": 4}),
    "codegen": ("codegen", {**OLD, "rotary_dim": 4}),
    "gpt-bigcode": ("gpt_bigcode", OLD),
    "opt": ("opt", {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "biogpt": ("biogpt", SHAPE),
    "phi": ("phi", SHAPE),
    "phi3": ("phi3", {**GROUPED, "sliding_window": WINDOW}),
    "falcon": ("falcon", {**FALCON, "alibi": False}),
    "stablelm": ("stablelm", GROUPED),
    "granite": ("granite", {**GROUPED, "logits_scaling": 0.5, "residual_multiplier": 0.7}),
    "cohere": ("cohere", {**GROUPED, "logit_scale": 0.5}),
    "cohere2": ("cohere2", {**GROUPED, **ALTERNATING, "logit_scale": 0.5}),
    "olmo": ("olmo", GROUPED),
    "olmo2": ("olmo2", GROUPED),
    "starcoder2": ("starcoder2", {**GROUPED, "sliding_window": WINDOW}),
    "smollm3": ("smollm3", GROUPED),
    "nemotron": ("nemotron", GROUPED),
    "persimmon": ("persimmon", SHAPE),
}
# By full passes over whole rows.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon, alibi": ("falcon", {**FALCON, "alibi": True}),
    "bloom": ("bloom", OLD),
    "mpt": ("mpt", {"vocab_size": VOCAB, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "mamba": ("mamba", {**SHAPE, "state_size": 4, "use_mambapy": False}),
    "recurrent-gemma": (
        "recurrent_gemma",
        {**HEADS, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": WINDOW},
    ),
}


def tiny(name: str) -> PreTrainedModel:
    kind, options = {**SLOTS, **ROWS}[name]
    torch.manual_seed(0)
    return sharpen(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)), 3.0)


def rows(count: int = 8) -> tuple[list[list[int]], list[list[int]], list[int]]:
    rng = random.Random(0)
    prompts = [[rng.randrange(1, VOCAB) for _ in range(rng.randint(1, 14))] for _ in range(count)]
    references = [[rng.randrange(1, VOCAB) for _ in range(rng.randint(2, LONGEST - len(x)))] for x in prompts]
    return prompts, references, list(range(count))


@pytest.mark.parametrize("name", [*SLOTS, *ROWS])
def test_contexts_and_drafts_are_those_of_the_definition(name: str) -> None:
    model = tiny(name)
    prompts, references, ids = rows()
    options = {"ids": ids, "mixture_coefficient": 0.5, "seed": 5}
    fast = mix_contexts(model, prompts, references, **options, batch_size=3, verify_window=6)
    assert fast == mix_contexts_sequential(model, prompts, references, **options)
    with torch.no_grad():
        runner = slot_runner(model, prompts[0], LONGEST)
    assert isinstance(runner, SlotRunner) == (name in SLOTS), runner
    # Where every position is sampled, prompt and noise decide: a draft is such a context.
    limit = 6
    completions = generate_completions(
        model, prompts, ids=ids, max_completion_length=limit, stop_tokens=[], batch_size=3
    )
    full = [[0] * (limit + 1)] * len(ids)
    free = mix_contexts_sequential(model, prompts, full, ids=ids, mixture_coefficient=1.0)
    assert [completion.tokens for completion in completions] == [context.tokens[:-1] for context in free]


@pytest.mark.parametrize("name", SLIDING)
def test_rows_of_several_windows_go_through_the_slot_cache(name: str) -> None:
    model = tiny(name)
    rng = random.Random(1)
    prompts = [[rng.randrange(1, VOCAB) for _ in range(2 * WINDOW + i)] for i in range(4)]
    references = [[rng.randrange(1, VOCAB) for _ in range(LONGEST - len(x))] for x in prompts]
    with torch.no_grad():
        runner = slot_runner(model, prompts[0], LONGEST)
    assert isinstance(runner, SlotRunner) and WINDOW in runner.windows.values()
    options = {"ids": range(4), "mixture_coefficient": 1.0}
    expected = mix_contexts_sequential(model, prompts, references, **options)
    assert mix_contexts(model, prompts, references, **options, batch_tokens=2 * LONGEST, verify_window=5) == expected
    completions = generate_completions(
        model, prompts, ids=range(4), max_completion_length=LONGEST - 2 * WINDOW - 4, stop_tokens=[]
    )
    for completion, context in zip(completions, expected, strict=True):
        assert completion.tokens == context.tokens[: len(completion.tokens)]
