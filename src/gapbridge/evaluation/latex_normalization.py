"""One spelling for what is written in several: LaTeX or plain text, Unicode or ASCII, with or without emphasis."""

from __future__ import annotations

import re


MAX_EXPRESSION_LENGTH = 1000  # characters of a final answer; patterns may take the square of that

_SIGNS = {
    **dict.fromkeys("−–﹣－‐‑", "-"),
    **dict.fromkeys("\u00a0\u2009\u202f\u200a", " "),
    **dict.fromkeys("\u200b\ufeff", ""),
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "±": r"\pm ", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "θ": r"\theta ", "’": "'", "％": "%", "＄": "$",
    "½": r" \frac{1}{2}", "⅓": r" \frac{1}{3}", "⅔": r" \frac{2}{3}", "¼": r" \frac{1}{4}", "¾": r" \frac{3}{4}",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TRANSLATION = str.maketrans(_SIGNS)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√\s*\(([^()]*)\)|√\s*([\w.]+)", r"\\sqrt{\1\2}"),
        (r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])\s*\.?", ""),
        (r"\\displaystyle(?![a-zA-Z])|(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])", " "),
        (r"\{,\}", ","),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\([$%])", r"\1"),
        (r"\\(?:mathrm|textrm|mbox|textbf|textit|mathbf|operatorname)\s*\{", r"\\text{"),
        (r"\\(frac|binom)\s*(\d)\s*(\d)", r"\\\1{\2}{\3}"),
        (r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![\\a-zA-Z])[Ii]nf(?:inity)?(?![a-zA-Z])", r"\\infty "),
    )
]
# What may stand around an answer: mathematics' delimiters, emphasis, quotes, a box, braces.
_WRAPPERS = [("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ('"', '"'), ("“", "”"), ("'", "'")]
_PICTURES = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def strip_markup(text: str) -> str:
    r"""An answer without emphasis, delimiters, a box and a final stop around it, its signs as LaTeX.

    `**$2\dfrac12$.**` → `2\frac{1}{2}`, `\boxed{−3}` → `-3`. A currency's `$` stays.
    """
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = _PICTURES.sub("", text.translate(_TRANSLATION))
    for _ in range(8):
        text = text.strip().lstrip("*`").rstrip("*`_,;:. \n")
        for start, end in _WRAPPERS:
            inside = text[len(start) : -len(end)]
            if len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end):
                other = inside.replace(r"\$", "")
                text = text if start in other or end in other else inside
        text = _without_braces(text)
    text = re.sub(r"^\$([^$]+)\$(?=\s)", r"\1", text)  # `$18$ dollars`
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _balanced(re.sub(r"\s+", " ", text)).strip()


def drop_text_macros(text: str) -> str:
    r"""Text with the words of `\text{…}` written out: `5 \text{ cm}` → `5  cm`."""
    return _TEXT.sub(r" \1 ", text)


def normalize_latex(text: str) -> str:
    """A marked answer without what does not change it: spacing, sizes of brackets, a final stop."""
    text = strip_markup(text).replace("$", "").replace("%", "")
    words = is_words(text)
    text = _TEXT.sub(r"\1", text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)  # `1 2` is not 12
    return text.casefold() if words else text


def is_words(text: str) -> bool:
    r"""Whether a bare answer is in words (`Alice`, `\text{east}`, `no solution`) and no letters of mathematics."""
    if re.fullmatch(r"\\text\s*\{[^{}]*[a-zA-Z]{2}[^{}]*\}", text):
        return True
    if not re.fullmatch(r"[^\W\d_][^\d_\\+*/^=<>(){}\[\]|]*", drop_text_macros(text).strip()):
        return False
    found = set(re.findall(r"[^\W\d_]+", drop_text_macros(text).casefold())) - {"and", "or"}
    return not found & _FUNCTIONS and ("no" in found or any(len(word) > 2 for word in found))


_FUNCTIONS = frozenset("sin cos tan log exp sqrt arcsin arccos arctan sec csc cot max min".split())


def _without_braces(text: str) -> str:
    r"""`\boxed{…}` or `{…}` around everything goes."""
    found = re.match(r"(?:\\(?:boxed|fbox)\s*)?\{", text)
    if not found or not text.endswith("}"):
        return text
    depth = 0
    for at in range(found.end() - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[found.end() : -1] if at == len(text) - 1 else text
    return text


def _balanced(text: str) -> str:
    """`18)` of `(the answer is 18)` loses its bracket; `(1,2]` and `[1,2)` are intervals."""
    opened, closed = (sum(text.count(sign) for sign in signs) for signs in ("([", ")]"))
    return text[:-1] if closed == opened + 1 and text.endswith((")", "]")) else text
