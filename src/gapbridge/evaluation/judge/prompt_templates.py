"""Judge prompts: what a judge is asked, and the verdict that its reply holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import ConfigError, describe
from ..asserted_text import without_thoughts


Verdict = Literal["A", "B", "tie"]

PROMPTS = Path(__file__).with_name("prompts")
PLACEHOLDERS = ("prompt", "first", "second")
_PLACEHOLDER = re.compile(r"\{(prompt|first|second)\}")
_HEADER = "#!"
_DECORATION = " \t\r\"'`*_.,:;!()[]{}<>“”‘’«»"
_VERDICTS: dict[str, Verdict] = {"a": "A", "b": "B", "tie": "tie"}


@dataclass(frozen=True)
class Template:
    """A judge prompt with {prompt}, {first} (shown as A) and {second} (shown as B), and the word before a verdict."""

    name: str
    text: str
    marker: str

    def fill(self, prompt: str, first: str, second: str) -> str:
        """The judge prompt. Braces are taken as they are, in the texts and elsewhere in the template."""
        texts = {"prompt": prompt, "first": first, "second": second}
        return _PLACEHOLDER.sub(lambda match: texts[match[1]], self.text)

    def verdict(self, reply: str) -> Verdict | None:
        """What follows the last `marker:` up to the end of its line, or on the next line: A, B or tie, in any case.

        Quotes, brackets, stars and full stops around it, and a word such as Summary or Answer before it, are left
        out. Anything else on that line makes the reply unparsable: None. What a judge thinks is no verdict.
        """
        marker = rf"\b{re.escape(self.marker)}\b[\s*_\"'`]*:"
        pieces = re.split(marker, without_thoughts(reply), flags=re.IGNORECASE)
        if len(pieces) < 2:
            return None
        lines = (line.strip(_DECORATION) for line in pieces[-1].splitlines())
        word = next((line for line in lines if line), "")
        word = re.sub(r"^(summary|answer|response|assistant)\b", "", word, flags=re.IGNORECASE)
        return _VERDICTS.get(word.strip(_DECORATION).casefold())


def load_template(name_or_path: str | Path) -> Template:
    """A judge prompt of `evaluation/judge/prompts` by its name (`tldr`, `general_qa`), or a file of one's own.

    Lines at the top that start with `#!` are comments; `#! verdict: WORD` among them names the word after which, and a
    colon, the judge writes its verdict (default `Verdict`).

    Raises:
        ConfigError: there is no such template, or it lacks placeholders or its marker; all errors are listed.
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
    body = next((at for at, line in enumerate(lines) if not line.startswith(_HEADER)), len(lines))
    header, text = [line.removeprefix(_HEADER).strip() for line in lines[:body]], "".join(lines[body:]).strip()
    markers = [line.split(":", 1)[1].strip() for line in header if re.match(r"verdict\s*:", line)]
    marker = markers[-1] if markers else "Verdict"
    missing = [name for name in PLACEHOLDERS if f"{{{name}}}" not in text]
    found = sorted(set(re.findall(r"\{\w+\}", text)) - {f"{{{name}}}" for name in PLACEHOLDERS})
    others = f", but {', '.join(found)}" if found else ""
    errors = [
        describe(path, f"no {{{name}}}{others}", "all placeholders", "Add it to the template") for name in missing
    ]
    if not re.fullmatch(r"\w+( \w+)*", marker):
        expected = "one or more words, without the colon"
        errors.append(describe(f"{path}, header", f"`verdict: {marker}`", expected, "Correct the header"))
    elif f"{marker}:".casefold() not in text.casefold():
        advice = f"Ask for it, or name another in a first line `{_HEADER} verdict: WORD`"
        errors.append(describe(path, f"no `{marker}:` before the verdict", "the word that the text asks for", advice))
    if errors:
        raise ConfigError(errors)
    return Template(str(name_or_path), text, marker)
