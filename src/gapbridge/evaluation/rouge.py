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
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, describe


if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

logger = logging.getLogger(__name__)

ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

_MOST_WORDS, _MOST_LINES = 2000, 500  # from a text's start that ROUGE-L and ROUGE-Lsum see
# Behind . ! or ?, and the quotes and brackets that close there, where white space follows.
_SENTENCE_END = re.compile(r"""([.!?]["'”’)\]]*)\s+""")
# Scripts that put no space between words.
_UNSPACED = r"[\p{Thai}\p{Lao}\p{Tibetan}\p{Myanmar}\p{Khmer}\p{Hiragana}\p{Katakana}\p{Han}]"
_MOST_DROPPED = 0.1  # of a reference's letters and digits


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


class UnicodeTokenizer:
    """Runs of letters, their marks and digits; in scripts without spaces between words each character is a token.

    Case and forms of one character (NFKC) make no difference. With a stemmer, words in ASCII are stemmed as
    rouge-score stems them.
    """

    def __init__(self, stemmer: PorterStemmer | None) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        words = _unicode_words().findall(unicodedata.normalize("NFKC", text).casefold())
        if self._stemmer is None:
            return words
        return [self._stemmer.stem(word) if word.isascii() and len(word) > 3 else word for word in words]


@cache
def _unicode_words() -> Any:
    import regex  # comes with nltk, and knows scripts and marks

    return regex.compile(rf"(?V1)[{_UNSPACED}&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]+")


def is_dropped(reference: str) -> bool:
    """Whether rouge-score's tokenizer, which keeps a-z and 0-9, drops more than a tenth of the letters and digits."""
    signs = [sign for sign in reference.lower() if sign.isalnum()]
    return sum(not sign.isascii() for sign in signs) > _MOST_DROPPED * len(signs)


class _TokenizedText:
    """Text whose tokens are known already, with spaces between them."""

    tokenize = staticmethod(str.split)


def score_rouge(answers: Sequence[str], references: Sequence[str]) -> list[RougeScores]:
    """ROUGE-1, -2, -L and -Lsum F1 of each answer, with the Porter stemmer.

    ROUGE-L and ROUGE-Lsum see the first 2,000 words and 500 lines of a text, since their cost is the product of both
    lengths.

    Raises:
        ConfigError: rouge-score is not installed.
        DataError: references have no word; all such rows are named, counted from 0.
    """
    if importlib.util.find_spec("rouge_score") is None:
        raise ConfigError("ROUGE", "no package rouge-score", "an installed package", "Install `gapbridge[eval]`")
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizers = {False: DefaultTokenizer(use_stemmer=True), True: UnicodeTokenizer(PorterStemmer())}
    dropped = [is_dropped(reference) for reference in references]
    errors = [
        describe(f"row {row}", f"the reference {reference[:60]!r} without a word", "a summary", "Remove the row")
        for row, (reference, own) in enumerate(zip(references, dropped, strict=True))
        if not tokenizers[own].tokenize(reference)
    ]
    if errors:
        raise DataError(errors)
    if any(dropped):
        logger.warning(
            "%d of %d references are in scripts that rouge-score's tokenizer drops. Their words are Unicode's.",
            sum(dropped), len(dropped),
        )  # fmt: skip
    grams, sequences = (
        RougeScorer(metrics, tokenizer=_TokenizedText()) for metrics in (["rouge1", "rouge2"], ["rougeL", "rougeLsum"])
    )
    scores, num_cut = [], 0
    for answer, reference, own in zip(answers, references, dropped, strict=True):
        full, cut = [], []
        for text in (reference, answer):
            lines = [tokenizers[own].tokenize(line) for line in sentence_lines(text).split("\n")]
            full.append(_as_text(lines))
            cut.append(_as_text(_beginning(lines)))
        num_cut += sum(a != b for a, b in zip(full, cut, strict=True))
        found = {**grams.score(*full), **sequences.score(*cut)}
        lengths = len(answer.split()), len(reference.split())
        values = {metric: float(score.fmeasure) for metric, score in found.items()}
        scores.append(RougeScores(**values, answer_words=lengths[0], reference_words=lengths[1], unicode_words=own))
    if num_cut:
        logger.warning(
            "%d texts have more than %d words or %d lines. ROUGE-L and ROUGE-Lsum truncate them.",
            num_cut, _MOST_WORDS, _MOST_LINES,
        )  # fmt: skip
    return scores


def _beginning(lines: Sequence[list[str]]) -> list[list[str]]:
    """The first words of a text, line by line."""
    found, room = [], _MOST_WORDS
    for line in [line for line in lines if line][:_MOST_LINES]:
        found.append(line[:room])
        room -= len(found[-1])
    return found


def _as_text(lines: Sequence[list[str]]) -> str:
    return "\n".join(" ".join(line) for line in lines if line)
