"""Drafts of the compiled decode step: those of the plain one, at one shape, with a way back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from conftest import tiny_llama
from test_architectures import rows, tiny
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import PreTrainedModel

from gapbridge.decoding import generate_completions
from gapbridge.decoding.compiled import CompiledStep, CompiledSteps, fixed_capacity
from gapbridge.errors import ConfigError


LIMITS: dict[str, Any] = {"max_completion_length": 9, "stop_tokens": [0, 5], "batch_size": 3}


def drafts(model: PreTrainedModel, **options: Any) -> Any:
    prompts, _, ids = rows()
    return generate_completions(model, prompts, ids=ids, **{**LIMITS, **options})


@pytest.fixture
def aot_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is traced and made functional as for any compiler, and then runs as it is: no kernel is compiled."""
    monkeypatch.setattr("gapbridge.decoding.compiled.BACKEND", "aot_eager")
    torch.compiler.reset()


@pytest.mark.usefixtures("aot_eager")
@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("llama", 0.0),
        *(pytest.param(name, 1.0, marks=pytest.mark.nightly) for name in ("llama", "mistral, window", "gemma3")),
    ],
)
def test_drafts_are_those_of_plain_passes(
    name: str, temperature: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(name)
    plain = drafts(model, temperature=temperature)
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr("gapbridge.decoding.compiled.BACKEND", counter)
    with caplog.at_level(logging.WARNING, "gapbridge"):
        compiled = drafts(model, temperature=temperature, compile_decoding=True)
    assert compiled == plain and counter.frame_count == 1, "one graph serves all passes"
    assert "not compiled" not in caplog.text
    assert {completion.finished for completion in plain} == {True, False} or temperature == 0


@pytest.mark.usefixtures("aot_eager")
def test_a_step_that_cannot_be_compiled_or_is_wrong_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_llama()
    plain = drafts(model)
    with caplog.at_level(logging.WARNING, "gapbridge"):
        monkeypatch.setattr("gapbridge.decoding.compiled.BACKEND", "no such backend")
        assert drafts(model, compile_decoding=True) == plain
    assert "the decode step is not compiled, because" in caplog.text
    caplog.clear()

    def wrong(function: Any, **_: Any) -> Any:
        return lambda *args: function(*args) + torch.arange(model.config.vocab_size)

    monkeypatch.setattr("torch.compile", wrong)
    with caplog.at_level(logging.WARNING, "gapbridge"):
        assert drafts(model, compile_decoding=True) == plain
    assert "it changes the logits (relative error" in caplog.text


@pytest.mark.nightly  # two graphs
@pytest.mark.usefixtures("aot_eager")
def test_less_memory_than_asked_for_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer rows there is another cache, and so another graph."""
    model = tiny_llama()
    plain, seen, run = drafts(model), [], CompiledStep.logits

    def limited(step: CompiledStep, tokens: Tensor, slots: Tensor) -> Tensor:
        seen.append(step.cache.rows)
        if step.cache.rows > 2:
            raise torch.OutOfMemoryError("no more")
        return run(step, tokens, slots)

    monkeypatch.setattr(CompiledStep, "logits", limited)
    assert drafts(model, compile_decoding=True) == plain
    assert seen[0] == 3 and set(seen[1:]) == {1}


def test_heads_that_propose_are_refused() -> None:
    from gapbridge.decoding.mtp_heads import build_heads
    from gapbridge.decoding.speculative_decoding import SpeculativeStats

    model = tiny_llama()
    with pytest.raises(ConfigError, match="compile_decoding: got true with heads"):
        drafts(model, compile_decoding=True, speculation=SpeculativeStats(build_heads(model, 1)))


@pytest.mark.nightly
def test_compiled_kernels_draw_the_same() -> None:
    """With torch's own compiler, which takes a minute and a C++ compiler on a CPU."""
    torch.compiler.reset()
    model = tiny_llama()
    assert drafts(model, compile_decoding=True) == drafts(model)


def test_capacities_are_few() -> None:
    assert [fixed_capacity(slots) for slots in (1, 64, 65, 300)] == [64, 64, 128, 320]


@pytest.mark.usefixtures("aot_eager")
def test_what_is_compiled_is_kept_for_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counter, steps = tiny_llama(), CompileCounterWithBackend("aot_eager"), CompiledSteps()
    monkeypatch.setattr("gapbridge.decoding.compiled.BACKEND", counter)
    for seed in range(3):
        assert drafts(model, compile_decoding=True, steps=steps, seed=seed) == drafts(model, seed=seed)
    assert counter.frame_count == 1
    assert drafts(model, compile_decoding=True, steps=steps, max_completion_length=70)
    assert counter.frame_count == 2, "longer rows need another cache"
