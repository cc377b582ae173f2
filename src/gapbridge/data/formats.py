"""TRL's forms of a data set: which one it has, and what no form can be read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from datasets import Dataset

from ..errors import DataError, describe


if TYPE_CHECKING:
    from .example import ExampleSet

Form = Literal["ids", "pair", "messages", "conversations", "text"]
TEXT_FIELD = "text"
REPAIR_ROW = "Repair or remove the row"

_IMAGES = ("image", "images")
_SPEAKERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's words; the roles of chat templates stay


def detect_form(columns: set[str], source: str, text_field: str = TEXT_FIELD) -> Form:
    """The form of a data set with these columns; the first that fits, in TRL's order.

    Args:
        text_field: the column of plain text.

    Raises:
        DataError: there is none.
    """
    if "input_ids" in columns:
        return "ids"
    if {"prompt", "completion"} <= columns:
        return "pair"
    if "messages" in columns:
        return "messages"
    if "conversations" in columns:
        return "conversations"
    if text_field in columns:
        return "text"
    expected = f"`messages`, `prompt` and `completion`, `input_ids`, or `{text_field}` (dataset_text_field)"
    raise DataError(source, f"the columns {', '.join(sorted(columns))}", expected, "Rename the columns")


def describe_empty(source: str) -> str:
    """The error of a data set without rows."""
    return describe(source, "an empty data set", "at least one row", "Check the split and the file")


def readable(dataset: Dataset, source: str) -> Dataset:
    """The data set as plain Python values, whatever format it was given.

    Raises:
        DataError: it holds images, or a transform makes its rows again whenever they are read.
    """
    errors = [
        describe(
            f"{source}, column {name}",
            "vision-related data",
            "text for a text model",
            "Remove the column, or train a vision-language model with TRL",
        )
        for name in _IMAGES
        if name in dataset.column_names
    ]
    if dataset.format["type"] == "custom":
        advice = "Make the rows with `Dataset.map()` (`skip_prepare_dataset` is not supported)"
        errors.append(describe(source, "a `Dataset.with_transform()`", "rows that do not change", advice))
    if errors:
        raise DataError(errors)
    shown = dataset.format["columns"]
    if not dataset.format["output_all_columns"] and set(shown) != set(dataset.column_names):
        dataset = dataset.select_columns(shown)
    return dataset.with_format(None)


def formatted(
    dataset: Dataset, formatting_func: Callable[[dict[str, Any]], str] | None, text_field: str = TEXT_FIELD
) -> Dataset:
    """The plain text that a user's function makes of each row, in `text_field`; rows of ids stay, as in TRL."""
    if formatting_func is None or "input_ids" in dataset.column_names:
        return dataset
    return dataset.map(
        lambda row: {text_field: formatting_func(row)},
        remove_columns=[name for name in dataset.column_names if name != "id"],
        load_from_cache_file=False,
        keep_in_memory=True,
        desc="Formatting",
    )


def as_messages(turns: Any) -> Any:
    """A conversation of `from` and `value` in TRL's keys; ShareGPT's `human` and `gpt` become roles of templates."""
    if not isinstance(turns, list):
        return turns
    return [_as_message(turn) for turn in turns]


def _as_message(turn: Any) -> Any:
    if not isinstance(turn, dict) or turn.get("role") or "from" not in turn:
        return turn
    message = {key: value for key, value in turn.items() if key not in ("from", "value", "role", "content")}
    speaker = turn["from"]
    return {
        "role": _SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker,
        "content": turn.get("value"),
        **message,
    }


def require_prompts(examples: ExampleSet, why: str) -> None:
    """Refuse examples that nothing can be asked with.

    Args:
        why: what prompts are needed for, as a sentence without its full stop.

    Raises:
        DataError: some have no prompt.
    """
    without = examples.without_prompt()
    if without:
        got = f"no prompt ({len(without)} of {len(examples)} rows have none)"
        advice = "Convert the data to `prompt` and `completion`, or to `messages`"
        raise DataError(f"{examples.source}, row {without[0]}", got, f"a prompt and an answer, since {why}", advice)
