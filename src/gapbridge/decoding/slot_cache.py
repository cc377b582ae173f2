"""A key/value cache in which the slot of a token is its position in its own row.

The rows of a batch stand at different positions, so there is no common "next" slot to append to. Here every row writes
each token's key and value at slot = position, and a query at position p attends to the slots 0 … p. A token that is
rejected needs no clean-up: the token that takes its place overwrites its slot before any query can look at it. When a
row's example is finished the next example starts at slot 0 of the same row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class SlotLayer(DynamicLayer):
    """One layer's keys and values, `[rows, heads, slots, head_dim]`, written where `SlotCache.place` says."""

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self.slots: Tensor | None = None
        self.first, self.visible = 0, capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        # Zeros, not empty memory: a masked slot still enters a product with weight 0, and 0 · NaN is NaN.
        self.keys = key_states.new_zeros(self.rows, key_states.shape[1], self.capacity, key_states.shape[3])
        self.values = value_states.new_zeros(self.rows, value_states.shape[1], self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Scatter `[n, heads, window, head_dim]` states to their slots; return the slots that a query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None and self.slots is not None
        end = self.first + len(self.slots)
        rows = torch.arange(self.first, end, device=self.slots.device)[:, None]
        self.keys[rows, :, self.slots] = key_states.transpose(1, 2)
        self.values[rows, :, self.slots] = value_states.transpose(1, 2)
        return self.keys[self.first : end, :, : self.visible], self.values[self.first : end, :, : self.visible]

    def move_rows(self, source: Tensor, target: Tensor) -> None:
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            self.keys[target] = self.keys[source]
            self.values[target] = self.values[source]

    def resize(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        if self.is_initialized:
            self.keys, self.values = self._copied(self.keys), self._copied(self.values)

    def _copied(self, states: Tensor | None) -> Tensor:
        assert states is not None
        remaining = states[: self.rows, :, : self.capacity]
        copied = states.new_zeros(self.rows, states.shape[1], self.capacity, states.shape[3])
        copied[: len(remaining), :, : remaining.shape[2]] = remaining
        return copied

    def get_seq_length(self) -> int:
        return 0  # positions are always passed explicitly; nothing may derive them from the cache


class SlotCache(Cache):
    """`SlotLayer`s for a model with `num_layers` attention layers, `rows` rows and `capacity` slots a row."""

    def __init__(self, num_layers: int, rows: int, capacity: int) -> None:
        super().__init__(layers=[SlotLayer(rows, capacity) for _ in range(num_layers)])
        self.rows, self.capacity = rows, capacity

    def place(self, slots: Tensor, visible: int, first: int = 0) -> None:
        """Where the next forward pass writes: rows `first` … `first + n - 1` at `slots` (`[n, window]`).

        Queries see the slots below `visible`.
        """
        for layer in self.layers:
            layer.slots, layer.visible, layer.first = slots, visible, first

    def resize(self, rows: int, capacity: int) -> None:
        """Make it `rows` rows of `capacity` slots; what fits is kept. One layer at a time is in memory twice."""
        self.rows, self.capacity = rows, capacity
        for layer in self.layers:
            layer.resize(rows, capacity)

    def move_rows(self, source: Tensor, target: Tensor) -> None:
        """Copy rows `source` over rows `target` (index tensors)."""
        for layer in self.layers:
            layer.move_rows(source, target)


def slot_mask(slots: Tensor, visible: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """The additive attention mask for queries at `slots` (`[rows, queries]`): `[rows, 1, queries, visible]`.

    A query at slot p sees the slots 0 … p, or with a sliding `window` the last that many of them, its own included.
    """
    keys, queries = torch.arange(visible, device=slots.device), slots[:, None, :, None]
    allowed = keys <= queries
    if window is not None:
        allowed &= keys > queries - window
    return torch.zeros(allowed.shape, dtype=dtype, device=slots.device).masked_fill_(~allowed, torch.finfo(dtype).min)
