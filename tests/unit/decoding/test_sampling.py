"""Tokens are drawn row by row, however many rows are worked on at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gapbridge.decoding import SamplingParams, keyed_sampler
from gapbridge.decoding.keyed_sampler import KeyedSampler, rows_at_a_time
from gapbridge.decoding.noise import example_keys, gumbel_noise


def places(rows: int, vocab: int) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(0))
    return logits, example_keys(list(range(rows)), seed=3, round_index=0), torch.arange(rows) % 5


def tokens(**options: Any) -> list[int]:
    logits, keys, positions = places(13, 40)
    before = logits.clone()
    sampled = KeyedSampler(SamplingParams(**options), torch.device("cpu"))(logits, keys, positions).tolist()
    assert torch.equal(logits, before), "the caller's logits are changed"
    return list(sampled)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 3}, {"suppress_tokens": [1, 7, 39]}],
)
@pytest.mark.parametrize("part", [1, 39, 40, 120, 519, 520])
def test_the_size_of_a_part_changes_nothing(
    part: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From less than a row at a time, which is one, to all of them."""
    full = tokens(**options)
    monkeypatch.setattr(keyed_sampler, "MAX_SCORES", {True: part, False: part})
    assert rows_at_a_time(torch.empty(13, 40)) == max(1, part // 40)
    assert tokens(**options) == full


def test_a_draw_is_the_largest_of_logits_and_noise() -> None:
    logits, keys, positions = places(13, 40)
    assert tokens() == (logits + gumbel_noise(keys, positions, 40)).argmax(dim=1).tolist()
    assert tokens(temperature=0.0) == logits.argmax(dim=1).tolist()


def test_what_is_suppressed_is_not_drawn() -> None:
    sampled = tokens(suppress_tokens=list(range(39)))
    assert sampled == [39] * 13
