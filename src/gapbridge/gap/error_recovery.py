"""What of an answer is right after a forced error: as in the reference, in the end, and by the oracle.

Every score is a share for each example and place; each example counts the same. Intervals resample examples, all
places of an example together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..data.example import Example
from ..decoding import Completion
from ..evaluation.answer_extraction import marked_answer
from ..evaluation.grading import grade_answers
from ..evaluation.math_verify_pool import missing_packages
from ..evaluation.text_metrics import edit_distance
from ..intervals import Interval, mean_interval
from ..tasks.step_oracle import correct_steps, solution_steps
from .forced_errors import ForcedErrorSet
from .logprobs import IdList


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecoveryScore:
    """A score after forced errors: at each place (None where no example has one there), over the mean of an example's
    places, and that mean by example."""

    at: list[Interval | None]
    mean: Interval
    by_example: dict[str, float]


@dataclass(frozen=True)
class ErrorRecovery:
    """What a model recovers after forced errors.

    source: the model that the forced errors are sampled from. places: as shares of the reference. examples: how many
    have a forced error at each place. truncated: how many answers were cut at the length limit, of `answers`.
    tokens_recovered: of the reference's tokens after the forced error, those that stand at their own position.
    edit_recovered: 1 - edit distance / length of the longer, of the tokens after the forced error.
    final_right: answers whose final result is right; None where references have none.
    steps_right: of the steps that begin after the forced error, those that are right; None where there is no oracle.
    """

    source: str
    places: list[float]
    examples: list[int]
    answers: int
    truncated: int
    tokens_recovered: RecoveryScore
    edit_recovered: RecoveryScore
    final_right: RecoveryScore | None
    steps_right: RecoveryScore | None


Cells = Sequence[Sequence[float | None]]  # [examples][places], None where there is no forced error or nothing to score


def tokens_recovered(y: IdList, at: int, answer: IdList) -> float:
    """Share of y_t+1 … y_T that the answer has position by position, `at` being t.

    Args:
        y: reference, T ids; it ends after t.
        answer: the ids that stand after the forced error.
    """
    wanted = y[at + 1 :]
    return sum(a == b for a, b in zip(wanted, answer, strict=False)) / len(wanted)


def edit_recovered(y: IdList, at: int, answer: IdList) -> float:
    """1 - (edit distance of y_t+1 … y_T and the answer) / length of the longer: a word too many costs that word."""
    wanted = y[at + 1 :]
    return 1 - edit_distance(answer, wanted) / max(len(wanted), len(answer))


def recovery_values(
    score: Callable[[IdList, int, IdList], float],
    examples: Sequence[Example],
    forced_errors: ForcedErrorSet,
    completions: Sequence[Sequence[Completion | None]],
) -> Cells:
    """`tokens_recovered` or `edit_recovered` of each answer after a forced error; `completions` are
    [examples][places]."""
    return [
        [
            score(e.completion_ids, error.at, completion.tokens) if error and completion else None
            for error, completion in zip(forced_errors.errors_by_example[e.id], own, strict=True)
        ]
        for e, own in zip(examples, completions, strict=True)
    ]


def recovery_score(cells: Cells, ids: Sequence[str]) -> RecoveryScore | None:
    """Means with intervals; None where there is no cell at all."""
    columns = [[value for value in column if value is not None] for column in zip(*cells, strict=True)]
    known = {key: [value for value in row if value is not None] for key, row in zip(ids, cells, strict=True)}
    means = {key: sum(row) / len(row) for key, row in known.items() if row}
    if not means:
        return None
    at = [mean_interval(column) if column else None for column in columns]
    return RecoveryScore(at, mean_interval([*means.values()]), means)


def score_recovery(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    forced_errors: ForcedErrorSet,
    completions: Sequence[Sequence[Completion | None]],
) -> ErrorRecovery | None:
    """All scores of the answers after forced errors; None where no reference has a place for a forced error.

    Args:
        completions: [examples][places], from `continuations_after_errors`.
    """
    ids = [example.id for example in examples]
    sampled = [forced_errors.errors_by_example[key] for key in ids]
    pairs = [list(zip(own, made, strict=True)) for own, made in zip(sampled, completions, strict=True)]
    tokens, edits = (
        recovery_score(recovery_values(score, examples, forced_errors, completions), ids)
        for score in (tokens_recovered, edit_recovered)
    )
    if tokens is None or edits is None:
        return None

    def text(own: IdList) -> str:
        return str(tokenizer.decode(own, skip_special_tokens=True))

    references = [text(example.completion_ids) for example in examples]
    answers = [
        [
            text([*e.completion_ids[: error.at], error.token, *completion.tokens]) if error and completion else None
            for error, completion in row
        ]
        for e, row in zip(examples, pairs, strict=True)
    ]
    lines = [
        [text(e.completion_ids[: error.at]).lstrip().count("\n") if error else None for error in own]
        for e, own in zip(examples, sampled, strict=True)
    ]
    final, steps = _final_correct(answers, references, completions), _steps_correct(answers, references, lines)
    made = [completion for own in completions for completion in own if completion]
    return ErrorRecovery(
        source=forced_errors.source,
        places=forced_errors.places,
        examples=[sum(error is not None for error in column) for column in zip(*sampled, strict=True)],
        answers=len(made),
        truncated=sum(not completion.finished for completion in made),
        tokens_recovered=tokens,
        edit_recovered=edits,
        final_right=recovery_score(final, ids) if final else None,
        steps_right=recovery_score(steps, ids) if steps else None,
    )


def _final_correct(
    answers: Sequence[Sequence[str | None]],
    references: Sequence[str],
    completions: Sequence[Sequence[Completion | None]],
) -> Cells | None:
    """Whether the final result is right; None where a reference marks none. Cut before a mark is wrong."""
    if any(marked_answer(reference) is None for reference in references):
        return None
    if missing_packages():
        logger.warning('final answers after forced errors are not graded: pip install "gapbridge[eval]"')
        return None
    places = [(i, at) for i, row in enumerate(answers) for at, answer in enumerate(row) if answer is not None]
    grades = grade_answers([str(answers[i][at]) for i, at in places], [references[i] for i, _ in places])
    cells: list[list[float | None]] = [[None] * len(row) for row in answers]
    for (i, at), grade in zip(places, grades, strict=True):
        completion = completions[i][at]
        cells[i][at] = float(grade.correct and (grade.marked or bool(completion and completion.finished)))
    return cells


def _steps_correct(
    answers: Sequence[Sequence[str | None]], references: Sequence[str], lines: Sequence[Sequence[int | None]]
) -> Cells | None:
    """Of the steps that begin after the line of the forced error, the share that the oracle writes too; None without
    one."""
    steps = [solution_steps(reference) for reference in references]
    cells: list[list[float | None]] = []
    for known, row, own in zip(steps, answers, lines, strict=True):
        if known is None:
            return None
        cells.append([])
        for answer, line in zip(row, own, strict=True):
            following = [] if answer is None or line is None else correct_steps(answer, known)[line + 1 :]
            cells[-1].append(sum(following) / len(following) if following else None)
    return cells
