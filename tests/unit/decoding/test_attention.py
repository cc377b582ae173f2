"""Query heads that share keys: the same attention as transformers', without copies of the keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import tiny_llama
from hypothesis import given
from hypothesis import strategies as st
from test_architectures import rows, tiny
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gapbridge.decoding import generate_completions, mix_contexts, mix_contexts_sequential
from gapbridge.decoding.attention import GROUPED, grouped_attention
from gapbridge.decoding.forward import SlotRunner
from gapbridge.decoding.model_state import generation_mode, uses_gqa


def layer(groups: int) -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = groups, True
    return module


def states(heads: int, groups: int, width: int, visible: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and a mask that lets each query of each row see other keys."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(3, groups * heads, width, 8, generator=generator)
    key = torch.randn(3, heads, visible, 8, generator=generator)
    value = torch.randn(3, heads, visible, 8, generator=generator)
    seen = torch.rand(3, 1, width, visible, generator=generator) < 0.6
    seen[..., 0] = True
    return query, key, value, seen


@given(
    heads=st.integers(1, 3),
    groups=st.integers(1, 4),
    width=st.integers(1, 20),
    visible=st.integers(1, 12),
    added=st.booleans(),
    scaling=st.sampled_from([None, 0.1]),
    seed=st.integers(0, 99),
)
def test_it_is_the_attention_of_transformers(
    heads: int, groups: int, width: int, visible: int, added: bool, scaling: float | None, seed: int
) -> None:
    """Also where the mask would grow by more than the copies take: 16 queries of one head of eight dimensions."""
    query, key, value, seen = states(heads, groups, width, visible, seed)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min) if added else seen
    options: dict[str, Any] = {"scaling": scaling, "sliding_window": 4}  # models hand on more than a function needs
    expected, _ = sdpa_attention_forward(layer(groups), query, key, value, mask, **options)
    found, weights = grouped_attention(layer(groups), query, key, value, mask, **options)
    assert weights is None and found.is_contiguous()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", ["no mask", "a mask for each head", "soft-capped", "a wide mask"])
def test_what_it_does_not_serve_is_left_to_transformers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def theirs(*args: Any, **kwargs: Any) -> str:
        asked.append((args, kwargs))
        return "theirs"

    monkeypatch.setattr("gapbridge.decoding.attention.sdpa_attention_forward", theirs)
    # A mask of more rows than keys and values have numbers in a slot takes more than their copies.
    query, key, value, seen = states(2, 2, 33 if case == "a wide mask" else 32, 5, 0)
    masks = {"no mask": None, "a mask for each head": seen.expand(-1, 4, -1, -1)}
    options = {"softcap": 5.0} if case == "soft-capped" else {}
    assert grouped_attention(layer(2), query, key, value, masks.get(case, seen), **options) == "theirs"
    assert len(asked) == 1 and asked[0][1] == options
    if case == "a wide mask":
        assert grouped_attention(layer(2), query[:, :, 1:], key, value, seen[:, :, 1:]) != "theirs"


def no_copies(*_: object) -> Tensor:
    raise AssertionError("keys or values are copied for every query head")


@pytest.mark.parametrize("name", ["multi-query", "llama", "mistral, window", "qwen3", "gemma3"])
def test_contexts_and_drafts_are_those_of_the_definition_without_copies(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(num_key_value_heads=1) if name == "multi-query" else tiny(name)
    assert uses_gqa(model)
    prompts, references, ids = rows()
    expected = mix_contexts_sequential(model, prompts, references, ids=ids, mixture_coefficient=0.5)
    limits: dict[str, Any] = {"ids": ids, "max_completion_length": 8, "stop_tokens": [0], "batch_size": 3}
    with monkeypatch.context() as patch:
        patch.setattr("gapbridge.decoding.model_state.uses_gqa", lambda _: False)
        completions = generate_completions(model, prompts, **limits)
    run = SlotRunner.logits

    def without_copies(*args: Any, **kwargs: Any) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr("transformers.integrations.sdpa_attention.repeat_kv", no_copies)
            return run(*args, **kwargs)

    monkeypatch.setattr(SlotRunner, "logits", without_copies)
    mixed = mix_contexts(model, prompts, references, ids=ids, mixture_coefficient=0.5, batch_size=3, verify_window=6)
    assert mixed == expected
    assert generate_completions(model, prompts, **limits) == completions


def test_the_models_own_attention_comes_back() -> None:
    model = tiny_llama()
    with pytest.raises(KeyError), generation_mode(model):
        assert model.config._attn_implementation == GROUPED
        raise KeyError
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_where_nothing_is_shared_or_sdpa_not_asked_for_nothing_changes(implementation: str) -> None:
    model = tiny_llama(num_key_value_heads=4 if implementation == "sdpa" else 2)
    model.set_attn_implementation(implementation)
    with generation_mode(model):
        assert model.config._attn_implementation == implementation
