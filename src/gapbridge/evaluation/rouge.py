"""ROUGE of summaries, with the package rouge-score 0.1.2 (Lin 2004; extra `eval`).

The texts go to the package untouched for ROUGE-1, ROUGE-2 and ROUGE-L. ROUGE-Lsum compares sentence with sentence and
takes every line for a sentence: a text that has line breaks keeps them, a text without one is split by
`sentence_lines` first. Every score is the package's own F1, to the last digit.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError, DataError


METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# Behind . ! or ?, and the quotes and brackets that close there, where white space follows.
_SENTENCE_END = re.compile(r"""([.!?]["'”’)\]]*)\s+""")


@dataclass(frozen=True)
class RougeScores:
    """F1 in [0, 1] of one summary, and the lengths of answer and reference in white-space words."""

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float
    answer_words: int
    reference_words: int


def sentence_lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum needs it.

    A text that has a line break between its words keeps its lines. Any other is broken wherever white space follows a
    full stop, an exclamation mark or a question mark; abbreviations are not known, so "Dr. No" is broken too.
    """
    text = text.strip()
    return text if "\n" in text else _SENTENCE_END.sub(r"\1\n", text)


def score_rouge(answers: Sequence[str], references: Sequence[str], *, use_stemmer: bool = True) -> list[RougeScores]:
    """ROUGE-1, -2, -L and -Lsum F1 of each answer, with the Porter stemmer unless `use_stemmer` is off.

    Raises:
        ConfigError: rouge-score is not installed.
        DataError: the lengths differ, or references have no word; all such rows are named, counted from 0.
    """
    if importlib.util.find_spec("rouge_score") is None:
        raise ConfigError('ROUGE needs the package rouge-score: pip install "gapbridge[eval]"')
    from rouge_score.rouge_scorer import RougeScorer

    if len(answers) != len(references):
        raise DataError(f"ROUGE: {len(answers)} answers and {len(references)} references: give one of each an example")
    faults = [
        f"row {row}: the reference {reference!r} has no word: no summary can be compared with it; remove the row"
        for row, reference in enumerate(references)
        if not reference.split()
    ]
    if faults:
        raise DataError(faults)
    whole = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=use_stemmer)
    by_line = RougeScorer(["rougeLsum"], use_stemmer=use_stemmer)
    scores = []
    for answer, reference in zip(answers, references, strict=True):
        parts = {
            **whole.score(reference, answer),
            **by_line.score(sentence_lines(reference), sentence_lines(answer)),
        }
        values = {metric: float(parts[metric].fmeasure) for metric in METRICS}
        scores.append(RougeScores(**values, answer_words=len(answer.split()), reference_words=len(reference.split())))
    return scores
