"""Which passes a model gets, and that they give what its plain forward pass gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import VOCAB, sharpen, tiny_llama
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from test_architectures import LONGEST, SLOTS, WINDOW, rows, tiny
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from gapbridge import DataError
from gapbridge.decoding import generate_completions, mix_contexts, mix_contexts_sequential
from gapbridge.decoding.attention import GROUPED
from gapbridge.decoding.forward import SlotRunner, SlotRunners, forward_logits, forward_logits_at, slot_runner
from gapbridge.decoding.model_state import generation_mode


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def equal_to_the_definition(model: PreTrainedModel) -> bool:
    prompts, references, ids = rows()
    options: dict[str, Any] = {"ids": ids, "mixture_coefficient": 0.5, "batch_size": 3, "verify_window": 6}
    fast = mix_contexts(model, prompts, references, **options)
    return fast == mix_contexts_sequential(model, prompts, references, **options)


def gemma2(**options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Gemma2Config(**SLOTS["gemma2"][1] | options)
    return sharpen(Gemma2ForCausalLM(config), 3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_capped_in_every_precision(dtype: torch.dtype) -> None:
    """This cap moves the logits by less than the rounding of bfloat16 that the comparison must allow."""
    model = gemma2(final_logit_softcapping=2.0, sliding_window=64).to(dtype)
    tokens = torch.randint(VOCAB, (1, 20), generator=torch.Generator().manual_seed(0))
    runner = slot_runner(model, tokens[0].tolist(), 20)
    assert isinstance(runner, SlotRunner)
    assert 0.02 < distance(without_cap(model, tokens), forward_logits(model, tokens)[0]) < 0.05
    column = torch.arange(20)
    logits = runner.logits(tokens, column[None], runner.new_cache(1, 20), (torch.zeros_like(column), column))
    assert distance(logits, forward_logits(model, tokens)[0]) < (1e-5 if dtype == torch.float32 else 0.01)


def without_cap(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    return model.lm_head(model.model(tokens).last_hidden_state)[0]


def distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float((logits.float() - expected.float()).norm() / expected.float().norm())


def test_the_head_works_at_the_chosen_places_only(llama: LlamaForCausalLM) -> None:
    fed: list[torch.Size] = []
    llama.lm_head.register_forward_hook(lambda module, arguments, output: fed.append(output.shape))
    runner = SlotRunner(llama, {"full_attention": None})
    slots = torch.arange(5).expand(3, 5)
    at = (torch.tensor([0, 2]), torch.tensor([4, 1]))
    logits = runner.logits(torch.ones_like(slots), slots, runner.new_cache(3, 5), at)
    assert logits.shape == (2, VOCAB) and fed == [(1, 2, VOCAB)]
    assert not llama.lm_head._forward_pre_hooks


def test_without_a_head_only_the_chosen_columns_are_made(llama: LlamaForCausalLM) -> None:
    """A model that names no output embedding is asked for columns, if it takes them."""
    made: list[torch.Size] = []
    llama.lm_head.register_forward_hook(lambda module, arguments, output: made.append(output.shape))
    tokens = torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))
    at = (torch.tensor([0, 2, 2, 1]), torch.tensor([-1, 4, -6, -1]))
    logits = forward_logits_at(llama, None, at, {"input_ids": tokens})
    assert torch.allclose(logits, llama(tokens).logits[at], atol=1e-5)
    assert made[0] == (3, 3, VOCAB)
    wrapped = torch.nn.DataParallel(llama)
    assert torch.allclose(forward_logits_at(wrapped, None, at, {"input_ids": tokens}), logits, atol=1e-5)


def test_the_check_feeds_its_row_three_times(llama: LlamaForCausalLM) -> None:
    """Once plainly, and once in each of the two rows of the slot cache."""
    fed: list[int] = []
    llama.register_forward_pre_hook(lambda _, inputs, named: fed.append(named["input_ids"].numel()), with_kwargs=True)
    assert isinstance(slot_runner(llama, [1, 2, 3], 96), SlotRunner)
    assert fed == [96, 64, 64, 64]


def test_windows_are_probed_beyond_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that slide otherwise than the configuration says are found out, however short the row in hand."""
    model = tiny("mistral, window")
    assert isinstance(slot_runner(model, [1, 2, 3], LONGEST), SlotRunner)
    model.config.sliding_window = WINDOW - 1
    wrong = slot_runner(model, [1, 2, 3], LONGEST)
    assert isinstance(wrong, SlotRunner), "model and mask read the same configuration"
    monkeypatch.setattr("gapbridge.decoding.forward.layer_windows", lambda *_: {"sliding_attention": WINDOW})
    assert "changes its logits" in str(slot_runner(model, [1, 2, 3], LONGEST))


