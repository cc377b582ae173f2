"""Copying a sequence of symbols. One answer is right, and what follows a forced error can still be right at its place.

    Copy: d a f f b c a e        →        d a f f b c a e

Few kinds of symbols make the place in the sequence hard to tell from what stands around it.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from .procedural import Options, Procedural, Scores, generator, integer_option


@dataclass(frozen=True)
class CopyingOptions(Options):
    num_item_types: int = integer_option(6, 2, 26, "kinds of symbols, the letters from a on")
    min_length: int = integer_option(18, 1, 200, "fewest symbols of a sequence")
    max_length: int = integer_option(26, 1, 200, "most symbols of a sequence")

    def conflicts(self) -> list[str]:
        if self.min_length <= self.max_length:
            return []
        return [f"min_length is {self.min_length}: it must not be larger than max_length, {self.max_length}"]


def _generate_problem(rng: random.Random, options: CopyingOptions) -> tuple[str, str, str]:
    length = rng.randint(options.min_length, options.max_length)
    sequence = " ".join(rng.choices(string.ascii_lowercase[: options.num_item_types], k=length))
    return sequence, f"Copy: {sequence}", sequence


def score(prompt: str, reference: str, answer: str) -> Scores:
    """`correct`: every symbol is right; `position_accuracy`: the share of right ones, of as many places as the longer
    has."""
    wanted, given = reference.split(), answer.split()
    right = sum(a == b for a, b in zip(given, wanted, strict=False))
    return {"correct": float(given == wanted), "position_accuracy": right / max(len(given), len(wanted), 1)}


TASK = Procedural(
    name="copying",
    options=CopyingOptions,
    generate=generator("copying", _generate_problem),
    score=score,
    measures={"correct": "correct", "position_accuracy": "position accuracy"},
)
