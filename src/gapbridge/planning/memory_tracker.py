"""How many bytes the tensors that are alive take, at most: for real tensors, and for fake ones that take none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):
    """Counts the storages that operations see while it is entered: `now`, and `peak`, the most so far.

    A storage counts once, from the operation that makes it, or first takes it, until it is freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def track(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) in self._seen:
                continue
            size = storage.nbytes()
            self._seen.add(id(storage))
            self.now += size
            weakref.finalize(storage, self._freed, id(storage), size)
        self.peak = max(self.peak, self.now)

    def _freed(self, storage: int, size: int) -> None:
        self._seen.discard(storage)
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.track(leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor))
        return result
