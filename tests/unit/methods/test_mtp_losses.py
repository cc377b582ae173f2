"""The heads' losses: their targets by hand, and one after another the sums and gradients of all at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import VOCAB, sharpen, tiny_llama
from helpers.shapes import SHAPE, SHAPES, model_of
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedModel

from gapbridge import ConfigError
from gapbridge.decoding.mtp_heads import (
    MTPHeads,
    add_heads,
    capture_hidden_states,
    find_decoder_parts,
    head_states,
)
from gapbridge.methods.mtp import losses
from gapbridge.methods.mtp.losses import HeadLoss, future_targets, sequential_losses


_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}


def test_targets_by_hand() -> None:
    """Two prompt tokens, an answer of four, a user turn, an answer of two, padding."""
    labels = torch.tensor([[-100, -100, 5, 6, 7, 8, -100, 9, 10, -100]])
    n = -100
    assert future_targets(labels, 1).tolist() == [[n, 5, 6, 7, 8, n, 9, 10, n, n]]
    assert future_targets(labels, 2).tolist() == [[n, 6, 7, 8, n, n, 10, n, n, n]]
    assert future_targets(labels, 4).tolist() == [[n, 8, n, n, n, n, n, n, n, n]]
    assert future_targets(labels, 5).tolist() == future_targets(labels, 10).tolist() == [[n] * 10]


def test_targets_stay_in_their_document() -> None:
    """Also where a document's first label carries loss."""
    labels = torch.tensor([[1, 2, 3, 4, 5, 6]])
    starts = torch.tensor([[True, False, False, True, False, False]])
    assert future_targets(labels, 1, starts).tolist() == [[2, 3, -100, 5, 6, -100]]
    assert future_targets(labels, 2, starts).tolist() == [[3, -100, -100, 6, -100, -100]]


def tasks(model: PreTrainedModel, heads: MTPHeads, inputs: dict[str, Tensor]) -> tuple[Tensor, list[HeadLoss]]:
    labels = inputs["input_ids"].masked_fill(torch.arange(inputs["input_ids"].shape[1]) < 3, -100)
    with capture_hidden_states(find_decoder_parts(model)) as captured:
        model(**inputs, use_cache=False)
    assert captured.states is not None
    return captured.states, [
        HeadLoss(
            partial(head_states, heads, at, captured),
            captured.parts.unembedding,
            future_targets(labels, at + 2),
        )
        for at in range(len(heads))
    ]


def joint_losses(states: Tensor, heads: list[HeadLoss]) -> tuple[Tensor, Tensor]:
    """The definition: every head's logits stay in memory until the backward pass."""
    sums, figures = [], []
    for head in heads:
        chosen = head.targets != -100
        targets = head.targets[chosen]
        logits = head.unembedding(head.states(states)[chosen]).float()
        sums.append(logits.log_softmax(dim=-1).gather(1, targets[:, None]).sum())
        correct = (logits.argmax(dim=-1) == targets).sum()
        figures.append(torch.stack([sums[-1].detach(), correct.float(), torch.tensor(float(len(targets)))]))
    return torch.stack(sums).sum(), torch.stack(figures)


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert any("future_heads" in name for name in found) and any("layers.0" in name for name in found)
    return found


def with_biased_unembedding() -> PreTrainedModel:
    """A Phi, whose unembedding has a bias."""
    model = sharpen(PhiForCausalLM(PhiConfig(**SHAPE)), 3.0)
    model.lm_head.bias.data = torch.randn(VOCAB)
    return model


@pytest.mark.parametrize("name", [*SHAPES, "biased unembedding"])
def test_one_after_another_is_all_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures to 1e-6, gradients to 1e-5, with chunks that do not divide the positions."""
    monkeypatch.setattr(losses, "MAX_LOGITS", 7 * VOCAB)
    model = model_of(name) if name in SHAPES else with_biased_unembedding()
    heads = add_heads(model, 3)
    for weight in heads.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    inputs = {"input_ids": torch.randint(0, VOCAB, (3, 15))}
    total, figures = joint_losses(*tasks(model, heads, inputs))
    expected = gradients(model, -total / 30)
    states, heads_of_model = tasks(model, heads, inputs)
    parts = find_decoder_parts(model)
    learning = [weight for part in (heads, parts.norm, parts.unembedding) for weight in part.parameters()]
    own_total, own_figures = sequential_losses(states, heads_of_model, learning)
    assert own_total.item() == pytest.approx(total.item(), rel=1e-6)
    torch.testing.assert_close(own_figures, figures, rtol=1e-6, atol=0)
    found = gradients(model, -own_total / 30)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert float((found[key] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9, key
    with torch.no_grad():
        again, _ = sequential_losses(*tasks(model, heads, inputs), learning)
    assert again.item() == pytest.approx(total.item(), rel=1e-6) and not again.requires_grad


def test_new_heads_are_the_last_layer() -> None:
    """With a copied layer a head says what head 1 says, so its states are the model's final states."""
    for name in SHAPES:
        model = model_of(name)
        heads = add_heads(model, 2)
        tokens = torch.randint(0, VOCAB, (2, 9))
        with torch.no_grad(), capture_hidden_states(find_decoder_parts(model)) as captured:
            logits = model(tokens, use_cache=False).logits
            assert captured.states is not None
            own = captured.parts.unembedding(head_states(heads, 1, captured, captured.states))
        torch.testing.assert_close(own, logits)


def test_other_shapes_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, GraniteConfig, GraniteForCausalLM

    for model in (
        GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4)),
        GraniteForCausalLM(GraniteConfig(**SHAPE, num_key_value_heads=2, logits_scaling=8.0)),
    ):
        with pytest.raises(ConfigError, match="expected layers, one final norm"):
            add_heads(model, 1)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mixtral", {"num_local_experts": 2}),
        ("qwen2_moe", {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}),
        ("olmoe", {"num_experts": 2, "num_experts_per_tok": 1}),
        ("deepseek_v3", {"n_routed_experts": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, **_LATENT}),
        ("ernie4_5_moe", {"moe_num_experts": 2, "moe_k": 1, "moe_layer_start_index": 0}),
        ("gpt_oss", {"num_local_experts": 2, "head_dim": 8}),
        ("jetmoe", {"num_local_experts": 2, "kv_channels": 8}),
    ],
)
def test_experts_are_refused_under_any_key(family: str, options: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SHAPE, **options}))
    with pytest.raises(ConfigError, match=r"built otherwise \(its model\.layers\.[01]\.\w+.*, without experts\. Set"):
        add_heads(model, 1)


def test_a_model_that_could_have_experts_and_has_none() -> None:
    """DeepSeek-V3's first layers are dense, and here it has no others."""
    options = {"n_routed_experts": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 2, **_LATENT}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("deepseek_v3", **{**SHAPE, **options}))
    assert len(add_heads(model, 1)) == 1


@pytest.mark.parametrize(
    ("key", "value", "tied"),
    [
        ("modules_to_save", ["lm_head"], False),
        ("trainable_token_indices", {"lm_head": [3]}, False),
        ("trainable_token_indices", [3], True),
        ("target_modules", ["q_proj", "lm_head"], False),
        ("target_modules", ".*(v_proj|lm_head)", False),
    ],
)
def test_an_adapter_that_trains_the_unembedding_is_named(key: str, value: Any, tied: bool) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    adapter = LoraConfig(task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], key: value})
    add_heads(model, 1)
    with pytest.raises(
        ConfigError, match=rf"got a {key} of the adapter that trains lm_head, .* Remove lm_head from {key}, or"
    ):
        find_decoder_parts(get_peft_model(model, adapter))
