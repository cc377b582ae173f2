r"""Where the final answer of worked mathematics stands.

It is *marked* in one of the ways that data sets and models use: GSM8K's `#### 18`, MATH's `\boxed{18}`, a line or
phrase that says so (`A: 18`, `**Answer:**` with the answer on the next line, `the answer is 18`).
"""

from __future__ import annotations

import re

from .asserted_text import denies, is_doubted, own_parts
from .latex_normalization import MAX_EXPRESSION_LENGTH, drop_text_macros, is_words, strip_markup
from .units import quantity


_LONGEST_TEXT = 100_000  # characters that are searched, from the end
_STATEMENTS = 100  # that are read, from the end
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,1001})")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
# Between boxes that are one answer: `\boxed{3}$ and $\boxed{-3}`, also `x = \boxed{3}, y = \boxed{4}`.
_BETWEEN = re.compile(
    r"[\s$*]*(?:\\\)|\\\]|,|;|and|or|\\text\s*\{\s*(?:and|or)\s*\}|[\s$*]|\\\(|\\\[|[a-z]\s*=)*", re.I
)
_OF = r"(?:[ \t]+(?:to|of|for)[ \t][^.:\n]{1,80}?)?"  # the answer to the question
_FILLING = (
    r"(?:[ \t]+(?:therefore|thus|then|simply|just|also|indeed|equal[ \t]to|approximately|about|given[ \t]by)\b,?)*"
)
_STATEMENT = re.compile(
    rf"""
    (?:^[ \t>*_\#-]*(?:a|ans)\b[ \t.*_]*:                                 # A: 18
      |^[ \t>*_\#-]*(?:the[ \t]+)?(?:final[ \t]+)?answers?[ \t*_]*$       # a heading
      |<answer>|\banswers?\b{_OF}[ \t*_]*[:=]
      |(?P<phrase>\b(?:answers?|solutions?|correct[ \t](?:option|choice))\b{_OF}[*_]*[ \t]+
       (?:is|are|(?:would|will|should|must)[ \t]+be|equals)\b[ \t]*:?{_FILLING}:?)
    )[\s*_]*
    (?=(?P<answer>\\\[.{{1,300}}?\\\]|\$\$.{{1,300}}?\$\$|[^\n]{{0,1001}}))
    """,
    re.I | re.M | re.S | re.X,
)
# `A: 16 - 3 - 4 = 9` opens an answer where more lines follow.
_FIRST_STEP = re.compile(r"[^a-zA-Z=]*\d[^a-zA-Z=]*=")
_CLAUSE_END = re.compile(
    r"[.!?][*_]*(?=\s+[A-Z(\[])|[*_]*[,;]?\s+(?:because|since|which|so|but|and\s+not|where|when|i\s+hope)\b|,\s+as\b"
    r"|,\s+i\.e\.|\s+\([a-z]{3}|\s+[–—]\s+|;\s|</",
    re.I,
)
_HEADING = re.compile(r"\W*\d+[.):]\s+\S")
_NO_ANSWER = re.compile(r"(?:let|see|step|solution|answer|final|explanation)\b", re.I)
_VERB = re.compile(r"\b(?:is|are|equals)\b")
_CONNECTIVE = re.compile(
    r"^[\s#*_>]*(?:(?:so|thus|therefore|hence|then|and|finally|we (?:get|have|find))\b[,:]?\s*)*", re.I
)


def marked_answer(text: str) -> str | None:
    r"""The answer that is marked, without delimiters and emphasis; None if nothing is marked.

    The first `####` in front of an answer counts, as in GSM8K's own grader, unless there is a box: headings have
    hashes too. Of boxes and statements the last counts, as in MATH's; adjacent boxes are one answer. Only the model's
    own words to the question count, see `own_parts`; a statement that is doubted or denied marks nothing.
    """
    marked = (_marked(part[-_LONGEST_TEXT:]) for part in own_parts(text))
    return next((answer for answer in marked if answer is not None), None)


def bare_answer(text: str) -> str | None:
    """The last line of a text without a mark, if it is or ends in an answer: `18`, `So x = 5.`, `The area is 25π.`

    Words are an answer where they are the whole text.
    """
    lines = "".join(own_parts(text)[:1]).strip().splitlines()
    if not lines or len(lines[-1]) > MAX_EXPRESSION_LENGTH or denies(lines[-1]):
        return None
    line = _CONNECTIVE.sub("", lines[-1], count=1)
    if _is_mathematics(strip_markup(line)):
        return strip_markup(line)
    end = _VERB.split(line)[-1]  # what stands between dollars, and `3/8, or 37.5%`, math-verify reads better
    if _is_mathematics(strip_markup(end)) and not re.search(r"\$|\\\(|\bor\b", end):
        return strip_markup(end)
    name = _clause(line)
    return name if len(lines) == 1 and _is_name(name) else None