def test_wrong_slot_cache_is_found_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A model whose numbers the cache changes is served by full passes, and the log says so."""

    class Peeking(LlamaModel):
        def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
            shifted = None if position_ids is None else position_ids * 3  # explicit positions mean something else here
            return super().forward(input_ids, attention_mask, shifted, past_key_values, **kwargs)

    model = tiny_llama()
    model.model.__class__ = Peeking
    assert equal_to_the_definition(model.eval())
    assert "the slot cache changes its logits" in caplog.text


def test_the_check_of_the_slot_cache_serves_later_calls() -> None:
    """A check takes passes over a thousand tokens, seconds with a real model; changed settings are checked."""
    model, checks = tiny_llama().eval(), []
    model.register_forward_pre_hook(
        lambda _, inputs, named: checks.append(named.get("use_cache")) if named.get("use_cache") is False else None,
        with_kwargs=True,
    )
    runners = SlotRunners()
    long, short = [1, 2, 3] * 8, [1, 2, 3]
    given: dict[str, Any] = {"ids": ["a"], "mixture_coefficient": 0.5, "runners": runners}
    first = mix_contexts(model, [long], [long], **given)
    assert mix_contexts(model, [long], [long], **given) == first and len(checks) == 1
    generate_completions(model, [short], ids=["a"], max_completion_length=4, stop_tokens=[], runners=runners)
    assert len(checks) == 1, "shorter rows were checked with the longer ones"
    mix_contexts(model, [long], [long * 2], **given)
    assert len(checks) == 2, "a longer row is another check"
    mix_contexts(model.to(torch.bfloat16), [long], [long], **given)
    assert len(checks) == 3, "another precision is another check"
    mix_contexts(model, [long], [long], ids=["a"], mixture_coefficient=0.5)
    assert len(checks) == 4, "nothing is kept unless the caller keeps it"


@pytest.mark.parametrize(
    ("name", "maskable"), [("llama", GROUPED), ("gpt-neox", "sdpa"), ("gpt-oss", "eager"), ("gemma2", "eager")]
)
def test_attention_implementation_is_switched_and_restored(
    name: str, maskable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(name)
    chosen: list[str] = []
    monkeypatch.setattr(model, "set_attn_implementation", lambda name: chosen.append(name))
    model.config._attn_implementation = "flash_attention_2"  # cannot be set by its name where the kernels are missing
    with generation_mode(model):
        assert chosen == [maskable]
    assert chosen == [maskable, "flash_attention_2"]


@pytest.mark.parametrize(
    ("adapter", "cached"),
    [
        (LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False), True),
        (LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, target_modules=["q_proj", "lm_head"]), True),
        (LoraConfig(task_type="CAUSAL_LM", modules_to_save=["lm_head"]), True),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), False),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), False),
    ],
)
def test_adapters(adapter: PeftConfig, cached: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = get_peft_model(tiny_llama(), adapter).eval()
    assert isinstance(slot_runner(model, [1, 2, 3], LONGEST), SlotRunner) == cached
    assert equal_to_the_definition(model)
    assert ("puts virtual tokens before a row" in caplog.text) == (not cached)


def test_frozen_weights_are_cast_once() -> None:
    """Autocast keeps the casts of what requires a gradient; the base of an adapter was cast in each pass."""
    model, casts = tiny_llama().eval(), []
    prompts, references, ids = rows()
    given: dict[str, Any] = {"ids": ids, "mixture_coefficient": 0.5}
    with torch.autocast("cpu", torch.bfloat16):
        expected = mix_contexts(model, prompts, references, **given)
        model.requires_grad_(False)
        model.register_forward_pre_hook(lambda *_: casts.append(model.lm_head.weight.requires_grad))
        assert mix_contexts(model, prompts, references, **given) == expected
    assert all(casts) and not any(weight.requires_grad for weight in model.parameters())
    casts.clear()
    mix_contexts(model, prompts, references, **given)
    assert not any(casts), "without autocast nothing is cast"


def gpt2(**options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    return sharpen(GPT2LMHeadModel(GPT2Config(**shape, **options)), 3.0)


def opt(**options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return sharpen(OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=32, pad_token_id=0, **options)), 3.0)


def roped(kind: str) -> PreTrainedModel:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 100.0}
    if kind == "longrope":
        factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
        rope |= {**factors, "original_max_position_embeddings": 10, "factor": 4.0}
    else:
        rope["factor"] = 4.0
    positions = 128 if kind == "longrope" else 10
    return tiny_llama(max_position_embeddings=positions, rope_parameters=rope)


LIMITED = {
    "gpt2": lambda: gpt2(n_positions=10),
    "opt": lambda: opt(max_position_embeddings=10),
    "dynamic": lambda: roped("dynamic"),
    "longrope": lambda: roped("longrope"),
    "prompt tuning": lambda: get_peft_model(
        gpt2(n_positions=12), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    ),
}


@pytest.mark.parametrize("name", LIMITED)
def test_rows_beyond_the_models_positions_are_refused_by_name(name: str) -> None:
    model = LIMITED[name]()
    prompt, reference = [1, 2, 3, 4], [5, 6, 7, 8, 9, 10]
    passes: list[object] = []
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(_))

    def mixed(mix: Any, reference: list[int]) -> Any:
        return mix(model, [prompt], [reference], ids=["row-7"], mixture_coefficient=1.0)

    def drafted(length: int) -> Any:
        return generate_completions(model, [prompt], ids=["row-7"], max_completion_length=length, stop_tokens=[])

    for mix in (mix_contexts, mix_contexts_sequential):
        with pytest.raises(DataError, match="'row-7': got 11 positions of prompt and reference, expected at most 10"):
            mixed(mix, [*reference, 11])
    with pytest.raises(
        DataError,
        match="'row-7': got 11 positions of a prompt and an answer of up to 8 tokens, expected at most 10, since",
    ):
        drafted(8)
    assert not passes
    assert mixed(mix_contexts, reference) == mixed(mix_contexts_sequential, reference)
    free = mixed(mix_contexts_sequential, reference)[0].tokens
    assert drafted(7)[0].tokens[: len(free) - 1] == free[:-1]


def test_other_rotary_positions_go_on() -> None:
    """Beyond `max_position_embeddings` a model may be bad, but its tokens are its own."""
    torch.manual_seed(0)
    for rope in ("default", "linear", "yarn"):
        model = tiny_llama(
            max_position_embeddings=10,
            rope_parameters={
                "rope_type": rope, "rope_theta": 100.0, "factor": 2.0, "original_max_position_embeddings": 5,
            },
        )  # fmt: skip
        assert isinstance(model.config, LlamaConfig) and equal_to_the_definition(model)
