"""The rows that mixing works on: padded examples, and the batch of them that a pass carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .forward import SlotRunner
from .memory_limits import BatchLimits
from .noise import bernoulli_mask
from .slot_cache import SlotCache


@dataclass
class DecodingRows:
    """Right-padded examples, longest first. Positions count from the start of the prompt; n rows, L columns.

    `tokens` `[n, L]` starts as prompt ⊕ reference and ends as prompt ⊕ context; `sampling_mask` `[n, L]` marks what is
    sampled; `start` `[n]` is the position of the first answer token; `last` `[n]` the position of the last sampled
    position, 0 where there is none; `keys` `[n, 2]`.
    """

    tokens: Tensor
    sampling_mask: Tensor
    start: Tensor
    last: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> DecodingRows:
        return DecodingRows(*(value.to(device) for value in self.__dict__.values()))

    def take(self, rows: Tensor | slice) -> DecodingRows:
        return DecodingRows(*(value[rows] for value in self.__dict__.values()))

    def concat(self, others: DecodingRows) -> DecodingRows:
        return DecodingRows(*map(torch.cat, zip(self.__dict__.values(), others.__dict__.values(), strict=True)))

    def put(self, rows: Tensor, others: DecodingRows) -> None:
        for value, other in zip(self.__dict__.values(), others.__dict__.values(), strict=True):
            value[rows] = other


def padded_rows(
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    keys: Tensor,
    mixture_coefficient: float,
    fixed: Sequence[Sequence[bool]] | None = None,
) -> DecodingRows:
    """Examples with their sampling masks; the arguments are those of `mix_contexts`, `keys` `[n, 2]`."""
    start = torch.tensor([len(x) for x in prompts])
    end = start + torch.tensor([len(y) for y in references])
    width = int(end.max()) + 1
    tokens = torch.zeros(len(keys), width, dtype=torch.int64)
    for row, (x, y) in enumerate(zip(prompts, references, strict=True)):
        tokens[row, : len(x) + len(y)] = torch.tensor([*x, *y])
    column = torch.arange(width).expand(len(keys), width)
    answer_position = (column - start[:, None]).clamp(min=0)
    sampled = bernoulli_mask(keys[:, None].expand(-1, width, -1), answer_position, mixture_coefficient)
    sampling_mask = sampled & (column >= start[:, None]) & (column < end[:, None] - 1)
    for row, fixed_mask in enumerate(fixed or ()):
        sampling_mask[row, start[row] : end[row]] &= ~torch.tensor(fixed_mask, dtype=torch.bool)
    last = torch.where(sampling_mask, column, 0).amax(dim=1)
    return DecodingRows(tokens, sampling_mask, start, last, keys)


@dataclass
class Batch:
    """The n rows that a pass carries; the first n rows of `cache` are theirs.

    `example` `[n]`, on the CPU, is each row's place in its block, `settled` `[n]` how far it has come. On the CPU as
    well are the block, `examples`, which of them are `left`, bool, and which are `waiting` for a row, longest first.
    """

    rows: DecodingRows
    example: Tensor
    settled: Tensor
    cache: SlotCache
    examples: DecodingRows
    left: Tensor
    waiting: Tensor
    limits: BatchLimits

    @classmethod
    def of(cls, examples: DecodingRows, left: Tensor, runner: SlotRunner, limits: BatchLimits) -> Batch:
        """The first rows of the examples that are `left`, with a cache that has room for any of the others."""
        waiting, device = left.nonzero().flatten(), runner.model.device
        capacity = _capacity(examples, waiting)
        count = min(limits.rows_of(capacity), len(waiting))
        current, waiting = waiting[:count], waiting[count:]
        settled = torch.zeros(count, dtype=torch.int64, device=device)
        cache = runner.new_cache(count, capacity)
        return cls(examples.take(current).to(device), current, settled, cache, examples, left, waiting, limits)

    def refill(self, on_finished: Callable[[int], object]) -> None:
        """Store the finished rows and start others in their places; more of them, once shorter rows are left."""
        finished = (self.settled >= self.rows.last).nonzero().flatten()
        places = finished.cpu()
        self.examples.tokens[self.example[places]] = self.rows.tokens[finished].cpu()
        self.left[self.example[places]] = False
        on_finished(len(places))
        newcomers = self._next(len(places))
        self.example[places[: len(newcomers)]] = newcomers
        self.rows.put(finished[: len(newcomers)], self._of_block(newcomers))
        self.settled[finished[: len(newcomers)]] = 0
        self._leave(places[len(newcomers) :])
        if len(self.waiting):
            self._widen()

    def _next(self, count: int) -> Tensor:
        newcomers, self.waiting = self.waiting[:count], self.waiting[count:]
        return newcomers

    def _of_block(self, newcomers: Tensor) -> DecodingRows:
        return self.examples.take(newcomers).to(self.settled.device)

    def _leave(self, places: Tensor) -> None:
        """Take the rows `places` out: the last rows move into them, so that no pass carries a finished row."""
        remaining = len(self.rows) - len(places)
        target = places[places < remaining]
        tail = torch.arange(remaining, len(self.rows))
        source = tail[~torch.isin(tail, places)]
        self.example[target] = self.example[source]
        source, target = source.to(self.settled.device), target.to(self.settled.device)
        self.cache.move_rows(source, target)
        self.settled[target] = self.settled[source]
        self.rows.put(target, self.rows.take(source))
        kept = slice(remaining)
        self.rows, self.settled, self.example = self.rows.take(kept), self.settled[kept], self.example[kept]

    def _widen(self) -> None:
        """Let more rows in, where those that are left are so short that twice as many of them have room."""
        capacity = _capacity(self.examples, torch.cat([self.example, self.waiting]))
        count = self.limits.rows_of(capacity)
        if count < 2 * self.cache.rows:
            return
        self.cache.resize(min(count, len(self.rows) + len(self.waiting)), capacity)
        newcomers = self._next(count - len(self.rows))
        self.rows = self.rows.concat(self._of_block(newcomers))
        self.settled = torch.cat([self.settled, self.settled.new_zeros(len(newcomers))])
        self.example = torch.cat([self.example, newcomers])


def _capacity(examples: DecodingRows, which: Tensor) -> int:
    """Slots a row: inputs up to position last - 1 are needed; one more takes what a window feeds beyond its row's
    end."""
    return int(examples.last[which].max()) + 1
