"""How long the rows are that TRL packs, from the lengths of those that go in: for budgets and plans.

TRL packs by best fit decreasing (Ding et al. 2024, arXiv 2404.10830), or one row after the other (`wrapped`), each
block of rows by itself.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
from trl import SFTConfig


_BLOCK = 1000  # rows that `Dataset.map` hands on at once


def is_packed(args: Any) -> bool:
    """Whether the rows of a training step are packed ones. Trainers of pairs have no such key."""
    return isinstance(args, SFTConfig) and args.packing


def packed_lengths(lengths: Sequence[int], args: Any) -> list[int]:
    """The tokens of each row that is trained: those of packed rows with `packing: true`, else `lengths` themselves.

    Args:
        lengths: tokens of each row, in the order of the data.
    """
    if not is_packed(args):
        return list(lengths)
    ordered = np.asarray(lengths)
    if args.shuffle_dataset:  # which rows share a block
        ordered = ordered[np.random.default_rng(args.seed).permutation(len(ordered))]
    packed: list[int] = []
    for part in np.array_split(ordered, min(args.dataset_num_proc or 1, max(1, len(ordered)))):
        for start in range(0, len(part), _BLOCK):
            block = part[start : start + _BLOCK].tolist()
            if args.packing_strategy == "wrapped":
                packed += _pieces(sum(block), args.max_length)
            else:  # what is longer than a packed row comes here with `bfd_split` alone
                packed += _best_fit(
                    [piece for length in block for piece in _pieces(length, args.max_length)], args.max_length
                )
    return packed


def _pieces(length: int, room: int) -> list[int]:
    full, rest = divmod(length, room)
    return [room] * full + [rest] * (rest > 0)


def _best_fit(lengths: Sequence[int], room: int) -> list[int]:
    """The longest first, each into the fullest row that has room for it."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        at = bisect_left(spaces, length)
        space = spaces.pop(at) if at < len(spaces) else room
        insort(spaces, space - length)
    return [room - space for space in spaces]
