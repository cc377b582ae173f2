"""Where tokens are sampled in the rows of a training step, and with which noise: a batch has ids and labels alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.special_tokens import (
    UndecodableTokens,
    completion_end,
    never_sampled_mask,
    special_token_ids,
    stop_tokens,
)
from ...decoding.noise import bernoulli_mask, example_keys
from ...training.rows import IGNORE_INDEX


def row_id(ids: Sequence[int]) -> str:
    """What a row is known by in a training step: a hash of its token ids. Equal rows have equal ids."""
    return hashlib.blake2b(",".join(map(str, ids)).encode(), digest_size=16).hexdigest()


class StepSamplingMask(NamedTuple):
    """What a batch of n right-padded rows of L columns samples, on the CPU."""

    sampling_mask: Tensor  # [n, L], bool
    start: Tensor  # [n], the column of answer position 0
    keys: Tensor  # [n, 2], of the noise
    tokens: int  # of the references, how many are trained


class SamplingMasks:
    """Finds the positions on which tokens are sampled, as BASH does: trained tokens of the reference but its last, and
    no special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        self._stops: Collection[int] = frozenset(stop_tokens(tokenizer, model))
        self._fillers = UndecodableTokens(tokenizer, self._stops)
        self._control = frozenset(special_token_ids(tokenizer))

    def step(
        self, input_ids: Tensor, labels: Tensor, lengths: Tensor, mixture_coefficient: float, *, seed: int, step: int
    ) -> StepSamplingMask:
        """The sampling mask of a step.

        Args:
            input_ids, labels: `[n, L]`, reference rows.
            lengths: `[n]`, without padding.
            mixture_coefficient: the probability that a position is sampled.
            step: with the seed and a row's tokens it fixes the row's sampling mask and noise.
        """
        rows = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths.tolist(), strict=True)]
        trained = [[label != IGNORE_INDEX for label in row] for row in labels.tolist()]
        keys = example_keys([row_id(ids) for ids in rows], seed=seed, round_index=step)
        sampling_mask = torch.zeros(input_ids.shape, dtype=torch.bool)
        starts, tokens = [], 0
        for row, ids in enumerate(rows):
            # A row has at least one label. The first one opens the reference, or stands on the first token, which no
            # model predicts.
            start = max(1, trained[row].index(True))
            end = start + self._reference_length(ids[start:], trained[row][start : len(ids)])
            fixed_mask = never_sampled_mask(ids[start:end], trained[row][start:end], self._control)
            flips = bernoulli_mask(keys[row].expand(end - start, 2), torch.arange(end - start), mixture_coefficient)
            sampling_mask[row, start:end] = flips & ~torch.tensor(fixed_mask)
            sampling_mask[row, end - 1] = False  # no label's context
            starts.append(start)
            tokens += sum(trained[row][start:end])
        return StepSamplingMask(sampling_mask, torch.tensor(starts), keys, tokens)

    def _reference_length(self, answer: Sequence[int], trained: Sequence[bool]) -> int:
        """Up to the last stop token, as in `build_examples`; an answer cut to `max_length` is all reference."""
        end = completion_end(answer, self._stops, self._fillers)
        if not end and all(trained):
            end = max((at + 1 for at, token in enumerate(answer) if token in self._stops), default=0)
        return end or len(answer)
