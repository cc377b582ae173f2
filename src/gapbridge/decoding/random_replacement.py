"""Random tokens in the place of the model's, as many in each example as the model's own samples replaced: a control.

What a model learns from its own tokens is separated from what it learns from any wrong token. The number of replaced
tokens is the model's in every example, so the share is equal in every batch and process; where they stand and what
they are comes from the keyed noise (`noise`), so it is a function of (seed, round, id) and of the contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .mixing import MixedContext
from .noise import example_keys, position_bits, replacement_bits
from .sampling_params import SamplingParams


@dataclass(frozen=True)
class RandomReplacements:
    """What random tokens come from: `tokens` `[m]`, ascending, and how often each is sampled, `weights` `[m]`, whole
    numbers."""

    tokens: Tensor
    weights: Tensor

    @classmethod
    def from_counts(cls, counts: Mapping[int, int]) -> RandomReplacements:
        """Each token as often as it is counted.

        Raises:
            ConfigError: there are fewer than two, so that none could stand for another.
        """
        if len(counts) < 2:
            raise ConfigError(
                f"only {len(counts)} token may be sampled: none differs from the reference's. See suppress_tokens"
            )
        tokens = torch.tensor(sorted(counts), dtype=torch.int64)
        return cls(tokens, torch.tensor([counts[int(token)] for token in tokens], dtype=torch.int64))

    def generate(self, words: Tensor, references: Tensor) -> Tensor:
        """For each random word `[n]` a token `[n]` other than the reference's `[n]`, by the weights of the others."""
        ends = self.weights.cumsum(0)
        at = torch.searchsorted(self.tokens, references).clamp(max=len(self.tokens) - 1)
        own = torch.where(self.tokens[at] == references, self.weights[at], 0)
        place = words % (ends[-1] - own)
        place += torch.where(place >= ends[at] - self.weights[at], own, 0)  # past the reference's own share
        return self.tokens[torch.searchsorted(ends, place, right=True)]


def replace_with_random_tokens(
    contexts: Sequence[MixedContext],
    references: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    fixed: Sequence[Sequence[bool]],
    replacements: RandomReplacements,
    options: SamplingParams,
) -> list[MixedContext]:
    """For each mixed context one with as many random tokens as it has tokens that differ from the reference.

    Args:
        contexts: as `mix_contexts` gives them, with the same `references`, `ids`, `fixed` and `options`.
        replacements: what the tokens are sampled from.

    Returns:
        Contexts whose `sampled` says where a random token stands; none is the reference's, and all other tokens are.
    """
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
        tokens, sampled = reference.clone(), torch.zeros(len(y), dtype=torch.bool)
        tokens[chosen] = replacements.generate(replacement_bits(key.expand(count, 2), chosen), reference[chosen])
        sampled[chosen] = True
        made.append(MixedContext(tokens.tolist(), sampled.tolist()))
    return made
