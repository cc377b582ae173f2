"""The order of an epoch's rows follows from seed and epoch, so that a resumed run goes on with the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import RandomSampler, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler


if TYPE_CHECKING:
    from transformers import Trainer as _Behind
else:
    _Behind = object


class EpochSampler(Sampler[int]):
    """A sampler that generates each epoch's order from a generator of its own.

    transformers generates it from the global one, whose state inside an epoch says nothing of the start of that epoch.

    Args:
        sampler: generates from its `generator`.
        seed: of the order.
        epoch: gives the number of the epoch that begins.
    """

    def __init__(self, sampler: LengthGroupedSampler | RandomSampler, seed: int, epoch: Callable[[], int]) -> None:
        self._sampler, self._seed, self._epoch = sampler, seed, epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + self._epoch())
        return iter(self._sampler)


class OrderedByEpoch(_Behind):
    """Put before a TRL trainer: the samplers that accelerate does not seed by epoch are seeded so."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        sampler = super()._get_train_sampler(*args, **kwargs)
        settings = self.args
        seeded = isinstance(sampler, RandomSampler) and settings.accelerator_config.use_seedable_sampler
        if seeded or not isinstance(sampler, (LengthGroupedSampler, RandomSampler)):
            return sampler
        seed = settings.seed if settings.data_seed is None else settings.data_seed
        # A run that goes on has the state of its checkpoint, whose epoch is a fraction inside an epoch.
        return EpochSampler(sampler, seed, lambda: int(self.state.epoch or 0))
