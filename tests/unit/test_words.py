"""The field's words: what the package, its documentation and its recipes no longer say."""

from __future__ import annotations

import re
from pathlib import Path


ROOT = Path(__file__).parents[2]
WORDS = re.compile(
    r"\b(behind|told|barred|strangers?|lots?|slips?|mends?|anew|drawing|nobody|faults?"
    r"|own (loss|contexts?|answers?))\b",
    re.I,
)
LIMIT = 40  # quotations, keys of the noise, and "fault" and "drawing" in their own sense
LONG_LINES = 60


def _texts() -> list[Path]:
    folders = [ROOT / "src", ROOT / "docs", ROOT / "recipes"]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".yaml", ".sh")]
    return [*files, ROOT / "README.md"]


def test_few_words_of_our_own() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in _texts()
        for match in WORDS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert len(found) <= LIMIT, "\n".join(found)


def test_few_long_lines_in_markdown() -> None:
    lines = [
        line for path in _texts() if path.suffix == ".md" for line in path.read_text(encoding="utf-8").split("\n")
    ]
    long = [line for line in lines if len(line) > 140 and not line.lstrip().startswith("|")]
    assert len(long) <= LONG_LINES, "\n".join(long)
