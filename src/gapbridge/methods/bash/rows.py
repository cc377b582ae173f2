"""BASH rows (Cen et al. 2025, Algorithm 1): the inputs are the mixed context ŷ, the labels the reference y."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...training.rows import IGNORE_INDEX


def bash_row(
    x: Sequence[int],
    y_hat: Sequence[int],
    y: Sequence[int],
    trailer: Sequence[int] = (),
    trained: Sequence[bool] | None = None,
) -> dict[str, list[int]]:
    """The row whose loss is -Σ_t log π(y_t | x, ŷ_<t).

    The label y_t stands at the same index as ŷ_t; the causal shift happens once, in the loss, so that ŷ_T is never
    read by the loss of y. With ŷ = y this is an SFT row. With several assistant turns y holds the user turns between.

    Args:
        x: prompt, P ids. y_hat: mixed context, T ids. y: reference, T ids. trailer: what the template puts after y.
        trained: one flag for each token of y: False where no loss falls; None for all True.

    Returns:
        `input_ids` = x ⊕ ŷ ⊕ trailer and `labels` = (-100)·P ⊕ y ⊕ trailer, with -100 where y is not trained.
    """
    if len(y_hat) != len(y):
        raise ValueError(
            f"the context has {len(y_hat)} tokens, the reference {len(y)}: they stand position by position"
        )
    labels = list(y) if trained is None else [t if loss else IGNORE_INDEX for t, loss in zip(y, trained, strict=True)]
    return {"input_ids": [*x, *y_hat, *trailer], "labels": [*([IGNORE_INDEX] * len(x)), *labels, *trailer]}


def mask_labels_after_replacement(row: dict[str, list[int]], count: int) -> int:
    """Take the loss from the `count` labels after each replaced token of a BASH row, in place.

    Returns:
        How many labels that are.
    """
    inputs, labels = row["input_ids"], row["labels"]
    replaced = [at for at, label in enumerate(labels) if label not in (IGNORE_INDEX, inputs[at])]
    following = {after for at in replaced for after in range(at + 1, min(at + 1 + count, len(labels)))}
    masked = [at for at in following if labels[at] != IGNORE_INDEX]
    for at in masked:
        labels[at] = IGNORE_INDEX
    return len(masked)


def reference_inputs(input_ids: Tensor, labels: Tensor) -> Tensor:
    """The reference context of a BASH row or a batch of them: wherever a token may be replaced, its label stands."""
    return torch.where(labels != IGNORE_INDEX, labels, input_ids)
