"""Exact match of final answers in GSM8K's form: the number after the last `####`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


_FINAL = re.compile(r"####\s*(-?[$]?[\d,]*\.?\d+)")


def final_answer(text: str) -> str | None:
    """The number after the last `####`, without thousands separators, dollar sign and trailing zeros after a point."""
    matches = _FINAL.findall(text)
    if not matches:
        return None
    number = matches[-1].replace(",", "").replace("$", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    sign = "-" if number.startswith("-") else ""
    digits = number.lstrip("-").lstrip("0")
    return f"{sign}{digits if digits and not digits.startswith('.') else '0' + digits}"


def is_correct(answer: str, reference: str) -> bool:
    """Whether the final answers agree. An answer without one is wrong."""
    given = final_answer(answer)
    return given is not None and given == final_answer(reference)


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers with a 95 % bootstrap interval over the problems."""

    mean: float
    low: float
    high: float
    count: int
    unparsed: int

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def accuracy(answers: Sequence[str], references: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> Accuracy:
    """Grade `answers` against `references` (worked answers that end with `#### number`)."""
    right = np.array([is_correct(a, r) for a, r in zip(answers, references, strict=True)], dtype=float)
    # Resampling the problems with replacement draws a binomial number of right ones.
    draws = np.random.default_rng(seed).binomial(len(right), right.mean(), size=resamples) / len(right)
    low, high = np.quantile(draws, [0.025, 0.975])
    unparsed = sum(final_answer(answer) is None for answer in answers)
    return Accuracy(float(right.mean()), float(low), float(high), len(right), unparsed)


@dataclass(frozen=True)
class CorrectionTable:
    """What correcting did to the first answers: counts of wrong → right, and so on."""

    wrong_to_right: int
    right_to_wrong: int
    right_to_right: int
    wrong_to_wrong: int


def correction_table(first: Sequence[str], corrected: Sequence[str], references: Sequence[str]) -> CorrectionTable:
    """The 2 × 2 table of first against corrected answers."""
    cells = {(False, True): 0, (True, False): 0, (True, True): 0, (False, False): 0}
    for before, after, reference in zip(first, corrected, references, strict=True):
        cells[is_correct(before, reference), is_correct(after, reference)] += 1
    return CorrectionTable(cells[False, True], cells[True, False], cells[True, True], cells[False, False])
