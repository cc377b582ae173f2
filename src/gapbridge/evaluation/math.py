r"""When final answers of worked mathematics are equal, and what a correction did to them.

Marked answers (see `answer_extraction.py`) are compared by value where both are one number, and as normalised LaTeX
otherwise: the data sets' own exact match. math-verify judges beside it, see `math_verify_pool.py`; `grading.py` puts
the two together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .answer_extraction import marked_answer
from .latex_normalization import MAX_EXPRESSION_LENGTH, drop_text_macros, is_words, normalize_latex, strip_markup
from .units import in_digits, quantity, same_quantity, split_unit


_BASE = re.compile(r"([\dA-F]+)_\{?(\d+|[a-z]+)\}?")
_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\s*([ap])?\.?(?:m\.?)?", re.I)
_CHOICE = re.compile(r"(?i:(?:option|choice|answer)\s+)?(?:\(([A-Ja-j])\)|([A-J])(?:[.):](?=\s|$)|$))\s*(.*)", re.S)
_VERDICT = re.compile(r"(yes|no|true|false)(?=[.,;:!]|$)", re.I)
_EQUALS = re.compile(r"(?<![<>!\\:])=(?![=>])")


def same_answer(first: str, second: str) -> bool:
    """Whether two marked answers are equal: by value where both are one number, else as normalised text.

    A text of more than 2,000 characters is no final answer; it equals the same words.
    """
    if max(len(first), len(second)) > 2 * MAX_EXPRESSION_LENGTH:  # boxes that are one answer are joined
        return first.split() == second.split() != []
    first, second = final_value(first, second), final_value(second, first)
    a, b = quantity(first), quantity(second)
    if a is not None and b is not None:
        return same_quantity(a, b)
    special = _special(first, second)
    return (
        special
        if special is not None
        else bool(normalize_latex(first)) and normalize_latex(first) == normalize_latex(second)
    )


def decided_without_parser(first: str, second: str) -> bool:
    r"""Whether `same_answer` has the last word, and math-verify none.

    math-verify takes words for products of their letters, `(1,2)` for `\{1,2\}`, leaves bases and units out, and reads
    `2x+3=7` as 7.
    """
    if max(len(first), len(second)) > 2 * MAX_EXPRESSION_LENGTH:
        return False
    first, second = final_value(first, second), final_value(second, first)
    if (quantity(first) is not None and quantity(second) is not None) or _special(first, second) is not None:
        return True
    if any(is_words(text) for text in (first, second)):
        return True
    if _braces(first) and _braces(second) and _braces(first) != _braces(second):
        return True
    return bool(_EQUALS.search(first)) and not _EQUALS.search(second) and not _has_several(first)


def final_value(text: str, other: str) -> str:
    r"""The last side of an equation that gives a value (`5 + 10 = 15`, `x = 5`), where the other answer is none.

    `2x + 3 = 7` gives none: its left side is an expression with a variable. One of more than 2,000 characters stays.
    """
    if max(len(text), len(other)) > 2 * MAX_EXPRESSION_LENGTH:
        return text
    text, other = strip_markup(text), strip_markup(other)
    sides = _EQUALS.split(text)
    if len(sides) == 1 or _has_several(text) or not all(side.strip() for side in sides):
        return text
    if _EQUALS.search(other):
        return text
    return strip_markup(sides[-1]) if all(_names_or_computes(side) for side in sides[:-1]) else text


def is_correct(answer: str, reference: str) -> bool:
    """Whether the marked answers agree. An answer without one is wrong."""
    given, wanted = marked_answer(answer), marked_answer(reference)
    return given is not None and wanted is not None and same_answer(given, wanted)


def correction_table(first: Sequence[bool], corrected: Sequence[bool]) -> dict[str, int]:
    """How many of the first answers, right or wrong, were right or wrong once corrected; both in the same order."""
    names, pairs = {True: "right", False: "wrong"}, Counter(zip(first, corrected, strict=True))
    cells = ((False, True), (True, False), (True, True), (False, False))
    return {f"{names[before]}_to_{names[after]}": pairs[before, after] for before, after in cells}


def _special(first: str, second: str) -> bool | None:
    """Whether two numbers in a base, times, choices or verdicts (yes, no) are equal; None if they are none.

    Expressions with different units are unequal.
    """
    units = split_unit(strip_markup(first))[1], split_unit(strip_markup(second))[1]
    if None not in units and units[0] != units[1]:
        return False
    first, second = (drop_text_macros(strip_markup(text)).strip() for text in (first, second))
    bases = [_BASE.fullmatch(text.replace(" ", "")) for text in (first, second)]
    if any(bases):
        (digits, base), (others, other) = (
            (found[1], in_digits(found[2])) if found else (text, "10")
            for found, text in zip(bases, (first, second), strict=True)
        )
        return digits == others and base == other
    times = [_TIME.fullmatch(text) for text in (first, second)]
    if times[0] and times[1]:
        halves = {found[4].casefold() for found in times if found and found[4]}
        return times[0].group(1, 2, 3) == times[1].group(1, 2, 3) and len(halves) < 2
    choices = [_CHOICE.fullmatch(text) for text in (first, second)]
    if choices[0] and choices[1] and not (choices[0][3] and choices[1][3]):
        return (choices[0][1] or choices[0][2]).casefold() == (choices[1][1] or choices[1][2]).casefold()
    verdicts = [_VERDICT.match(text) for text in (first, second)]
    if verdicts[0] and verdicts[1]:
        return verdicts[0][1].casefold() == verdicts[1][1].casefold()
    return None


def _names_or_computes(side: str) -> bool:
    r"""Whether an equation's left side is a name (`x`, `f(x)`, `\angle A`, `Total`) or a computation with numbers."""
    letters = re.sub(r"\\text\s*\{[^{}]*\}|\\[a-zA-Z]+", "", side)
    if not re.search(r"[a-zA-Z]", letters) and re.search(r"\d", letters):
        return True
    return not re.search(r"^\s*-?\d|[-+*/^|]|\\(?:frac|sqrt|times|cdot|pm|log|ln|sin|cos|tan)(?![a-zA-Z])", side)


def _has_several(text: str) -> bool:
    """Whether commas or words outside all brackets part a text: `x = 3, y = 4`."""
    inside, text = None, drop_text_macros(text)
    while inside != text:
        inside, text = text, re.sub(r"\([^()]*\)|\{[^{}]*\}|\[[^\[\]]*\]", "", text)
    return bool(re.search(r"[,;]|\b(?:and|or)\b", text)) and len(_EQUALS.findall(text)) > 1


def _braces(text: str) -> str:
    r"""The bracket around a list: `(` for a point or interval, `\{` for a set, none for anything else."""
    text = strip_markup(text)
    found = re.fullmatch(r"(\\\{|\(|\[)[^()\[\]]*,[^()\[\]]*(?:\\\}|\)|\])", text)
    return "" if found is None else "set" if found[1] == r"\{" else "list"
