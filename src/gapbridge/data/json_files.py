"""JSON files that end the process which reads them: the reader behind `datasets` (Arrow's) crashes on some values.

A row that is `null`, and values that nest some thousands of levels deep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from ..errors import describe


MAX_LEVELS = 200
_SUFFIXES = (".json", ".jsonl", ".ndjson")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def unreadable_lines(files: Iterable[str]) -> list[str]:
    """What is wrong with the first such line of each local JSON file; patterns stand for the files that they fit."""
    paths = [Path(path) for name in files if "://" not in name for path in sorted(glob(name, recursive=True))]
    errors = []
    for path in paths:
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        of_lines: bool | None = None  # whether each line is a row
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row, got = line.strip(), ""
                if of_lines is None and row:
                    of_lines = row == b"null" or (row.startswith(b"{") and row.endswith(b"}"))
                if of_lines and row == b"null":
                    got = "null"
                # Most lines have fewer brackets than that, and counting them costs nothing.
                elif line.count(b"[") + line.count(b"{") > MAX_LEVELS and _levels(line) > MAX_LEVELS:
                    got = f"values that nest deeper than {MAX_LEVELS} levels"
                if got:
                    errors.append(describe(f"{path}, line {number}", got, "a row", "Remove the line"))
                    break
    return errors


def _levels(line: bytes) -> int:
    """The deepest nesting of one line, with brackets in texts left out."""
    level = deepest = 0
    for match in _TOKENS.finditer(line):
        token = match[0]
        if token in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif token in b"]}":
            level -= 1
    return deepest
