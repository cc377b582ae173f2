"""Worked answers with a marked result, the working first or the result first, and their oracle.

Working first:            Result first:

    4+3=7                     #### 14
    7*2=14                    4+3=7
    #### 14                   7*2=14
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .procedural import Scores, choice


ORDERS = ("working_first", "answer_first")
MEASURES = {"correct": "correct", "step_accuracy": "step accuracy", "result_consistent": "result consistent"}


def order_option() -> str:
    """Where the result stands, as an option of a task."""
    made: str = choice("working_first", ORDERS, "where the result stands: after the working, or on the first line")
    return made


def worked(lines: Sequence[str], result: str, order: str) -> str:
    """The answer: `lines` of working, and the line `result` before or after them."""
    return "\n".join([result, *lines] if order == "answer_first" else [*lines, result])


def score_worked(reference: str, answer: str, mark: str) -> Scores:
    """Score a worked answer.

    correct: the number in the answer's first line that begins with `mark` is the reference's. Where the reference
        begins with its mark the answer must too: no number of the working is taken for a result.
    step_accuracy: the share of the lines of working that are right at their place, of as many lines as the longer has;
        what stands before a colon (a name) is not looked at.
    result_consistent: the result is the last number of the answer's own working.
    """
    wanted, wanted_working = _parts(reference, mark)
    given, working = _parts(answer, mark)
    if reference.startswith(mark) and not answer.startswith(mark):
        given = None
    right = sum(a == b for a, b in zip(working, wanted_working, strict=False))
    last = re.search(r"(\d+)$", working[-1]) if working else None
    return {
        "correct": float(given is not None and given == wanted),
        "step_accuracy": right / max(len(working), len(wanted_working), 1),
        "result_consistent": float(given is not None and last is not None and int(last[1]) == given),
    }


def _parts(text: str, mark: str) -> tuple[int | None, list[str]]:
    """The marked result, None where there is none, and the lines of working."""
    lines = [line.strip() for line in text.strip().split("\n")]
    marked = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    result = int(marked[0]) if marked and re.fullmatch(r"[0-9]{1,30}", marked[0]) else None
    return result, [line.split(": ", 1)[-1] for line in lines if line and not line.startswith(mark)]
