"""The oracle of worked answers that have one right line for each step, as the procedural word problems have.

Whatever stands in the lines before, the oracle writes the line that the problem calls for. Within a line that went
wrong it says nothing, until the line ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..intervals import Interval, mean_interval


_STEP = re.compile(r"[^\n:]+: (?P<a>\d+)(?P<op>[+\-*/])(?P<b>\d+)=<<(?P=a)(?P=op)(?P=b)=(?P<c>\d+)>>(?P=c)")


def solution_steps(answer: str) -> list[str] | None:
    """The calculations of a worked word problem, one a step, then its result; None if it is not in that form."""
    *lines, last = answer.strip().split("\n")
    matches = [_STEP.fullmatch(line) for line in lines]
    if not lines or None in matches or not re.fullmatch(r"#### \d+", last):
        return None
    return [line.split(": ", 1)[1] for line in lines] + [last]


def oracle_tokens(y: Sequence[int], y_hat: Sequence[int], line_ends: Collection[int]) -> list[int | None]:
    """The oracle's token at each position of the completion ŷ, given ŷ_<t; None where it says nothing.

    Args:
        y: reference, T ids.
        y_hat: the completion, D ids.
        line_ends: the ids of tokens that end a line.

    Returns:
        D entries.
    """
    lines: list[list[int]] = [[]]
    for token in y:
        lines[-1].append(token)
        if token in line_ends:
            lines.append([])
    if not lines[-1]:
        lines.pop()
    line, offset, intact = 0, 0, True
    found: list[int | None] = []
    for token in y_hat:
        expected = lines[line][offset] if intact and line < len(lines) else None
        found.append(expected)
        intact = intact and token == expected
        offset += 1
        if token in line_ends or (intact and offset == len(lines[line])):
            line, offset, intact = line + 1, 0, True
    return found


def correct_steps(answer: str, reference_steps: Sequence[str]) -> list[bool]:
    """Of each step, whether its calculation is the reference's. Names in front of a calculation are not looked at."""
    lines = [*answer.strip().split("\n"), *[""] * len(reference_steps)]
    return [
        wanted == (line if wanted.startswith("####") else line.split(": ", 1)[-1])
        for wanted, line in zip(reference_steps, lines, strict=False)
    ]


def first_wrong_step(answer: str, reference_steps: Sequence[str]) -> int | None:
    """The first step, from 1, whose calculation is not the reference's; the last number is the result. None if all
    are right.
    """
    right = correct_steps(answer, reference_steps)
    return None if all(right) else right.index(False) + 1


@dataclass(frozen=True)
class WrongSteps:
    """Where completions go wrong first. `steps`: 1, 2, …, as far as some completion is right; the last is the result
    after ####.

    first_wrong: how many completions go wrong first there. hazard: the share that goes wrong there among the
    completions that were right until then; a model that snowballs only after a mistake has a flat hazard.
    """

    steps: list[int]
    first_wrong: list[int]
    hazard: list[Interval]
    all_right: int


def wrong_steps(first: Sequence[int | None], counts: Sequence[int], *, seed: int = 0) -> WrongSteps:
    """Count first wrong steps.

    Args:
        first: [examples], from `first_wrong_step`.
        counts: [examples], the number of steps with the result.
    """
    steps, first_wrong, hazard = [], [], []
    for step in range(1, max(counts) + 1):
        right_so_far = zip(first, counts, strict=True)
        failed = [wrong == step for wrong, count in right_so_far if count >= step and (wrong is None or wrong >= step)]
        if failed:
            steps.append(step)
            first_wrong.append(sum(failed))
            hazard.append(mean_interval(failed, seed=seed))
    return WrongSteps(steps, first_wrong, hazard, sum(step is None for step in first))


@dataclass(frozen=True)
class FinalAnswers:
    """How often the result is right, by the step of the working that is the first wrong one.

    steps: those at which some completion goes wrong first, the result itself left out. completions: how many do.
    right: the share of them whose result is right all the same. num_all_steps_correct, right_if_all_steps_correct: the
        same of the completions whose working
    has no wrong step; None where there is no such completion.
    """

    steps: list[int]
    completions: list[int]
    right: list[Interval]
    num_all_steps_correct: int
    right_if_all_steps_correct: Interval | None


def final_answers(
    first: Sequence[int | None], counts: Sequence[int], right: Sequence[bool], *, seed: int = 0
) -> FinalAnswers:
    """Final answers by the first wrong step.

    Args:
        first, counts: [examples], as for `wrong_steps`.
        right: [examples], whether the result is right.
    """
    by_step: dict[int | None, list[bool]] = {}
    for wrong, count, hit in zip(first, counts, right, strict=True):
        by_step.setdefault(None if wrong == count else wrong, []).append(hit)
    full = by_step.pop(None, [])
    steps = sorted(step for step in by_step if step is not None)
    return FinalAnswers(
        steps,
        [len(by_step[step]) for step in steps],
        [mean_interval(by_step[step], seed=seed) for step in steps],
        len(full),
        mean_interval(full, seed=seed) if full else None,
    )
