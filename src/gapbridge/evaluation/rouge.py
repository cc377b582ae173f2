"""ROUGE of summaries, as the package rouge-score 0.1.2 computes it (Lin 2004; extra `eval`).

The texts are taken untouched for ROUGE-1, ROUGE-2 and ROUGE-L. ROUGE-Lsum compares sentence with sentence and takes
every line for a sentence: a text that has line breaks keeps them, a text without one is split by `sentence_lines`
first. Every score is the package's own F1, to the last digit, but for references in scripts that the package drops:
their words and their answers' are Unicode's.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError, DataError
from .unicode_words import UnicodeTokenizer, is_dropped


logger = logging.getLogger(__name__)

ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

_LONGEST = 20_000  # characters from a text's start that ROUGE-L and ROUGE-Lsum see
_MOST_LINES = 500  # and lines that ROUGE-Lsum sees
# Behind . ! or ?, and the quotes and brackets that close there, where white space follows.
_SENTENCE_END = re.compile(r"""([.!?]["'”’)\]]*)\s+""")


@dataclass(frozen=True)
class RougeScores:
    """F1 in [0, 1] of one summary, the lengths of answer and reference in white-space words, and whether the words
    compared are Unicode's in place of rouge-score's.
    """

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float
    answer_words: int
    reference_words: int
    unicode_words: bool = False


def sentence_lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum needs it.

    A text that has a line break between its words keeps its lines. Any other is broken wherever white space follows a
    full stop, an exclamation mark or a question mark; abbreviations are not known, so "Dr. No" is broken too.
    """
    text = text.strip()
    return text if "\n" in text else _SENTENCE_END.sub(r"\1\n", text)


def score_rouge(answers: Sequence[str], references: Sequence[str], *, use_stemmer: bool = True) -> list[RougeScores]:
    """ROUGE-1, -2, -L and -Lsum F1 of each answer, with the Porter stemmer unless `use_stemmer` is off.

    ROUGE-L and ROUGE-Lsum see the first 20,000 characters of a text, and ROUGE-Lsum its first 500 lines.

    Raises:
        ConfigError: rouge-score is not installed.
        DataError: the lengths differ, or references have no word; all such rows are named, counted from 0.
    """
    if importlib.util.find_spec("rouge_score") is None:
        raise ConfigError('ROUGE needs the package rouge-score: pip install "gapbridge[eval]"')
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    if len(answers) != len(references):
        raise DataError(f"ROUGE: {len(answers)} answers and {len(references)} references: give one of each an example")
    tokenizers = {
        False: DefaultTokenizer(use_stemmer),
        True: UnicodeTokenizer(PorterStemmer() if use_stemmer else None),
    }
    dropped = [is_dropped(reference) for reference in references]
    errors = [
        f"row {row}: the reference {reference[:60]!r} has no word: no summary can be compared with it; remove the row"
        for row, (reference, own) in enumerate(zip(references, dropped, strict=True))
        if not tokenizers[own].tokenize(reference)
    ]
    if errors:
        raise DataError(errors)
    if any(dropped):
        logger.warning(
            "%d of %d references are in scripts that rouge-score's tokenizer drops: their words are Unicode's",
            sum(dropped), len(dropped),
        )  # fmt: skip
    scorers = {own: RougeScorer(["rouge1", "rouge2"], tokenizer=tokenizer) for own, tokenizer in tokenizers.items()}
    scores, cut = [], 0
    for answer, reference, own in zip(answers, references, dropped, strict=True):
        parts = scorers[own].score(reference, answer)
        sides = []
        for text in (reference, answer):
            lines = [line for line in sentence_lines(text[:_LONGEST]).split("\n") if line]
            sides.append([tokenizers[own].tokenize(line) for line in lines[:_MOST_LINES]])
            cut += len(text) > _LONGEST or len(lines) > _MOST_LINES
        wanted, given = (tokenizers[own].tokenize(text[:_LONGEST]) for text in (reference, answer))
        values = {metric: float(parts[metric].fmeasure) for metric in ("rouge1", "rouge2")}
        values["rougeL"] = _f1(_common_length(wanted, given), len(wanted), len(given))
        values["rougeLsum"] = _f1(_summary_hits(*sides), *(sum(map(len, side)) for side in sides))
        lengths = len(answer.split()), len(reference.split())
        scores.append(RougeScores(**values, answer_words=lengths[0], reference_words=lengths[1], unicode_words=own))
    if cut:
        logger.warning(
            "%d texts have more than %d characters or %d lines: ROUGE-L and ROUGE-Lsum leave their ends out",
            cut, _LONGEST, _MOST_LINES,
        )  # fmt: skip
    return scores


def _f1(hits: int, wanted: int, given: int) -> float:
    if not hits:
        return 0.0
    precision, recall = hits / given, hits / wanted
    return 2 * precision * recall / (precision + recall)


def _masks(words: Sequence[str]) -> dict[str, int]:
    """For each word the bits of its places."""
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _columns(masks: dict[str, int], length: int, given: Sequence[str]) -> list[int]:
    """The table of longest common subsequences, a column for each given word.

    Bit i of column j is 0 where the value grows from row i to row i + 1 (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited").
    """
    full = (1 << length) - 1
    column, columns = full, []
    for word in given:
        hits = column & masks.get(word, 0)
        column = ((column + hits) | (column - hits)) & full
        columns.append(column)
    return columns


def _common_length(wanted: Sequence[str], given: Sequence[str]) -> int:
    if not wanted or not given:
        return 0
    return len(wanted) - bin(_columns(_masks(wanted), len(wanted), given)[-1]).count("1")


def _summary_hits(wanted: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> int:
    """Words of the wanted sentences that the union of their common subsequences with each given sentence holds, none
    counted more often than either side has it."""
    left = [Counter(word for sentence in side for word in sentence) for side in (wanted, given)]
    distinct = list(dict.fromkeys(map(tuple, given)))
    hits = 0
    for sentence in wanted:
        masks, union = _masks(sentence), set()
        for other in distinct:
            union |= _common_places(sentence, other, masks)
        for place in sorted(union):
            word = sentence[place]
            if left[0][word] > 0 and left[1][word] > 0:
                hits += 1
                left[0][word] -= 1
                left[1][word] -= 1
    return hits


def _common_places(wanted: Sequence[str], given: Sequence[str], masks: dict[str, int]) -> set[int]:
    """The places in `wanted` of the common subsequence that rouge-score reads out of its table."""
    if masks.keys().isdisjoint(given):
        return set()
    columns = _columns(masks, len(wanted), given)
    places = set()
    i, j = len(wanted), len(given)
    while i and j:
        if wanted[i - 1] == given[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif columns[j - 1] >> (i - 1) & 1:
            i -= 1
        else:
            j -= 1
    return places
