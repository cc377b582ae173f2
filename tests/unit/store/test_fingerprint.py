"""The fingerprint of weights: it sees every element, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from gapbridge.store import fingerprint
from gapbridge.store.fingerprint import weights_fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@given(size=st.integers(1, 200), data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_one_bit_changes_the_checksum(dtype: torch.dtype, size: int, data: st.DataObject) -> None:
    tensor = torch.arange(size).to(dtype)
    raw = tensor.clone().view(torch.uint8)
    at, bit = data.draw(st.integers(0, raw.numel() - 1)), data.draw(st.integers(0, 7))
    raw[at] ^= 1 << bit
    assert fingerprint._checksum(tensor) != fingerprint._checksum(raw.view(dtype))


def test_chunks_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_CHUNK", 4)
    first, second = torch.arange(4.0), torch.arange(4.0, 8.0)
    sums = {
        fingerprint._checksum(torch.cat(parts))
        for parts in ([first, second], [second, first], [first, second, second], [first, second[:3]])
    }
    assert len(sums) == 4


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_a_view_has_the_checksum_of_its_copy(start: int) -> None:
    full = torch.randn(3, 11).to(torch.bfloat16)
    part = full[1:, start:]
    assert fingerprint._checksum(part) == fingerprint._checksum(part.clone())
    flat = full.flatten()[start:]
    assert fingerprint._checksum(flat) == fingerprint._checksum(flat.clone())


def test_names_and_types_count_and_copies_do_not(make_base: Callable[[], PreTrainedModel]) -> None:
    model = make_base()
    assert weights_fingerprint(model) == weights_fingerprint(make_base())
    changed = make_base()
    with torch.no_grad():
        changed.get_input_embeddings().weight[-1, -1] += 1e-3
    assert len({weights_fingerprint(part) for part in (model, changed, make_base().to(torch.bfloat16))}) == 3
