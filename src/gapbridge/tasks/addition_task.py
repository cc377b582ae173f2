"""Sums with their running sums: the total is easy after them, and asks for a look ahead before them.

    Add: 7 + 3 + 9        →        7+3=10          or        Total: 19
                                   10+9=19                   7+3=10
                                   Total: 19                 10+9=19

A split is decided by the numbers, in any order: no test sum is a training sum with its terms moved.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate

from .procedural import Options, Procedural, Scores, generator, integer_option
from .worked_solutions import MEASURES, order_option, score_worked, worked


TOTAL_MARK = "Total:"


@dataclass(frozen=True)
class SumsOptions(Options):
    terms: int = integer_option(8, 2, 40, "numbers to add")
    digits: int = integer_option(1, 1, 6, "digits of each number")
    order: str = order_option()


def _generate_problem(rng: random.Random, options: SumsOptions) -> tuple[str, str, str]:
    terms = [rng.randrange(10 ** (options.digits - 1), 10**options.digits) for _ in range(options.terms)]
    running = list(accumulate(terms))
    lines = [f"{before}+{term}={sum_}" for before, term, sum_ in zip(running, terms[1:], running[1:], strict=False)]
    answer = worked(lines, f"{TOTAL_MARK} {running[-1]}", options.order)
    return " ".join(map(str, sorted(terms))), f"Add: {' + '.join(map(str, terms))}", answer


def score(prompt: str, reference: str, answer: str) -> Scores:
    """See `score_worked`."""
    return score_worked(reference, answer, TOTAL_MARK)


TASK = Procedural(
    name="sums", options=SumsOptions, generate=generator("sums", _generate_problem), score=score, measures=MEASURES
)
