"""What of an answer is right behind a forced slip: as in the reference, in the end, and by the oracle.

Every score is a share for each example and place; each example counts the same. Intervals resample examples, all
places of an example together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..answers.intervals import Interval, mean_interval
from ..decoding import Draft
from ..evaluation.edits import edit_distance
from ..evaluation.grading import grade_answers
from ..evaluation.marks import marked_answer
from ..evaluation.verification import missing_packages
from ..examples.example import Example
from .oracle import right_steps, steps_of
from .scoring import IdList
from .slips import Slips


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlipScore:
    """A score behind slips: at each place (None where no example has one there), over the mean of an example's places,
    and that mean by example."""

    at: list[Interval | None]
    mean: Interval
    by_example: dict[str, float]


@dataclass(frozen=True)
class SlipRecovery:
    """What a model recovers behind forced slips.

    source: the model that the slips are drawn from. places: as shares of the reference. examples: how many have a slip
    at each place. capped: how many answers were cut at the length limit, of `answers`.
    tokens_recovered: of the reference's tokens behind the slip, those that stand at their own position.
    edit_recovered: 1 - edit distance / length of the longer, of the tokens behind the slip.
    final_right: answers whose final result is right; None where references have none.
    steps_right: of the steps that begin behind the slip, those that are right; None where there is no oracle.
    """

    source: str
    places: list[float]
    examples: list[int]
    answers: int
    capped: int
    tokens_recovered: SlipScore
    edit_recovered: SlipScore
    final_right: SlipScore | None
    steps_right: SlipScore | None


Cells = Sequence[Sequence[float | None]]  # [examples][places], None where there is no slip or nothing to score


def tokens_recovered(y: IdList, at: int, answer: IdList) -> float:
    """Share of y_t+1 … y_T that the answer has position by position, `at` being t.

    Args:
        y: reference, T ids; it ends behind t.
        answer: the ids that stand behind the slip.
    """
    wanted = y[at + 1 :]
    return sum(a == b for a, b in zip(wanted, answer, strict=False)) / len(wanted)


def edit_recovered(y: IdList, at: int, answer: IdList) -> float:
    """1 - (edit distance of y_t+1 … y_T and the answer) / length of the longer: a word too many costs that word."""
    wanted = y[at + 1 :]
    return 1 - edit_distance(answer, wanted) / max(len(wanted), len(answer))


def recovered(
    score: Callable[[IdList, int, IdList], float],
    examples: Sequence[Example],
    slips: Slips,
    drafts: Sequence[Sequence[Draft | None]],
) -> Cells:
    """`tokens_recovered` or `edit_recovered` of each answer behind a slip; `drafts` are [examples][places]."""
    return [
        [
            score(e.reference, slip.at, draft.tokens) if slip and draft else None
            for slip, draft in zip(slips.drawn[e.id], own, strict=True)
        ]
        for e, own in zip(examples, drafts, strict=True)
    ]


def slip_score(cells: Cells, ids: Sequence[str], *, seed: int = 0) -> SlipScore | None:
    """Means with intervals; None where there is no cell at all."""
    columns = [[value for value in column if value is not None] for column in zip(*cells, strict=True)]
    known = {key: [value for value in row if value is not None] for key, row in zip(ids, cells, strict=True)}
    means = {key: sum(row) / len(row) for key, row in known.items() if row}
    if not means:
        return None
    at = [mean_interval(column, seed=seed) if column else None for column in columns]
    return SlipScore(at, mean_interval([*means.values()], seed=seed), means)


def score_slips(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    slips: Slips,
    drafts: Sequence[Sequence[Draft | None]],
    *,
    seed: int = 0,
) -> SlipRecovery | None:
    """All scores of the answers behind slips; None where no reference has a place for a slip.

    Args:
        drafts: [examples][places], from `answers_behind`.
        seed: of the bootstrap.
    """
    drawn, ids = [slips.drawn[example.id] for example in examples], [example.id for example in examples]
    pairs = [list(zip(own, made, strict=True)) for own, made in zip(drawn, drafts, strict=True)]
    tokens, edits = (
        slip_score(recovered(score, examples, slips, drafts), ids, seed=seed)
        for score in (tokens_recovered, edit_recovered)
    )
    if tokens is None or edits is None:
        return None

    def text(own: IdList) -> str:
        return str(tokenizer.decode(own, skip_special_tokens=True))

    references = [text(example.reference) for example in examples]
    answers = [
        [text([*e.reference[: slip.at], slip.token, *draft.tokens]) if slip and draft else None for slip, draft in row]
        for e, row in zip(examples, pairs, strict=True)
    ]
    lines = [
        [text(e.reference[: slip.at]).lstrip().count("\n") if slip else None for slip in own]
        for e, own in zip(examples, drawn, strict=True)
    ]
    final, steps = _final_right(answers, references, drafts), _steps_right(answers, references, lines)
    made = [draft for own in drafts for draft in own if draft]
    return SlipRecovery(
        source=slips.source,
        places=slips.places,
        examples=[sum(slip is not None for slip in column) for column in zip(*drawn, strict=True)],
        answers=len(made),
        capped=sum(not draft.finished for draft in made),
        tokens_recovered=tokens,
        edit_recovered=edits,
        final_right=slip_score(final, ids, seed=seed) if final else None,
        steps_right=slip_score(steps, ids, seed=seed) if steps else None,
    )


def _final_right(
    answers: Sequence[Sequence[str | None]], references: Sequence[str], drafts: Sequence[Sequence[Draft | None]]
) -> Cells | None:
    """Whether the final result is right; None where a reference marks none. Cut before a mark is wrong."""
    if any(marked_answer(reference) is None for reference in references):
        return None
    if missing_packages():
        logger.warning('final answers behind slips are not graded: pip install "gapbridge[eval]"')
        return None
    places = [(i, at) for i, row in enumerate(answers) for at, answer in enumerate(row) if answer is not None]
    grades = grade_answers([str(answers[i][at]) for i, at in places], [references[i] for i, _ in places])
    cells: list[list[float | None]] = [[None] * len(row) for row in answers]
    for (i, at), grade in zip(places, grades, strict=True):
        draft = drafts[i][at]
        cells[i][at] = float(grade.correct and (grade.marked or bool(draft and draft.finished)))
    return cells


def _steps_right(
    answers: Sequence[Sequence[str | None]], references: Sequence[str], lines: Sequence[Sequence[int | None]]
) -> Cells | None:
    """Of the steps that begin behind the line of the slip, the share that the oracle writes too; None without one."""
    steps = [steps_of(reference) for reference in references]
    cells: list[list[float | None]] = []
    for known, row, own in zip(steps, answers, lines, strict=True):
        if known is None:
            return None
        cells.append([])
        for answer, line in zip(row, own, strict=True):
            behind = [] if answer is None or line is None else right_steps(answer, known)[line + 1 :]
            cells[-1].append(sum(behind) / len(behind) if behind else None)
    return cells
