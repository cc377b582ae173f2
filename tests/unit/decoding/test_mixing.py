"""Mixed contexts: the fast engine gives what the sequential definition gives, whatever the schedule."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from conftest import VOCAB, sharpen, tiny_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from gapbridge import ConfigError, DataError, mix_contexts, mix_contexts_sequential
from gapbridge.decoding import mixing
from gapbridge.decoding.forward import SlotRunner, slot_cache_unsupported_reason


SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "num_key_value_heads": 2,
}

# test_architectures.py has all the others.
CACHED: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_llama(sharpness=1),
    "llama-eager": lambda: tiny_llama(sharpness=1, attn_implementation="eager"),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=12)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    ),
}
UNCACHED: dict[str, Callable[[], PreTrainedModel]] = {
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4, use_mambapy=False)
    ),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4)),
}


def ragged(count: int = 24, seed: int = 0) -> tuple[list[list[int]], list[list[int]], list[int]]:
    rng = random.Random(seed)
    prompts = [[rng.randrange(VOCAB) for _ in range(rng.randint(1, 20))] for _ in range(count)]
    references = [[rng.randrange(VOCAB) for _ in range(rng.randint(1, 40))] for _ in range(count)]
    return prompts, references, list(range(count))


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", [*CACHED, *UNCACHED])
def test_fast_equals_sequential(name: str, beta: float) -> None:
    torch.manual_seed(0)
    model = sharpen({**CACHED, **UNCACHED}[name](), 3.0)
    prompts, references, ids = ragged()
    options = {"ids": ids, "mixture_coefficient": beta, "seed": 5}
    fast = mix_contexts(model, prompts, references, **options, batch_size=7, verify_window=6)
    assert fast == mix_contexts_sequential(model, prompts, references, **options)
    assert (slot_cache_unsupported_reason(model) is None) == (name in CACHED)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}]
)
def test_fast_equals_sequential_with_sampling_options(llama: LlamaForCausalLM, options: dict[str, float]) -> None:
    prompts, references, ids = ragged()
    options = {**options, "ids": ids, "mixture_coefficient": 0.5, "suppress_tokens": [1, 2, 3]}
    fast = mix_contexts(llama, prompts, references, **options)
    assert fast == mix_contexts_sequential(llama, prompts, references, **options)
    for context, reference in zip(fast, references, strict=True):
        sampled = [token for token, coin in zip(context.tokens, context.sampled, strict=True) if coin]
        assert not {1, 2, 3} & set(sampled)
        assert len(context.tokens) == len(context.sampled) == len(reference)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9),
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=14),
        ),
        min_size=1,
        max_size=6,
    ),
    beta=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    verify_window=st.integers(1, 20),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_any_schedule_gives_the_definition(
    llama: LlamaForCausalLM,
    rows: list[tuple[list[int], list[int]]],
    beta: float,
    verify_window: int,
    batch_size: int,
    seed: int,
) -> None:
    prompts, references = [list(row) for row in zip(*rows, strict=True)]
    options = {"ids": [f"row-{i}" for i in range(len(rows))], "mixture_coefficient": beta, "seed": seed}
    fast = mix_contexts(llama, prompts, references, **options, verify_window=verify_window, batch_size=batch_size)
    assert fast == mix_contexts_sequential(llama, prompts, references, **options)
    for context, reference in zip(fast, references, strict=True):
        assert context.tokens[-1] == reference[-1] and not context.sampled[-1]
        remaining = [t == r for t, r, coin in zip(context.tokens, reference, context.sampled, strict=True) if not coin]
        assert all(remaining)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_no_coin_falls_on_fixed_positions(name: str) -> None:
    """With and without the cache; what is not fixed keeps its coins, and a row may be fixed throughout."""
    torch.manual_seed(0)
    model = sharpen({**CACHED, **UNCACHED}[name](), 3.0)
    prompts, references, ids = ragged(12)
    rng = random.Random(2)
    fixed = [[rng.random() < 0.5 for _ in y] for y in references]
    fixed[3] = [True] * len(references[3])
    options = {"ids": ids, "mixture_coefficient": 0.8, "seed": 1}
    fast = mix_contexts(model, prompts, references, fixed=fixed, batch_size=5, **options)
    assert fast == mix_contexts_sequential(model, prompts, references, fixed=fixed, **options)
    free = mix_contexts(model, prompts, references, **options)
    for context, other, y, fixed_mask in zip(fast, free, references, fixed, strict=True):
        assert context.sampled == [coin and not still for coin, still in zip(other.sampled, fixed_mask, strict=True)]
        assert all(t == r for t, r, still in zip(context.tokens, y, fixed_mask, strict=True) if still)
    assert mix_contexts(model, prompts, references, fixed=[[False] * len(y) for y in references], **options) == free


def test_contexts_do_not_depend_on_batch_or_order(llama: LlamaForCausalLM) -> None:
    prompts, references, ids = ragged(40)
    expected = dict(zip(ids, mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5), strict=True))
    shuffled = random.Random(1).sample(ids, len(ids))
    for batch_size in (1, 3, 64):
        mixed = mix_contexts(
            llama,
            [prompts[i] for i in shuffled],
            [references[i] for i in shuffled],
            ids=shuffled,
            mixture_coefficient=0.5,
            batch_size=batch_size,
        )
        assert dict(zip(shuffled, mixed, strict=True)) == expected


def test_rounds_and_seeds_draw_differently(llama: LlamaForCausalLM) -> None:
    prompts, references, ids = ragged()
    variants = [
        mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5, seed=seed, round_index=index)
        for seed, index in ((0, 0), (1, 0), (0, 1))
    ]
    assert variants[0] != variants[1] and variants[0] != variants[2]


def test_beta_zero_is_the_reference(llama: LlamaForCausalLM) -> None:
    prompts, references, ids = ragged()
    for context, reference in zip(
        mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.0), references, strict=True
    ):
        assert context.tokens == reference and not any(context.sampled)


def test_sampled_tokens_follow_the_models_distribution() -> None:
    """One prompt and reference under many ids: the first sampled token is a draw from π(· | x)."""
    model = tiny_llama(vocab_size=6, sharpness=1.5)
    prompt, reference, count = [1, 2, 3], [4, 5], 4000
    mixed = mix_contexts(
        model, [prompt] * count, [reference] * count, ids=list(range(count)), mixture_coefficient=1.0, batch_size=256
    )
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
    observed = torch.bincount(torch.tensor([context.tokens[0] for context in mixed]), minlength=6)
    assert stats.chisquare(observed.numpy(), expected.numpy() * count).pvalue > 1e-4


def test_reference_as_draft_saves_passes(llama: LlamaForCausalLM) -> None:
    """Where the model agrees with the reference, a row costs a fraction of its length in passes."""
    prompt, length = [3, 1, 4], 32
    with torch.no_grad():
        greedy = llama.generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False, eos_token_id=None)
    reference = greedy[0, len(prompt) :].tolist()
    passes = []
    hook = llama.model.register_forward_pre_hook(lambda *_: passes.append(1))
    mixed = mix_contexts(
        llama, [prompt], [reference], ids=[0], mixture_coefficient=1.0, temperature=0.0, verify_window=16
    )
    hook.remove()
    assert mixed[0].tokens == reference
    probe = 5
    assert len(passes) - probe <= length / 3


def test_model_is_restored(llama: LlamaForCausalLM) -> None:
    llama.train()
    llama.model.layers[0].eval()
    llama.gradient_checkpointing_enable()
    prompts, references, ids = ragged(4)
    mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5)
    assert llama.training and not llama.model.layers[0].training and llama.is_gradient_checkpointing

    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    hook = llama.model.layers[1].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="boom"):
        mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5)
    hook.remove()
    assert llama.training and not llama.model.layers[0].training and torch.is_grad_enabled()


def test_dropout_is_off_while_mixing() -> None:
    prompts, references, ids = ragged(8)
    with_dropout = tiny_llama(attention_dropout=0.5).train()
    expected = mix_contexts(tiny_llama(), prompts, references, ids=ids, mixture_coefficient=0.5)
    assert mix_contexts(with_dropout, prompts, references, ids=ids, mixture_coefficient=0.5) == expected


def test_slot_cache_serves_rows_at_different_positions(llama: LlamaForCausalLM) -> None:
    tokens = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(0))
    runner = SlotRunner(llama, {"full_attention": None})
    cache = runner.new_cache(3, 20)
    everywhere = (torch.arange(3).repeat_interleave(5), torch.arange(5).repeat(3))
    settled = torch.zeros(3, dtype=torch.int64)
    steps = torch.tensor([2, 3, 5])
    with torch.no_grad():
        expected = llama(tokens).logits
        while int(settled.min()) < 20:
            slots = (settled[:, None] + torch.arange(5)).clamp(max=19)
            got = runner.logits(tokens.gather(1, slots), slots, cache, everywhere).view(3, 5, VOCAB)
            torch.testing.assert_close(
                got, expected.gather(1, slots[..., None].expand(-1, -1, VOCAB)), atol=1e-4, rtol=1e-4
            )
            settled = settled + steps


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mixture_coefficient": 1.5}, ConfigError, "mixture_coefficient: got 1.5"),
        ({"mixture_coefficient": -0.1, "verify_window": 0, "batch_size": 0}, ConfigError, "3 errors"),
        ({"temperature": -1.0}, ConfigError, "temperature: got -1.0"),
        ({"top_p": 0.0}, ConfigError, "top_p: got 0.0"),
        ({"ids": ["a", "a"]}, DataError, "expected unique ids"),
        ({"ids": ["a"]}, DataError, "expected one of each"),
        ({"prompts": [[], [1]]}, DataError, "example 'a', prompt: got no token, expected at least one"),
        ({"references": [[1], []]}, DataError, "example 'b', reference: got no token, expected at least one"),
        ({"fixed": [[True]]}, DataError, "arguments: got 2 prompts, 2 references, 2 ids, 1 fixed"),
        ({"fixed": [[True], [True]]}, DataError, "'a', fixed: got 1 values, expected 2"),
        ({"references": [[1], [VOCAB]]}, DataError, "outside the vocabulary"),
    ],
)
@pytest.mark.parametrize("mix", [mix_contexts, mix_contexts_sequential])
def test_bad_arguments_are_refused(mix, change, error, words, llama: LlamaForCausalLM) -> None:
    arguments = {
        "prompts": [[1], [2]], "references": [[1, 2], [3]], "ids": ["a", "b"], "mixture_coefficient": 0.2, **change,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        mix(llama, **arguments)


def test_no_examples_give_no_contexts(llama: LlamaForCausalLM) -> None:
    assert mix_contexts(llama, [], [], ids=[], mixture_coefficient=0.2) == []


def test_progress_counts_every_example(llama: LlamaForCausalLM) -> None:
    prompts, references, ids = ragged(30)
    for beta in (0.0, 0.3):
        finished: list[int] = []
        mix_contexts(
            llama, prompts, references, ids=ids, mixture_coefficient=beta, batch_size=4, on_finished=finished.append
        )
        assert sum(finished) == 30


def test_blocks_are_seamless(llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, references, ids = ragged(30)
    expected = mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5)
    monkeypatch.setattr(mixing, "_BLOCK_ROWS", 7)
    assert mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5, batch_size=3) == expected


def test_modules_without_parameters_do_not_matter(llama: LlamaForCausalLM) -> None:
    llama.add_module("extra", nn.Identity())
    prompts, references, ids = ragged(3)
    assert len(mix_contexts(llama, prompts, references, ids=ids, mixture_coefficient=0.5)) == 3
