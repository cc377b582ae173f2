"""Draw tokens from logits with keyed noise, after TRL's usual sampling options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import ConfigError
from .noise import gumbel_noise


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is drawn. A temperature of 0 takes the most likely token.

    `suppress_tokens` are never drawn; the probabilities of the others are rescaled to one.

    Raises:
        ConfigError: a value lies outside its range; all faults are listed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    suppress_tokens: Sequence[int] = field(default=())

    def __post_init__(self) -> None:
        faults = []
        if not self.temperature >= 0:
            faults.append(f"temperature is {self.temperature}: it must be 0 (greedy) or larger")
        if self.top_k < 0:
            faults.append(f"top_k is {self.top_k}: it must be 0 (off) or larger")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p is {self.top_p}: it must lie in (0, 1], 1 meaning off")
        if not 0 <= self.min_p <= 1:
            faults.append(f"min_p is {self.min_p}: it must lie in [0, 1], 0 meaning off")
        if faults:
            raise ConfigError(faults)

    def processors(self) -> LogitsProcessorList:
        """The transformers processors, in the order in which `generate` applies them."""
        processors = LogitsProcessorList()
        if self.temperature not in (0, 1):
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            processors.append(MinPLogitsWarper(self.min_p))
        return processors


class KeyedSampler:
    """Maps (logits, example key, position) to a token; the same three always give the same token."""

    def __init__(self, options: SamplingOptions, device: torch.device) -> None:
        self._greedy = options.temperature == 0
        self._processors = options.processors()
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
        scores = logits.to(torch.float32, copy=True)
        if self._suppressed.numel():
            scores[:, self._suppressed] = float("-inf")
        if self._greedy:
            return scores.argmax(dim=-1)
        scores = self._processors(positions[:, None], scores)
        return scores.add_(gumbel_noise(keys, positions, scores.shape[-1])).argmax(dim=-1)
