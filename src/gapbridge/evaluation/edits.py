"""Scores that credit what follows an error: character error rate and token F1.

An exact match is lost with the first wrong token, whatever comes behind it; these two are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


METRICS = ("cer", "token_f1")
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class EditScores:
    """Of one answer. cer: the character error rate, edit distance / characters of the reference; 0 is best, and an
    answer much longer than its reference has more than 1. token_f1: in [0, 1], 1 is best.
    """

    cer: float
    token_f1: float


def score_edits(answers: Sequence[str], references: Sequence[str]) -> list[EditScores]:
    """Both scores of each answer. White space at the ends is no part of a text.

    An empty reference counts as one character, and has an F1 of 1 with an empty answer alone.
    """
    return [
        EditScores(character_error_rate(answer.strip(), reference.strip()), token_f1(answer, reference))
        for answer, reference in zip(answers, references, strict=True)
    ]


def character_error_rate(answer: str, reference: str) -> float:
    """Levenshtein distance of the characters / number of the reference's characters."""
    return edit_distance([*map(ord, answer)], [*map(ord, reference)]) / max(1, len(reference))


def token_f1(answer: str, reference: str) -> float:
    """F1 of two bags of tokens: a token is a run of letters and digits, or one other sign; case counts, order does
    not."""
    given, wanted = Counter(_TOKEN.findall(answer)), Counter(_TOKEN.findall(reference))
    whole = given.total() + wanted.total()
    return 2 * (given & wanted).total() / whole if whole else 1.0


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """The fewest insertions, deletions and replacements that make one sequence the other (Levenshtein 1966).

    Args:
        first, second: token ids or code points.
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    columns = np.arange(len(b) + 1)
    row = columns.copy()  # row[j]: the distance of what was seen of `a` and the first j of `b`
    for token in a:
        best = np.minimum(row[1:] + 1, row[:-1] + (b != token))
        # Insertions chain along a row: row[j] = min over i ≤ j of best[i] + (j - i).
        row = np.minimum.accumulate(np.concatenate([[row[0] + 1], best]) - columns) + columns
    return int(row[-1])
