"""Judge prompts: what a judge is asked, and the verdict that its reply holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import ConfigError, describe, require
from ..asserted_text import without_thoughts


Verdict = Literal["A", "B", "tie"]

PROMPTS = Path(__file__).with_name("prompts")
PLACEHOLDERS = ("prompt", "first", "second")
_PLACEHOLDER = re.compile(r"\{(prompt|first|second)\}")
_COMMENT = "#!"
_MARKER = re.compile(r"\b(?:verdict|preferred)\b[\s*_\"'`]*:", re.I)
_DECORATION = " \t\r\"'`*_.,:;!()[]{}<>“”‘’«»"
_VERDICTS: dict[str, Verdict] = {"a": "A", "b": "B", "tie": "tie"}


@dataclass(frozen=True)
class Template:
    """A judge prompt with {prompt}, {first} (shown as A) and {second} (shown as B)."""

    name: str
    text: str

    def fill(self, prompt: str, first: str, second: str) -> str:
        """The judge prompt. Braces are taken as they are, in the texts and elsewhere in the template."""
        texts = {"prompt": prompt, "first": first, "second": second}
        return _PLACEHOLDER.sub(lambda match: texts[match[1]], self.text)


def read_verdict(reply: str) -> Verdict | None:
    """What follows the last `Verdict:` or `Preferred:` up to the end of its line, or on the next line: A, B or tie, in
    any case.

    Quotes, brackets, stars and full stops around it, and a word such as Summary or Answer before it, are left out.
    Anything else on that line makes the reply unparsable: None. What a judge thinks is no verdict.
    """
    pieces = _MARKER.split(without_thoughts(reply))
    if len(pieces) < 2:
        return None
    lines = (line.strip(_DECORATION) for line in pieces[-1].splitlines())
    word = next((line for line in lines if line), "")
    word = re.sub(r"^(summary|answer|response|assistant)\b", "", word, flags=re.IGNORECASE)
    return _VERDICTS.get(word.strip(_DECORATION).casefold())


def load_template(name_or_path: str | Path) -> Template:
    """A judge prompt of `evaluation/judge/prompts` by its name (`tldr`, `general_qa`), or a file of one's own, which
    asks for `Verdict:` or `Preferred:`. Lines that start with `#!` are comments.

    Raises:
        ConfigError: there is no such template, or it lacks placeholders or its verdict; all errors are listed.
    """
    built_in = {path.stem: path for path in sorted(PROMPTS.glob("*.txt"))}
    path = built_in.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        place, got = f"judge prompt {str(name_or_path)!r}", f"no such name or file (looked from {Path.cwd()})"
        raise ConfigError(place, got, f"one of {', '.join(built_in)}, or a file", "Correct the name")
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"text that is not UTF-8 ({error})", "UTF-8", "Save it as UTF-8") from error
    text = "".join(line for line in lines if not line.startswith(_COMMENT)).strip()
    missing = [name for name in PLACEHOLDERS if f"{{{name}}}" not in text]
    found = sorted(set(re.findall(r"\{\w+\}", text)) - {f"{{{name}}}" for name in PLACEHOLDERS})
    others = f", but {', '.join(found)}" if found else ""
    advice = "Add it to the template"
    errors = [describe(path, f"no {{{name}}}{others}", "all placeholders", advice) for name in missing]
    errors += require(_MARKER.search(text), path, "no word before the verdict", "`Verdict:` or `Preferred:`", advice)
    if errors:
        raise ConfigError(errors)
    return Template(str(name_or_path), text)
