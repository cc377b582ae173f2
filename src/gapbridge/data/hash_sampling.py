"""Decisions from a hash of the example id: alike in every process, order and restart."""

from __future__ import annotations

import hashlib


def hash_uniform(example_id: str, seed: int, use: str) -> float:
    """A number in [0, 1) that depends on its arguments only; `use` separates the uses of one example."""
    digest = hashlib.blake2b(f"{seed}/{use}/{example_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