def _marked(text: str) -> str | None:
    boxes = _boxes(text)
    if not boxes:
        last = len(text.rstrip())
        for found in _HASHES.finditer(text):
            answer = _clause(found[1]) if found[1].strip() else ""
            if found.end() < last:  # words or `1. Count` above other text are a heading
                if _is_mathematics(answer) and not _HEADING.match(found[1]):
                    return answer
            elif _is_mathematics(answer) or _is_name(answer):
                return answer
    candidates = [(place, answer) for place, answer in boxes if answer]
    words = None
    for found in list(_STATEMENT.finditer(text))[-_STATEMENTS:]:
        if is_doubted(text[max(0, found.start() - 80) : found.start()]):
            continue
        answer = _clause(found["answer"])
        opens = not found["phrase"] and _FIRST_STEP.match(answer) and text[found.end("answer") :].strip()
        if (_is_mathematics(answer) and not opens) or (_is_name(answer) and not found["phrase"]):
            candidates.append((found.start("answer"), answer))
        elif _is_name(answer):
            words = answer
    return max(candidates)[1] if candidates else words


def _clause(text: str) -> str:
    """A statement's answer without the sentence's rest: `18. I hope so` → `18`."""
    end = _CLAUSE_END.search(text)
    text = strip_markup(text[: end.start()] if end else text)
    return text.removesuffix("!")  # joy, no factorial


def _is_mathematics(answer: str) -> bool:
    r"""Whether a bare text is an answer that is no sentence: a number, an expression, a choice."""
    if len(answer) > MAX_EXPRESSION_LENGTH:
        return False
    if quantity(answer) is not None:
        return True
    if re.fullmatch(r"[-+$]*\d[\d.,/]*(?!\d)(?:(?!\b(?:is|are|was|were)\b)[^\d=?]){1,30}", answer):  # `18 and a half`
        return True
    if re.search(r"\d\s+to\s+\d", answer):
        return False
    rest = re.sub(r"\\text\s*\{[^{}]*\}|\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", answer)
    rest = re.sub(r"\b(?:and|or|sin|cos|tan|log|exp|sqrt)\b", " ", rest)
    prose = re.search(r"[^\W\d_][a-z]{2}|\b(?:is|no|if|it|we|he)\b|\?", rest)
    return bool(re.search(r"\w|\\[a-z{]", answer)) and not prose


def _is_name(answer: str) -> bool:
    """Whether a bare text is an answer in a word or a few, or a choice with its text: `B. the eggs`."""
    if re.match(r"\(?[A-J][).:]\s", answer):
        return True
    return is_words(answer) and len(drop_text_macros(answer).split()) <= 4 and not _NO_ANSWER.match(answer)


def _boxes(text: str) -> list[tuple[int, str]]:
    """Place and content of the closed boxes, those that are one answer joined by commas."""
    opened: list[tuple[int, int]] = []  # start of the command (-1: a plain brace), start of the content
    found: list[tuple[int, int, int]] = []
    for sign in _BOX.finditer(text):
        if sign[0][-1] == "{" and sign[0] != r"\{":
            opened.append((sign.start() if len(sign[0]) > 1 else -1, sign.end()))
        elif sign[0] == "}" and opened:
            start, content = opened.pop()
            if start >= 0 and sign.end() - start <= MAX_EXPRESSION_LENGTH:
                while found and found[-1][0] > start:  # a box in this box
                    found.pop()
                found.append((start, content, sign.end()))
    joined: list[tuple[int, str]] = []
    end = -1
    for start, content, next_end in found:
        if is_doubted(text[max(0, start - 80) : start]):
            continue
        answer = strip_markup(text[content : next_end - 1])
        separator = text[end:start] if joined else ""
        if (
            separator.strip("\n $*")
            and len(separator) < 40
            and _BETWEEN.fullmatch(separator)
            and answer != joined[-1][1]
            and len(joined[-1][1]) < MAX_EXPRESSION_LENGTH
        ):
            joined[-1] = (start, f"{joined[-1][1]}, {answer}")
        else:
            joined.append((start, answer))
        end = next_end
    return joined
