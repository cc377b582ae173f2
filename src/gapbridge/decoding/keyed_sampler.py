"""Sample tokens from logits with keyed noise, after TRL's usual sampling options."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .noise import gumbel_noise
from .sampling_params import SamplingParams


# Logits that are worked on at a time, on a CPU (True) or another device: noise and sampling options take several
# buffers of that size. A CPU's must stay in its cache, and below the size from which an allocator asks the system for
# fresh pages each time: with 2**24 sampling takes up to four times as long (benchmarks/sampling.py).
MAX_SCORES = {True: 2**20, False: 2**24}


def rows_at_a_time(logits: Tensor) -> int:
    """How many rows of `logits` `[n, vocab]` to work on at a time, where the work takes buffers of their size."""
    return max(1, MAX_SCORES[logits.device.type == "cpu"] // logits.shape[1])


class KeyedSampler:
    """Maps (logits, example key, position) to a token; the same three always give the same token."""

    def __init__(self, options: SamplingParams, device: torch.device) -> None:
        self._greedy = options.temperature == 0
        self._processors = LogitsProcessorList()  # in the order in which `generate` applies them
        if options.temperature not in (0, 1):
            self._processors.append(TemperatureLogitsWarper(float(options.temperature)))
        if options.top_k:
            self._processors.append(TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            self._processors.append(TopPLogitsWarper(options.top_p))
        if options.min_p:
            self._processors.append(MinPLogitsWarper(options.min_p))
        self._suppressed = torch.tensor(sorted(set(options.suppress_tokens)), dtype=torch.int64, device=device)

    def __call__(self, logits: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        """Sample one token a row, `[n]`, int64, from `logits` `[n, vocab]` (computed in float32), `keys` `[n, 2]` from
        `example_keys`, and answer `positions` `[n]`, counted from 0."""
        rows = rows_at_a_time(logits)
        parts = zip(logits.split(rows), keys.split(rows), positions.split(rows), strict=True)
        return torch.cat([self._draw(*part) for part in parts])

    def _draw(self, logits: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        scores = logits.to(torch.float32, copy=True)
        if self._suppressed.numel():
            scores[:, self._suppressed] = float("-inf")
        if self._greedy:
            return scores.argmax(dim=-1)
        scores = self._processors(positions[:, None], scores)
        return scores.add_(gumbel_noise(keys, positions, scores.shape[-1])).argmax(dim=-1)
