"""Rows with pauses (Goyal et al. 2024): none is ever predicted, so that no label asks for one."""

from __future__ import annotations

import random

from ...training.rows import IGNORE_INDEX, Row


def mask_pauses(row: Row, pause: int) -> None:
    """Take the loss from every position whose next token is a pause, in place; the last predicts what follows it."""
    row["labels"] = [
        IGNORE_INDEX if token == pause else label for token, label in zip(row["input_ids"], row["labels"], strict=True)
    ]


def with_random_pauses(row: Row, pause: int, count: int, seed: int) -> Row:
    """The row with `count` pauses at random places, each between two of its tokens; their labels are ignored.

    The places depend on the row's id and the seed, and several pauses may stand together.

    Returns:
        A row of len + count tokens, which without its pauses is the row that was given.
    """
    draw = random.Random(f"{seed}/pauses/{row['id']}")
    length = len(row["input_ids"])
    pauses_before = [0] * length
    for _ in range(count if length > 1 else 0):
        pauses_before[draw.randrange(1, length)] += 1
    ids: list[int] = []
    labels: list[int] = []
    sampled: list[bool] = []
    for token, label, own, pauses in zip(row["input_ids"], row["labels"], row["sampled"], pauses_before, strict=True):
        ids += [*[pause] * pauses, token]
        labels += [*[IGNORE_INDEX] * pauses, label]
        sampled += [*[False] * pauses, own]
    return {**row, "input_ids": ids, "labels": labels, "sampled": sampled}
