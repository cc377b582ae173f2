"""How often a pass waits for its device: every read of a tensor's values on the host is a wait."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import VOCAB
from torch import Tensor
from transformers import LlamaForCausalLM

from gapbridge.decoding import batch_state, engine, mixing
from gapbridge.decoding.forward import SlotRunner
from gapbridge.decoding.keyed_sampler import KeyedSampler
from gapbridge.decoding.memory_limits import BatchLimits
from gapbridge.decoding.noise import example_keys
from gapbridge.decoding.sampling_params import SamplingParams


READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "cpu", "nonzero", "numpy")


def mix(model: LlamaForCausalLM, count: int, finished: Callable[[int], object]) -> None:
    rng = random.Random(0)
    prompts = [[rng.randrange(VOCAB) for _ in range(4)] for _ in range(count)]
    references = [[rng.randrange(VOCAB) for _ in range(30 + 2 * i)] for i in range(count)]
    keys = example_keys(range(count), seed=0, round_index=0)
    rows = batch_state.padded_rows(prompts, references, keys, 1.0)
    runner, sampler = SlotRunner(model, {"full_attention": None}), KeyedSampler(SamplingParams(), model.device)
    batch = batch_state.Batch.of(rows, rows.last > 0, runner, BatchLimits(count))
    mixing._mix_batch(runner, batch, sampler, 8, finished)


def draft(model: LlamaForCausalLM, count: int, finished: Callable[[int], object]) -> None:
    rng = random.Random(0)
    prompts = [[rng.randrange(VOCAB) for _ in range(4)] for _ in range(count)]
    keys = example_keys(range(count), seed=0, round_index=0)
    sampler, limits = KeyedSampler(SamplingParams(), model.device), BatchLimits(count)
    generator = engine.BatchedGenerator(model, prompts, keys, sampler, 30, [5], limits, finished)
    generator.with_slots(SlotRunner(model, {"full_attention": None}), list(range(count)))


@pytest.mark.parametrize(("draw", "when_rows_finish"), [(mix, 4), (draft, 8)])
def test_a_pass_waits_once(
    draw: Any, when_rows_finish: int, llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    passes: list[int] = []
    finished: list[int] = []

    def counted(name: str) -> Callable[..., Any]:
        plain = getattr(Tensor, name)

        def read(*arguments: Any, **others: Any) -> Any:
            reads.append(name)
            return plain(*arguments, **others)

        return read

    for name in READS:
        monkeypatch.setattr(Tensor, name, counted(name))
    llama.model.register_forward_pre_hook(lambda *_: passes.append(len(reads)))
    with torch.no_grad():
        draw(llama, 6, finished.append)
    monkeypatch.undo()
    ending = sum(count > 0 for count in finished)  # passes that finish none are counted, too
    assert sum(finished) == 6 and len(passes) > 3 * ending
    between = [after - before for before, after in pairwise(passes)]
    assert sorted(between)[len(between) // 2] == 1, "as a rule"
    assert sum(between) <= len(between) + when_rows_finish * ending
