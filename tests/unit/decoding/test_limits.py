"""Budgets of tokens and a lack of memory change how many rows go into a pass, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import VOCAB, sharpen, tiny_llama
from test_mixing import UNCACHED
from torch import Tensor, nn
from transformers import PreTrainedModel

from gapbridge.decoding import generate_completions, mix_contexts, mix_contexts_sequential
from gapbridge.decoding.memory_limits import BatchLimits, is_out_of_memory
from gapbridge.decoding.slot_cache import SlotCache, SlotLayer


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"slots": tiny_llama, "whole rows": UNCACHED["bloom"]}


def model_of(way: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return sharpen(MODELS[way](), 3.0)


def mixed_lengths(count: int = 24) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Two long rows among short ones."""
    rng = random.Random(0)
    prompts = [[rng.randrange(VOCAB) for _ in range(40 if i % 12 == 5 else rng.randint(1, 6))] for i in range(count)]
    references = [[rng.randrange(VOCAB) for _ in range(rng.randint(2, 8))] for _ in range(count)]
    return prompts, references, list(range(count))


def contexts(model: PreTrainedModel, **options: Any) -> Any:
    prompts, references, ids = mixed_lengths()
    return mix_contexts(model, prompts, references, ids=ids, mixture_coefficient=0.6, **options)


def drafts(model: PreTrainedModel, **options: Any) -> Any:
    prompts, _, ids = mixed_lengths()
    return generate_completions(model, prompts, ids=ids, max_completion_length=9, stop_tokens=range(20), **options)


@contextmanager
def memory_for(model: PreTrainedModel, rows: int, error: RuntimeError) -> Iterator[list[int]]:
    """Passes of more than `rows` rows run out of memory half way, after the first layers have written to the cache."""
    seen: list[int] = []

    def allocate(_: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        seen.append(arguments[0].shape[0])
        if arguments[0].shape[0] > rows:
            raise error

    hidden = next(module for module in model.modules() if isinstance(module, nn.ModuleList))[-1]
    hook = hidden.register_forward_hook(allocate)
    try:
        yield seen
    finally:
        hook.remove()


def cpu_error() -> RuntimeError:
    """What the CPU's allocator raises, from itself."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


ERRORS = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": cpu_error,
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("draw", [contexts, drafts])
@pytest.mark.parametrize("way", MODELS)
def test_out_of_memory_costs_no_row_and_changes_none(
    way: str, draw: Callable[..., Any], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(way)
    expected = draw(model, batch_size=16)
    finished: list[int] = []
    with memory_for(model, 5, ERRORS[error]()) as seen:
        assert draw(model, batch_size=16, on_finished=finished.append) == expected
    assert sum(finished) == len(expected)
    assert max(seen) > 5 and 2 < max(rows for rows in seen if rows <= 5) <= 5
    assert [record.args[0] for record in caplog.records if "out of memory" in record.message] == [16, 8]
    assert "going on with 4 rows" in caplog.text and "generation_max_batch_tokens:" in caplog.text


@pytest.mark.parametrize("draw", [contexts, drafts])
@pytest.mark.parametrize("way", MODELS)
def test_one_row_too_much_is_an_error(way: str, draw: Callable[..., Any]) -> None:
    model = model_of(way)
    with memory_for(model, 0, ERRORS["device"]()), pytest.raises(torch.OutOfMemoryError):
        draw(model, batch_size=4)


@pytest.mark.parametrize("draw", [contexts, drafts])
def test_other_errors_pass_through(draw: Callable[..., Any]) -> None:
    model = model_of("slots")
    with memory_for(model, 2, RuntimeError("shapes cannot be multiplied")) as seen:
        with pytest.raises(RuntimeError, match="shapes"):
            draw(model, batch_size=16)
        assert seen.count(16) == 1


def test_what_lack_of_memory_is() -> None:
    assert all(is_out_of_memory(make()) for make in ERRORS.values())
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)


@pytest.mark.parametrize("tokens", [1, 60, 130, 220, 10_000])
@pytest.mark.parametrize("draw", [contexts, drafts])
@pytest.mark.parametrize("way", MODELS)
def test_no_budget_changes_a_token(way: str, draw: Callable[..., Any], tokens: int) -> None:
    model = model_of(way)
    assert draw(model, batch_size=16, batch_tokens=tokens) == draw(model, batch_size=7)


def test_mixing_under_a_budget_gives_the_definition() -> None:
    model = model_of("slots")
    prompts, references, ids = mixed_lengths()
    options = {"ids": ids, "mixture_coefficient": 0.6, "seed": 2}
    expected = mix_contexts_sequential(model, prompts, references, **options)
    assert mix_contexts(model, prompts, references, **options, batch_tokens=130, verify_window=4) == expected


@pytest.mark.parametrize("draw", [contexts, drafts])
def test_a_cache_keeps_to_the_budget_and_short_rows_go_many_at_a_time(
    draw: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("slots")
    held: list[tuple[int, int]] = []
    update = SlotLayer.update

    def watched(layer: SlotLayer, *states: Tensor, **others: Any) -> Any:
        found = update(layer, *states, **others)
        assert layer.keys is not None
        held.append((layer.keys.shape[0], layer.keys.shape[2]))
        return found

    monkeypatch.setattr(SlotLayer, "update", watched)
    draw(model, batch_size=16, batch_tokens=130)
    assert max(rows * capacity for rows, capacity in held) <= 130
    assert max(rows for rows, _ in held) >= 8, "once the long rows are done"
    assert (2, max(capacity for _, capacity in held)) in held


def test_a_cache_cut_anew_keeps_what_fits() -> None:
    cache = SlotCache(1, 2, 6)
    cache.place(torch.arange(6).expand(2, 6), 6)
    states = torch.arange(24.0).reshape(2, 1, 6, 2)
    cache.layers[0].update(states, -states)
    cache.resize(4, 3)
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert keys.shape == values.shape == (4, 1, 3, 2)
    assert torch.equal(keys[:2], states[:, :, :3]) and torch.equal(values[:2], -states[:, :, :3])
    assert not keys[2:].any() and not values[2:].any()


def test_rows_of_a_pass() -> None:
    assert BatchLimits(8).rows_of(10_000) == 8
    limits = BatchLimits(8, 100)
    assert [limits.rows_of(length) for length in (10, 13, 50, 101)] == [8, 7, 2, 1]


def test_whole_rows_hold_the_logits_of_a_portion_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("whole rows")
    made: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: made.append(output.shape[1]))
    expected = contexts(model, batch_size=16)
    assert max(made) > 30
    made.clear()
    monkeypatch.setattr("gapbridge.decoding.mixing._LOGITS", 30 * VOCAB)
    assert contexts(model, batch_size=16) == expected
    assert 20 < max(made) <= 30
    made.clear()
    drafts(model, batch_size=16)
    assert max(made) <= 16, "one place a row"
