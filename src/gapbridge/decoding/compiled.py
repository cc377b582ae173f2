"""The decode step at fixed shapes, compiled: one token for every row of the cache, all of its slots attended to.

A plain pass feeds the rows that are at work and attends to the slots that are filled, so nearly every pass has another
shape. A graph needs one shape. Here all rows are fed and all slots are attended to; a row that is not at work feeds
token 0 at slot 0, which the next prompt in that row overwrites. On a GPU the step runs as a CUDA graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import first_line
from .forward import SlotRunner, logit_tolerance, relative_error
from .memory_limits import is_out_of_memory
from .slot_cache import SlotCache


logger = logging.getLogger(__name__)

BACKEND: str | Callable[..., object] = "inductor"  # of torch.compile
_SLOTS = 64  # a capacity is a multiple of it, so that batches with prompts of about the same length share a graph


def fixed_capacity(slots: int) -> int:
    """The capacity of a compiled step's cache for rows of up to `slots` tokens. What is more is never looked at."""
    return -(-slots // _SLOTS) * _SLOTS


class CompiledSteps:
    """The compiled step of one call, kept for the next: a graph takes seconds to make, and the cache stays with it."""

    def __init__(self) -> None:
        self._kept: CompiledStep | None = None

    def step(self, runner: SlotRunner, rows: int, slots: int) -> CompiledStep:
        """A step for `rows` rows of up to `slots` tokens: the one before, if it serves them."""
        remaining = self._kept
        if remaining is None or not remaining.serves(runner, rows, slots):
            self._kept = None  # the cache before goes first
            remaining = self._kept = CompiledStep(runner, runner.new_cache(rows, fixed_capacity(slots)))
        return remaining


class CompiledStep:
    """A pass of `runner` that feeds one token a row, compiled for the shapes of `cache`.

    The first pass also runs uncompiled. Where compilation fails, or changes the logits by more than rounding does, a
    warning names the reason once, and all passes run uncompiled.
    """

    def __init__(self, runner: SlotRunner, cache: SlotCache) -> None:
        self.cache = cache
        self._runner = runner
        device = runner.model.device
        self._tokens = torch.zeros(cache.rows, 1, dtype=torch.int64, device=device)
        self._slots = torch.zeros(cache.rows, 1, dtype=torch.int64, device=device)
        # As a CUDA graph the step does not wait for Python between its kernels.
        self._mode = "reduce-overhead" if device.type == "cuda" and BACKEND == "inductor" else None
        self._compiled: Callable[[Tensor, Tensor], Tensor] | None = None
        self._checked = False

    def serves(self, runner: SlotRunner, rows: int, slots: int) -> bool:
        """Whether the step feeds the same model, as many rows, of as many tokens or more."""
        same = runner.model is self._runner.model and runner.windows == self._runner.windows
        return same and self.cache.rows == rows and self.cache.capacity >= slots

    def logits(self, tokens: Tensor, slots: Tensor) -> Tensor:
        """Feed `tokens` `[n, 1]` at `slots` `[n, 1]` of the first n rows.

        Returns:
            `[n, vocab]`; the next call may overwrite them.
        """
        active = len(tokens)
        self._tokens[:active], self._slots[:active] = tokens, slots
        self._tokens[active:], self._slots[active:] = 0, 0
        self.cache.place(self._slots, self.cache.capacity)
        if not self._checked:
            self._checked = True
            self._check()
        if self._compiled is None:
            return self._pass(self._tokens, self._slots)[:active]
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(self._tokens, self._slots)[:active]

    def _pass(self, tokens: Tensor, slots: Tensor) -> Tensor:
        inputs = self._runner.inputs(tokens, slots, self.cache, self.cache.capacity)
        logits: Tensor = self._runner.model(**inputs).logits
        return logits[:, -1]

    def _check(self) -> None:
        """Compare the compiled pass with the plain one on the tokens that are to be fed; both write the same keys."""
        expected = self._pass(self._tokens, self._slots)
        reason = None
        try:
            compiled = torch.compile(self._pass, backend=BACKEND, mode=self._mode, dynamic=False)
            for layer in self.cache.layers:  # so that a CUDA graph writes into these tensors, and not into copies
                for states in (layer.keys, layer.values):
                    torch._dynamo.mark_static_address(states, guard=False)
            for _ in range(2):  # a CUDA graph is recorded in the second call
                torch.compiler.cudagraph_mark_step_begin()
                found = compiled(self._tokens, self._slots).clone()
        except (
            RuntimeError,
            AssertionError,
            TypeError,
            ValueError,
            OSError,
        ) as message:  # compilers fail in many ways
            if is_out_of_memory(message):
                raise
            reason = f"{type(message).__name__}: {first_line(message)}"
        else:
            error = relative_error(found, expected)
            allowed = logit_tolerance(self._runner.model)
            if not error <= allowed:
                reason = f"it changes the logits (relative error {error:.2g}, allowed {allowed:g})"
        if reason is None:
            self._compiled = compiled
        else:
            logger.warning("the decode step is not compiled, because %s", reason)
