"""Draw tokens from logits with keyed noise, after TRL's usual sampling options."""

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
from .options import DrawOptions


_SCORES = 2**24  # logits that are sampled from at a time: the noise and the sampling options take several words each


class KeyedSampler:
    """Maps (logits, example key, position) to a token; the same three always give the same token."""

    def __init__(self, options: DrawOptions, device: torch.device) -> None:
        self._greedy = options.temperature == 0
        self._processors = _processors(options)
        self._suppressed = torch.tensor(sorted(set(options.suppress_tokens)), dtype=torch.int64, device=device)

    def __call__(self, logits: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        """Draw one token for each row.

        Args:
            logits: `[n, vocab]`, any floating type; computed in float32.
            keys: `[n, 2]`, from `example_keys`.
            positions: `[n]`, answer positions counted from 0.

        Returns:
            `[n]`, int64.
        """
        rows = max(1, _SCORES // logits.shape[1])
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


def _processors(options: DrawOptions) -> LogitsProcessorList:
    """The transformers processors, in the order in which `generate` applies them."""
    processors = LogitsProcessorList()
    if options.temperature not in (0, 1):
        processors.append(TemperatureLogitsWarper(float(options.temperature)))
    if options.top_k:
        processors.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1:
        processors.append(TopPLogitsWarper(options.top_p))
    if options.min_p:
        processors.append(MinPLogitsWarper(options.min_p))
    return processors
