"""An example: one prompt and its reference answer, as token ids, with a stable id; and a set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from datasets import Dataset


@dataclass(frozen=True)
class Example:
    """`reference` ends with a stop token. `trailer` holds what a chat template puts after it (often a line break)."""

    id: str
    prompt: list[int]
    reference: list[int]
    trailer: list[int]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its number in the data set counted from 0, its id if it has one, and why."""

    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class ExampleSet:
    """Examples in an Arrow table (`id`, `prompt`, `reference`, `trailer`), and the rows that could not become one.

    `cut_prompts` counts prompts that lost their end to the answer, `truncated` answers that lost theirs;
    `conversational` says that the rows came through a chat template.
    """

    table: Dataset
    bad_rows: list[BadRow]
    source: str
    cut_prompts: int
    truncated: int
    conversational: bool

    def __len__(self) -> int:
        return len(self.table)

    def part(self, start: int, end: int) -> list[Example]:
        columns = self.table[start:end]
        return [
            Example(*values)
            for values in zip(columns["id"], columns["prompt"], columns["reference"], columns["trailer"], strict=True)
        ]

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), 1000):
            yield from self.part(start, start + 1000)

    def fingerprint(self) -> str:
        """A hash of all ids and tokens in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for example in self:
            digest.update(json.dumps([example.id, example.prompt, example.reference, example.trailer]).encode())
        return digest.hexdigest()
