"""Rows of token ids with TRL's labels: `labels` as they are, or what `completion_mask` and `assistant_masks` mark."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from .chat_splitting import PromptCompletionMask
from .formats import REPAIR_ROW


def split_ids(row: dict[str, Any], vocabulary: int, *, completion_only: bool) -> PromptCompletionMask:
    """A row of `input_ids` in two, at its first trained token.

    As in TRL `labels` win over masks, several masks must agree, and without any of them all tokens are trained.

    Args:
        vocabulary: how many ids the tokenizer has.
        completion_only: whether `completion_mask` is looked at.

    Raises:
        DataError: the lists are no ids, do not go together, or train nothing.
    """
    ids, labels = row["input_ids"], row.get("labels")
    columns = ["labels"] if labels is not None else ["assistant_masks"]
    if labels is None and completion_only:
        columns.append("completion_mask")
    given = {name: row[name] for name in columns if row.get(name) is not None}
    if not ids or not isinstance(ids, list) or not all(isinstance(mask, list) for mask in given.values()):
        got = "null, an empty list or no list"
        raise DataError("input_ids and masks", got, "lists of numbers", REPAIR_ROW)
    foreign = [index for index in ids if not isinstance(index, int) or not 0 <= index < vocabulary]
    if foreign:
        expected = f"one of the tokenizer's {vocabulary} ids"
        raise DataError("input_ids", repr(foreign[0]), expected, REPAIR_ROW)
    for name, mask in given.items():
        if len(mask) != len(ids):
            got, expected = f"{len(mask)} values", f"{len(ids)}, as in input_ids"
            raise DataError(name, got, expected, REPAIR_ROW)
    if labels is not None:
        if any(label not in (-100, token) for label, token in zip(labels, ids, strict=True)):
            got, expected = "labels that differ from input_ids, as in rows of contexts", "-100 or the token itself"
            raise DataError("labels", got, expected, REPAIR_ROW)
        trained = [label != -100 for label in labels]
    else:
        trained = [all(bits) for bits in zip([True] * len(ids), *given.values(), strict=True)]
    # What stands at the start of a row is never predicted, so that a label there alone trains nothing.
    if not any(trained[1:]):
        got, expected = "no trainable token", "at least one after the first token"
        raise DataError("labels", got, expected, REPAIR_ROW)
    start = max(1, trained.index(True))
    flags = None if all(trained[start:]) else trained[start:]
    return PromptCompletionMask(ids[:start], ids[start:], flags, has_prompt=not trained[0])
