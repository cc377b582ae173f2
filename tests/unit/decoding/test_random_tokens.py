"""Random tokens in the place of the model's: the model's share, in the right places, whatever the batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.decoding import MixedContext, SamplingParams
from gapbridge.decoding.random_replacement import other_tokens, replace_with_random_tokens
from gapbridge.errors import ConfigError


VOCAB = 40
CONTROL = {0, 1, 2}
TOKENS = sorted(set(range(VOCAB)) - CONTROL)


@st.composite
def mixed(draw: st.DrawFn) -> tuple[list[int], list[bool], MixedContext]:
    """A reference, where it is fixed, and a context that differs from it where it may."""
    tokens = st.integers(min(CONTROL), VOCAB - 1)
    y = draw(st.lists(tokens, min_size=1, max_size=20))
    fixed = [token in CONTROL or draw(st.booleans()) for token in y]
    free = [at for at in range(len(y) - 1) if not fixed[at]]
    differing = draw(st.sets(st.sampled_from(free))) if free else set()
    context = [(y[at] + 1) % VOCAB if at in differing else y[at] for at in range(len(y))]
    return y, fixed, MixedContext(context, [at in differing for at in range(len(y))])


def make(rows: list[tuple[list[int], list[bool], MixedContext]], ids: list[str], seed: int = 0) -> list[MixedContext]:
    references, fixed, contexts = ([row[part] for row in rows] for part in range(3))
    options = SamplingParams(seed=seed, round_index=1)
    return replace_with_random_tokens(contexts, references, ids=ids, fixed=fixed, tokens=TOKENS, options=options)


@given(rows=st.lists(mixed(), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_as_many_as_the_model_replaced_and_none_that_may_not_be(rows: list, seed: int) -> None:
    ids = [f"id-{at}" for at in range(len(rows))]
    made = make(rows, ids, seed)
    for (y, fixed, context), own in zip(rows, made, strict=True):
        replaced = [at for at in range(len(y)) if own.tokens[at] != y[at]]
        assert len(replaced) == sum(a != b for a, b in zip(context.tokens, y, strict=True))
        assert [at for at, sampled in enumerate(own.sampled) if sampled] == replaced, "none is the reference's token"
        assert not any(fixed[at] for at in replaced) and len(y) - 1 not in replaced
        assert not CONTROL & {own.tokens[at] for at in replaced}
    alone = [make([row], [example_id], seed)[0] for row, example_id in zip(rows, ids, strict=True)]
    assert alone == made == make(rows[::-1], ids[::-1], seed)[::-1], "nothing depends on the batch or its order"


def test_places_and_tokens_are_uniform() -> None:
    length, count = 11, 3000
    y = [5] * length
    context = MixedContext([6, 6, *y[2:]], [True, True, *[False] * (length - 2)])
    made = make([(y, [False] * length, context)] * count, [str(at) for at in range(count)])
    places = Counter(at for own in made for at in range(length) if own.tokens[at] != 5)
    tokens = Counter(token for own in made for token in own.tokens if token != 5)
    assert set(places) == set(range(length - 1)) and set(tokens) == set(range(VOCAB)) - CONTROL - {5}
    for found in (places, tokens):
        expected = 2 * count / len(found)
        chi_square = sum((value - expected) ** 2 / expected for value in found.values())
        freedom = len(found) - 1
        assert chi_square < freedom + 4 * (2 * freedom) ** 0.5, found
    other = make([(y, [False] * length, context)] * 5, [str(at) for at in range(5)], seed=1)
    assert other != made[:5]


@pytest.mark.parametrize("reference", [3, 4, 7, 9])
def test_every_other_token_comes_as_often(reference: int) -> None:
    """Every remainder once, whether the reference's is among them or not."""
    others = [token for token in (3, 4, 7) if token != reference]
    words = torch.arange(len(others))
    assert other_tokens(torch.tensor([3, 4, 7]), words, torch.full_like(words, reference)).tolist() == others


def test_a_single_token_can_stand_for_none() -> None:
    with pytest.raises(ConfigError, match="got 1 token that may be sampled"):
        replace_with_random_tokens([], [], ids=[], fixed=[], tokens=[3], options=SamplingParams())
