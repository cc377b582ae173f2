"""How much goes into one pass, and how a lack of memory is survived: by passes of half as many rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch


logger = logging.getLogger(__name__)

_CPU_ALLOCATOR = ("DefaultCPUAllocator", "memory: you tried to allocate")  # its words on every platform


@dataclass
class BatchLimits:
    """The most `rows` of a pass, and the most `tokens` that their cache has room for; None sets no such limit."""

    rows: int
    tokens: int | None = None

    def rows_of(self, length: int) -> int:
        """How many rows of up to `length` tokens go into one pass: at least one."""
        return self.rows if self.tokens is None else max(1, min(self.rows, self.tokens // length))

    def back_off(self, error: RuntimeError, rows: int, length: int) -> bool:
        """Go on with half the rows, where memory ran out in passes of `rows` rows of up to `length` tokens.

        Returns:
            Whether there is a way on: not where the error is another, or one row is too much.
        """
        if rows < 2 or not is_out_of_memory(error):
            return False
        self.rows = rows // 2
        self.tokens = self.rows * length
        logger.warning(
            "out of memory with %d rows of up to %d tokens in a pass: going on with %d rows, what was finished is "
            "kept. generation_max_batch_tokens: %d starts there",
            rows, length, self.rows, self.tokens,
        )  # fmt: skip
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator had no more memory: that of a device, or that of the CPU, which has no type of its own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and all(words in str(error) for words in _CPU_ALLOCATOR)
