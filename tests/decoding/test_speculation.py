"""Answers with proposals of future heads are those without, token for token, and take fewer passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import tiny_llama
from shapes import SHAPES, model_of
from transformers import PreTrainedModel

from gapbridge.decoding import draft_answers
from gapbridge.decoding.future_heads import add_heads
from gapbridge.decoding.speculation import Speculation


STOPS = [3, 4, 5]
PROMPTS = [[7 + (3 * row + 5 * at) % 80 for at in range(2 + 4 * row % 13)] for row in range(9)]


def answers(model: PreTrainedModel, speculation: Speculation | None = None, **options: Any) -> list[Any]:
    settings: dict[str, Any] = {"max_completion_length": 17, "stop_tokens": STOPS, "batch_size": 4, **options}
    return draft_answers(model, PROMPTS, ids=list(range(len(PROMPTS))), speculation=speculation, **settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["layer", "linear"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_tokens_as_without(name: str, kind: str, temperature: float) -> None:
    """Ragged prompts, rows that end at stop tokens and at the limit, and more prompts than rows."""
    model = model_of(name)
    plain = answers(model, temperature=temperature)
    heads = add_heads(model, 3, kind)
    for weight in heads.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    speculation = Speculation(heads)
    assert answers(model, speculation, temperature=temperature) == plain
    assert {draft.finished for draft in plain} == {True, False} or name != "llama"
    assert speculation.tokens == sum(len(draft.tokens) for draft in plain)
    assert 0.25 <= speculation.passes_per_token <= 1


def repeating() -> tuple[PreTrainedModel, int]:
    """A model to which all tokens are alike, so that it says one token for ever, and that token."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[0].clone()
        return model, int(model(torch.tensor([[7, 8]])).logits[0, -1].argmax())


@pytest.mark.parametrize("length", [1, 2, 3, 16])
def test_heads_that_are_right_give_all_their_tokens(length: int) -> None:
    """A model that repeats one token, and heads that know it: n tokens a pass, whatever the limit."""
    model, token = repeating()
    speculation = Speculation(add_heads(model, 3, "linear"))
    made = answers(model, speculation, temperature=0.0, max_completion_length=length, stop_tokens=[])
    assert [draft.tokens for draft in made] == [[token] * length] * len(PROMPTS)
    # The prompt's pass gives one token, each further one up to four.
    assert speculation.row_passes == len(PROMPTS) * (1 + -(-(length - 1) // 4))
    assert speculation.accepted == speculation.proposed and (length < 5 or speculation.acceptance == [1.0] * 3)


def test_a_proposal_behind_a_stop_token_counts_for_nothing() -> None:
    """All heads say the stop token: every answer is that token alone."""
    model, token = repeating()
    speculation = Speculation(add_heads(model, 2, "linear"))
    made = answers(model, speculation, temperature=0.0, stop_tokens=[token])
    assert [draft.tokens for draft in made] == [[token]] * len(PROMPTS) and all(draft.finished for draft in made)
    assert speculation.row_passes == speculation.tokens == len(PROMPTS)


def test_rows_that_move_take_their_proposals_along() -> None:
    """With one row a pass nothing moves: the same answers, and as many passes a token."""
    model = model_of("llama")
    heads = add_heads(model, 3, "layer")
    found = []
    for batch_size in (1, 4, 9):
        speculation = Speculation(heads)
        found.append((answers(model, speculation, temperature=1.0, batch_size=batch_size), speculation.row_passes))
    assert found[0] == found[1] == found[2]
