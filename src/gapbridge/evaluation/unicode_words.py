"""The words that ROUGE compares: rouge-score's own, or Unicode's where that package would drop what is written."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer


# Scripts that put no space between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MOST_DROPPED = 0.1  # of a reference's letters and digits


class UnicodeTokenizer:
    """Runs of letters, their marks and digits; in scripts without spaces between words each character is a token.

    Case and forms of one character (NFKC) make no difference. With a stemmer, words in ASCII are stemmed as
    rouge-score stems them.
    """

    def __init__(self, stemmer: PorterStemmer | None) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        words = _pattern().findall(unicodedata.normalize("NFKC", text).casefold())
        if self._stemmer is None:
            return words
        return [self._stemmer.stem(word) if word.isascii() and len(word) > 3 else word for word in words]


def is_dropped(reference: str) -> bool:
    """Whether rouge-score's tokenizer, which keeps a-z and 0-9, drops more than a tenth of the letters and digits."""
    signs = [sign for sign in reference.lower() if sign.isalnum()]
    return sum(not sign.isascii() for sign in signs) > _MOST_DROPPED * len(signs)


@functools.cache
def _pattern() -> re.Pattern[str]:
    marks = "".join(
        re.escape(chr(code)) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"
    )
    return re.compile(rf"[{_UNSPACED}](?<=\w)[{marks}]*|(?:(?![{_UNSPACED}])[^\W_]|(?![{_UNSPACED}])[{marks}])+")
