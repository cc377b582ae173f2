"""The grade of a worked answer: the data set's exact match and math-verify side by side, and what follows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError, describe
from .answer_extraction import bare_answer, marked_answer
from .asserted_text import asserted, own_parts
from .math import decided_without_parser, final_value, same_answer
from .math_verify_pool import MAX_ANSWER_LENGTH, TIMEOUT_SECONDS, Verification, verify_answers
from .units import quantity, split_unit


# `$5 a day`, not `$5x$`: words follow before the next sign, or none does.
_CURRENCY = re.compile(r"\\?\$(?=\d)(?=[^$\n]*$|\d(?:[\d,.]*\d)?[^$\n\d]*?\s[a-zA-Z]{3})", re.M)


@dataclass(frozen=True)
class Grade:
    """One answer's grade.

    correct: the grade. Two numbers are compared by value, and words, bases, times and the like as they stand; other
        answers are right if either judge says so. Without a mark the last line is the answer if it is nothing else;
        else math-verify must find the reference's value in what the text asserts.
    exact: the marked answers are equal, see `gapbridge.evaluation.math`.
    verified: math-verify says they are equal.
    marked, parsed: whether there is a marked answer, and whether math-verify found one.
    timed_out: math-verify was stopped; `verified` is False then.
    """

    correct: bool
    exact: bool
    verified: bool
    marked: bool
    parsed: bool
    timed_out: bool


def grade_answers(
    answers: Sequence[str], references: Sequence[str], *, timeout: float = TIMEOUT_SECONDS, workers: int = 2
) -> list[Grade]:
    """Grade each worked answer against the data set's own (GSM8K's ends with `#### 18`, MATH's has a box).

    Args:
        timeout: seconds that math-verify may take for one answer.
        workers: its processes.

    Raises:
        DataError: references are empty; all such rows are named, counted from 0.
        ConfigError: math-verify is not installed.
    """
    errors = [
        describe(f"row {row}", f"the empty reference {reference!r}", "an answer to compare with", "Repair the row")
        for row, reference in enumerate(references)
        if not reference.strip()
    ]
    if errors:
        raise DataError(errors)
    # A reference without a mark is the final answer itself (data sets with a column for it).
    marked = [marked_answer(answer) for answer in answers]
    given = [bare_answer(answer) if mark is None else mark for mark, answer in zip(marked, answers, strict=True)]
    marks = [marked_answer(reference) for reference in references]
    wanted = [bare_answer(text) if mark is None else mark for mark, text in zip(marks, references, strict=True)]
    pairs = list(zip(given, answers, wanted, references, strict=True))
    verdicts = verify_answers(
        [_expression(mark, _said(answer) if mark is None else "", other) for mark, answer, other, _ in pairs],
        [_expression(mark, reference, other) for other, _, mark, reference in pairs],
        timeout=timeout,
        workers=workers,
    )
    return [
        _grade(mark is not None, answer, reference.strip() if other is None else other, verdict)
        for mark, (answer, _, other, reference), verdict in zip(marked, pairs, verdicts, strict=True)
    ]


def _grade(marked: bool, given: str | None, wanted: str, verdict: Verification) -> Grade:
    same = given is not None and same_answer(given, wanted)
    return Grade(
        correct=same if given is not None and decided_without_parser(given, wanted) else same or verdict.correct,
        exact=marked and same,
        verified=verdict.correct,
        marked=marked,
        parsed=verdict.parsed,
        timed_out=verdict.timed_out,
    )


def _said(answer: str) -> str:
    """What math-verify may look for a value in, where nothing is marked: what the model asserts in its own turn."""
    return asserted("".join(own_parts(answer)[:1])[-MAX_ANSWER_LENGTH:])


def _expression(final: str | None, text: str, other: str | None) -> str:
    """What math-verify reads: a final answer as LaTeX in a box, a plain number as it is, else the text without
    currency signs, between which math-verify takes prose for LaTeX."""
    if final is None:
        return _CURRENCY.sub("", text[-MAX_ANSWER_LENGTH:])
    expression = final_value(final, other or "")
    if quantity(expression) is not None and not any(sign in expression for sign in "\\^{"):
        return expression
    expression = split_unit(expression)[0]
    # Braces keep math-verify from taking the end of `2ab` for a unit.
    expression = re.sub(r"(?<=[\d}\s])((?!i$)[a-zA-Z]+)$", r"{\1}", expression)
    expression = re.sub(r"(?<=\d)i(?![a-zA-Z])", " i", expression)  # else it knows no complex number
    return f"\\boxed{{{expression}}}"
