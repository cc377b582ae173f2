"""Decisions from a hash of the example id: alike in every process, order and restart."""

from __future__ import annotations

import hashlib


def hash_uniform(example_id: str, seed: int, use: str) -> float:
    """A number in [0, 1) that depends on its arguments only; `use` separates the uses of one example."""
    return _word(f"{seed}/{use}/{example_id}") / 2**64


def hash_fold(example_id: str, folds: int) -> int:
    """Which of so many folds an example belongs to, counted from 0: a hash of its id, whatever the seed of a run."""
    return _word(f"fold/{example_id}") % folds


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
