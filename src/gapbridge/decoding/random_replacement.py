"""Random tokens in the place of the model's, as many in each example as the model's own samples replaced: a control
that separates what a model learns from its own tokens from what it learns from any wrong token.

Where they stand and what they are comes from the keyed noise (`noise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from .mixing import MixedContext
from .noise import example_keys, position_bits, replacement_bits
from .sampling_params import SamplingParams


def other_tokens(tokens: Tensor, words: Tensor, references: Tensor) -> Tensor:
    """For each of `words` `[n]` one of `tokens` `[m]`, ascending, but the reference's `[n]`; all equally likely."""
    at = torch.searchsorted(tokens, references).clamp(max=len(tokens) - 1)
    own = (tokens[at] == references).to(words.dtype)
    place = words % (len(tokens) - own)
    return tokens[place + own * (place >= at)]  # past the reference's own place


def replace_with_random_tokens(
    contexts: Sequence[MixedContext],
    references: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    fixed: Sequence[Sequence[bool]],
    tokens: Sequence[int],
    options: SamplingParams,
) -> list[MixedContext]:
    """For each mixed context one with as many random tokens as it has tokens that differ from the reference.

    Args:
        contexts: as `mix_contexts` gives them, with the same `references`, `ids`, `fixed` and `options`.
        tokens: what stands for others.

    Returns:
        Contexts whose `sampled` says where a random token stands; none is the reference's, and all other tokens are.

    Raises:
        ConfigError: there are fewer than two tokens, so that none could stand for another.
    """
    if len(set(tokens)) < 2:
        got = f"{len(set(tokens))} token that may be sampled"
        expected = "at least two, so that one differs from the reference"
        raise ConfigError("suppress_tokens", got, expected, "Suppress fewer tokens")
    known = torch.tensor(sorted(set(tokens)), dtype=torch.int64)
    keys = example_keys(ids, seed=options.seed, round_index=options.round_index)
    made = []
    for context, y, fixed_mask, key in zip(contexts, references, fixed, keys, strict=True):
        reference = torch.tensor(y, dtype=torch.int64)  # [T], as all below
        count = int((torch.tensor(context.tokens) != reference).sum())
        positions = torch.arange(len(y))
        order = position_bits(key.expand(len(y), 2), positions)
        order = torch.where(torch.tensor(fixed_mask), 2**32, order)
        order[-1] = 2**32  # the last is no label's context
        chosen = torch.argsort(order, stable=True)[:count]
        own, sampled = reference.clone(), torch.zeros(len(y), dtype=torch.bool)
        own[chosen] = other_tokens(known, replacement_bits(key.expand(count, 2), chosen), reference[chosen])
        sampled[chosen] = True
        made.append(MixedContext(own.tolist(), sampled.tolist()))
    return made
