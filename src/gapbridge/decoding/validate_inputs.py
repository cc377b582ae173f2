"""What examples must be like for a model, looked at before its first pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from ..compat import vocabulary_size
from ..errors import DataError, describe


def check_ids(prompts: Sequence[Sequence[int]], ids: Sequence[str | int]) -> None:
    """Raise a DataError unless each prompt has one id."""
    if len(prompts) != len(ids):
        got = f"{len(ids)} for {len(prompts)} prompts"
        raise DataError("ids", got, "one id a prompt", "Give lists of equal length")


def check_examples(
    model: PreTrainedModel, ids: Sequence[str | int], parts: dict[str, Sequence[Sequence[int]]]
) -> None:
    """Raise a DataError that lists every example with an empty part or with ids that the model does not know."""
    if len(set(ids)) < len(ids):
        got = "duplicates, whose examples would get the same noise"
        raise DataError("ids", got, "unique ids", "Rename the duplicates")
    last = vocabulary_size(model) - 1
    errors = []
    for name, rows in parts.items():
        for example_id, row in zip(ids, rows, strict=True):
            place = f"example {example_id!r}, {name}"
            if not len(row):
                errors.append(describe(place, "no token", "at least one", "Repair or remove the row"))
            elif min(row) < 0 or max(row) > last:
                got, advice = "an id outside the vocabulary", "Repair the row, or use the model's tokenizer"
                errors.append(describe(place, got, f"ids from 0 to {last}", advice))
    if errors:
        raise DataError(errors)


def check_lengths(
    model: PreTrainedModel, ids: Sequence[str | int], lengths: Sequence[int], row: str, way_out: str
) -> None:
    """Raise a DataError that lists every example whose row is longer than the model's positions go.

    Args:
        lengths: how many tokens of each example are fed.
        row: what the row consists of, such as "prompt and reference".
        way_out: what the user can do, besides taking another model.
    """
    limit = context_window(model)
    errors = [
        describe(
            f"example {example_id!r}",
            f"{length} positions of {row}",
            f"at most {limit.tokens}, since {limit.reason}",
            f"{way_out}, or take another model",
        )
        for example_id, length in zip(ids, lengths, strict=True)
        if limit is not None and length > limit.tokens
    ]
    if errors:
        raise DataError(errors)


@dataclass(frozen=True)
class ContextWindow:
    """The most `tokens` that a row may have, and the `reason`."""

    tokens: int
    reason: str


def context_window(model: PreTrainedModel) -> ContextWindow | None:
    """How long a row may be, or None where the model's positions do not end.

    A table of positions ends. Rotary positions go on beyond `max_position_embeddings`, but where their frequencies
    follow the longest row of a batch (dynamic NTK, LongRoPE) a token would depend on the rows beside it: such models
    serve rows up to the length at which the frequencies begin to change.
    """
    limit = _limit(model.config.get_text_config().to_dict())
    if limit is not None and isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        virtual = model.active_peft_config.num_virtual_tokens
        return replace(limit, tokens=limit.tokens - virtual, reason=f"{limit.reason}; {virtual} are the adapter's")
    return limit


def _limit(options: dict[str, Any]) -> ContextWindow | None:
    length = options.get("max_position_embeddings") or options.get("n_positions") or options.get("max_seq_len")
    settings = options.get("rope_parameters") or options.get("rope_scaling") or {}
    for rope in (settings, *(value for value in settings.values() if isinstance(value, dict))):  # one a type of layer
        kind = str(rope.get("rope_type") or rope.get("type"))
        original = rope.get("original_max_position_embeddings") or options.get("original_max_position_embeddings")
        end = length if "dynamic" in kind else original if kind == "longrope" else None
        if end is not None:
            return ContextWindow(
                end, f"beyond it the frequencies of rope_type {kind!r} change with the longest row of a batch"
            )
    # Models with rotary positions, and those whose state-space layers tell the order, have no table of positions.
    endless = any(name.startswith(("rope_", "mamba_")) and value is not None for name, value in options.items())
    return None if endless or length is None else ContextWindow(length, "the model has no more positions")
