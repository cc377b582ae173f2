"""Rows of token ids with TRL's labels: `labels` as they are, or what `completion_mask` and `assistant_masks` mark."""

from __future__ import annotations

from typing import Any

from .chat_splitting import PromptCompletionMask


def split_ids(row: dict[str, Any], vocabulary: int, *, completion_only: bool) -> PromptCompletionMask:
    """A row of `input_ids` in two, at its first trained token.

    As in TRL `labels` win over masks, several masks must agree, and without any of them all tokens are trained.

    Args:
        vocabulary: how many ids the tokenizer has.
        completion_only: whether `completion_mask` is looked at.
    """
    ids, labels = row["input_ids"], row.get("labels")
    columns = ["labels"] if labels is not None else ["assistant_masks"]
    if labels is None and completion_only:
        columns.append("completion_mask")
    given = {name: row[name] for name in columns if row.get(name) is not None}
    if not ids or not isinstance(ids, list) or not all(isinstance(mask, list) for mask in given.values()):
        return PromptCompletionMask(error="input_ids or its mask is null, empty or no list")
    foreign = [index for index in ids if not isinstance(index, int) or not 0 <= index < vocabulary]
    if foreign:
        return PromptCompletionMask(error=f"input_ids: {foreign[0]!r} is none of the tokenizer's {vocabulary} ids")
    for name, mask in given.items():
        if len(mask) != len(ids):
            return PromptCompletionMask(error=f"{len(ids)} input_ids but {len(mask)} {name}")
    if labels is not None:
        if any(label not in (-100, token) for label, token in zip(labels, ids, strict=True)):
            return PromptCompletionMask(
                error="labels differ from input_ids: these are contexts already, not an example"
            )
        trained = [label != -100 for label in labels]
    else:
        trained = [all(bits) for bits in zip([True] * len(ids), *given.values(), strict=True)]
    # What stands at the start of a row is never predicted, so that a label there alone trains nothing.
    if not any(trained[1:]):
        return PromptCompletionMask(error="no trainable token: every label is -100, or there is but one token")
    start = max(1, trained.index(True))
    flags = None if all(trained[start:]) else trained[start:]
    return PromptCompletionMask(ids[:start], ids[start:], flags, has_prompt=not trained[0])
