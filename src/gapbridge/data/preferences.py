"""Preference data as examples: a prompt and two answers to it as token ids, and every row that cannot be one listed.

The prompt is what the template asks with, as in `tokenization.py`; both answers are its continuations. Where tokens
merge across the border, both are cut where TRL's `DPOTrainer` cuts them: after the longest prefix that all of them
share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase
from trl import extract_prompt

from ..errors import DataError, describe
from .arrow_files import iterate_chunks
from .chat_splitting import common_length
from .chat_template import ChatTemplate
from .conversation import without_padding
from .example import EXAMPLE_FEATURES, Example, ExampleSet, as_json
from .formats import REPAIR_ROW, describe_empty, readable
from .loss_scope import LossScope
from .pauses import pauses_after_prompt, with_pauses
from .row_table import FLAGS, tokenise_rows
from .tokenization import RowTokeniser, given_id, require_messages, require_template, require_text


PREFERENCE_FEATURES = Features({**EXAMPLE_FEATURES, "rejected": List(Value("int32"))})


@dataclass(frozen=True)
class Preference(Example):
    """An example whose reference is the chosen answer, and the `rejected` one with what the template puts after it."""

    rejected: list[int] = field(default_factory=list)

    @property
    def chosen(self) -> list[int]:
        """The chosen answer with what the template puts after it."""
        return [*self.completion_ids, *self.template_suffix_ids]


@dataclass(frozen=True)
class PreferenceSet(ExampleSet):
    """Pairs of answers; to whoever asks for examples, those of the chosen answers."""

    def part(self, start: int, end: int) -> list[Example]:
        examples, rejected = super().part(start, end), self.table[start:end]["rejected"]
        return [
            Preference(**vars(example), rejected=answer) for example, answer in zip(examples, rejected, strict=True)
        ]

    def _digest(self) -> str:
        digest = hashlib.blake2b(super()._digest().encode(), digest_size=16)
        for part in iterate_chunks(self.table, 1000):  # the size enters the hash
            digest.update(f"[{', '.join(as_json(part['rejected']))}]".encode())
        return digest.hexdigest()


def build_preferences(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stops: Sequence[int],
    max_length: int | None,
    on_invalid_example: str = "raise",
    truncate_overlong: bool = False,
    num_proc: int | None = None,
    source: str = "train_dataset",
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> PreferenceSet:
    """Tokenise preference data in one of TRL's forms.

    Forms: `prompt`, `chosen` and `rejected` as strings or as lists of messages; without `prompt`, or with a text
    beside conversations (UltraFeedback), the prompt is what `chosen` and `rejected` begin with in common. A row may
    bring `tools` and `chat_template_kwargs`. An `id` column is used where there is one; otherwise an id is a hash of
    the content. Further columns (`messages`, scores) are not looked at.

    Args:
        dataset: the rows; the other arguments are those of `build_examples`, and `max_length` holds for each answer
            with the prompt.

    Raises:
        DataError: the data set is empty, lacks a column, has bad rows (with `raise`), or has no good row.
        ConfigError: there is no chat template for conversations, it is no Jinja, or an argument cannot be used.
    """
    if not len(dataset):
        raise DataError(describe_empty(source))
    dataset = readable(dataset, source)
    columns = dataset.column_names
    if not {"chosen", "rejected"} <= set(columns):
        expected = "`chosen` and `rejected`, with a `prompt` or with the prompt in them"
        raise DataError(source, f"the columns {', '.join(sorted(columns))}", expected, "Rename the columns")
    conversational = isinstance(dataset[0]["chosen"], list)
    if conversational:
        require_template(tokenizer, source)
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs or {})
    tokenise = _TokenisePair(template, frozenset(stops), max_length, truncate_overlong)
    made = tokenise_rows(
        dataset, tokenise, PREFERENCE_FEATURES, num_proc=num_proc, source=source, on_invalid_example=on_invalid_example
    )
    examples = PreferenceSet(
        made.table, made.bad_rows, source, made.cut, made.truncated, conversational, tuple(stops), date,
        dict(chat_template_kwargs or {}), left_out=made.left_out,
    )  # fmt: skip
    return with_pauses(examples, pauses_after_prompt(tokenizer))


class _TokenisePair:
    """Row → token ids of prompt and both answers, and error."""

    def __init__(
        self, template: ChatTemplate, stops: frozenset[int], max_length: int | None, truncate_overlong: bool
    ) -> None:
        self._sides = [
            RowTokeniser(template, "pair", stops, max_length, truncate_overlong, LossScope(), answer=answer)
            for answer in ("chosen", "rejected")
        ]

    def __call__(self, row: dict[str, Any], features: Mapping[str, Any] | None = None) -> dict[str, Any]:
        row = {**row, **{name: without_padding(row[name], feature) for name, feature in (features or {}).items()}}
        try:
            row = _with_prompt(row)
        except DataError as refusal:
            nothing = {**dict.fromkeys(PREFERENCE_FEATURES), **dict.fromkeys(FLAGS, False)}
            return {**nothing, "id": given_id(row), "error": str(refusal)}
        error = ""
        chosen, rejected = (side(row) for side in self._sides)
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if answer["error"]:
                message = answer["error"]
                error = error or (message if message.startswith(("prompt", name)) else f"{name}, {message}")
        common = common_length(chosen["prompt"], rejected["prompt"])
        first, second = (
            [*answer["prompt"][common:], *answer["completion_ids"]] for answer in (chosen, rejected)
        )  # both after the shared prompt
        too_long = chosen["truncated"] or rejected["truncated"]
        left_out = not error and (chosen["left_out"] or rejected["left_out"] or (too_long and first == second))
        if not error and first == second and not left_out:
            error = describe("chosen and rejected", "the same tokens", "two answers", REPAIR_ROW)
        cut = common < len(chosen["prompt"]) or chosen["cut_prompt"] or rejected["cut_prompt"]
        content = hashlib.blake2b(f"{chosen['id']}/{rejected['id']}".encode(), digest_size=8).hexdigest()
        return {
            "id": given_id(row) or content,
            "prompt": chosen["prompt"][:common],
            "completion_ids": first,
            "template_suffix_ids": chosen["template_suffix_ids"],
            "loss_mask": None,
            "generation_prompt_ids": chosen["generation_prompt_ids"]
            or rejected["generation_prompt_ids"]
            or (chosen["prompt"] if cut else None),
            "template_kwargs_json": chosen["template_kwargs_json"],
            "has_prompt": None,
            "rejected": [*second, *rejected["template_suffix_ids"]],
            "error": error,
            "cut_prompt": bool(cut and not error),
            "truncated": bool(too_long and not error and not left_out),
            "endless": bool((chosen["endless"] or rejected["endless"]) and not error and not left_out),
            "left_out": bool(left_out),
        }


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a prompt of its own; a text beside conversations repeats what is in them.

    Raises:
        DataError: its answers are not two texts, or two conversations that differ in their last assistant turn.
    """
    sides = ("chosen", "rejected")
    for name in sides:
        check = require_messages if isinstance(row[name], list) else require_text
        check(name, row[name])
    if type(row["chosen"]) is not type(row["rejected"]):
        got = "text and a conversation"
        raise DataError("chosen and rejected", got, "two texts or two conversations", REPAIR_ROW)
    if row["chosen"] == row["rejected"]:
        raise DataError("chosen and rejected", "identical answers", "two different ones", REPAIR_ROW)
    prompt, conversational = row.get("prompt"), isinstance(row["chosen"], list)
    if prompt is None or (isinstance(prompt, str) and conversational):
        row = {**row, **extract_prompt({name: row[name] for name in sides})}
    for name in sides if conversational else ():
        roles = [turn["role"] for turn in row[name]]
        foreign = next((role for role in roles if role != "assistant"), None)
        if foreign is not None or len(roles) > 1:
            held = f"a {foreign} turn" if foreign is not None else f"{len(roles)} assistant turns"
            expected = "chosen and rejected that differ in the last answer only"
            raise DataError(name, f"{held} after the prompt", expected, REPAIR_ROW)
    return row
