"""Scores that credit what follows an error: character error rate and token F1.

An exact match is lost with the first wrong token, whatever comes after it; these two are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


MAX_TEXT_LENGTH = 50_000  # characters or tokens that are aligned
EDIT_METRICS = ("cer", "token_f1")
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class EditScores:
    """Of one answer. cer: the character error rate, edit distance / characters of the reference; 0 is best, and an
    answer much longer than its reference has more than 1. token_f1: in [0, 1], 1 is best.
    """

    cer: float
    token_f1: float


def score_edits(answer: str, reference: str) -> EditScores:
    """Both scores of an answer. White space at the ends is no part of a text.

    An empty reference counts as one character, and has an F1 of 1 with an empty answer alone. Characters after the
    first 50,000 are not aligned: each counts as an error.
    """
    return EditScores(character_error_rate(answer.strip(), reference.strip()), token_f1(answer, reference))


def character_error_rate(answer: str, reference: str) -> float:
    """Levenshtein distance of the characters / number of the reference's characters."""
    return edit_distance([*map(ord, answer)], [*map(ord, reference)]) / max(1, len(reference))


def token_f1(answer: str, reference: str) -> float:
    """F1 of two bags of tokens: a token is a run of letters and digits, or one other sign; case counts, order does
    not."""
    given, wanted = Counter(_TOKEN.findall(answer)), Counter(_TOKEN.findall(reference))
    full = given.total() + wanted.total()
    return 2 * (given & wanted).total() / full if full else 1.0


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """The fewest insertions, deletions and replacements that make one sequence the other (Levenshtein 1966).

    Of both the first 50,000 entries are compared, one after the other's end is one edit each: the result is never
    too small.

    Args:
        first, second: token ids or code points.
    """
    rest = max(len(first) - MAX_TEXT_LENGTH, len(second) - MAX_TEXT_LENGTH, 0)
    a, b = sorted((list(first[:MAX_TEXT_LENGTH]), list(second[:MAX_TEXT_LENGTH])), key=len)
    if not a:
        return len(b) + rest
    # A column of differences as two integers with a bit for each entry of the longer one (Hyyrö 2003, "A bit-vector
    # algorithm for computing Levenshtein and Damerau edit distances").
    places: dict[int, list[int]] = {}
    for place, token in enumerate(b):
        places.setdefault(token, []).append(place)
    masks = {token: _bits(places[token], len(b)) for token in set(a) if token in places}
    full, top = (1 << len(b)) - 1, 1 << (len(b) - 1)
    up, down, distance = full, 0, len(b)
    for token in a:
        same = masks.get(token, 0)
        vertical = same | down
        horizontal = (((same & up) + up) ^ up) | same
        grows, shrinks = down | (full & ~(horizontal | up)), up & horizontal
        distance += bool(grows & top) - bool(shrinks & top)
        grows, shrinks = grows << 1 | 1, shrinks << 1
        up = (shrinks | ~(vertical | grows)) & full
        down = grows & vertical & full
    return distance + rest


def _bits(places: Sequence[int], length: int) -> int:
    marks = np.zeros(length, dtype=np.uint8)
    marks[places] = 1
    return int.from_bytes(np.packbits(marks, bitorder="little").tobytes(), "little")
