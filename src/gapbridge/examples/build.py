"""Examples: one prompt and its reference answer, as token ids, with a stable id.

The chat template is applied here, once; from here on only ids travel. Decoding sampled ids and encoding the text again
gives other ids, and prompt and answer tokenised apart lose the tokens at their border, so both are tokenised together
and cut where TRL's `SFTTrainer` cuts them: after the longest common prefix of the prompt's ids and the whole row's
ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, Features, List, Value
from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from ..errors import ConfigError, DataError
from .example import BadRow, ExampleSet


logger = logging.getLogger(__name__)

SHOWN_BAD_ROWS = 20


def build_examples(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stops: Sequence[int],
    max_length: int | None,
    on_bad_rows: str = "raise",
    truncate_long_rows: bool = False,
    num_proc: int | None = None,
    source: str = "train_dataset",
) -> ExampleSet:
    """Tokenise a data set in one of TRL's forms, or take its ids as they are.

    Forms: `messages` (the last assistant turn is the reference, all before it the prompt); `prompt` and `completion`
    as lists of messages or as strings; `input_ids` with `labels` or `completion_mask` (the reference starts at the
    first trained token). An `id` column is used where there is one; otherwise an id is a hash of the content.

    Args:
        stops: token ids that end an answer, from `stop_tokens`.
        max_length: the most tokens in a row, prompt and answer together; None for no limit.
        on_bad_rows: `raise` or `skip`. Both list every bad row with its number, id and reason.
        truncate_long_rows: cut answers that do not fit (they lose their EOS), as TRL does, instead of refusing them.

    Raises:
        DataError: the data set is empty, has no known columns, has bad rows (with `raise`), or has no good row.
    """
    if not len(dataset):
        raise DataError(f"{source}: the data set is empty")
    columns = set(dataset.column_names)
    if "input_ids" in columns:
        form = "ids"
        if not columns & {"labels", "completion_mask"}:
            raise DataError(
                f"{source}: `input_ids` needs `labels` or `completion_mask` to say where the answer starts"
            )
    elif {"prompt", "completion"} <= columns:
        form = "pair"
    elif "messages" in columns:
        form = "messages"
    else:
        raise DataError(
            f"{source}: the columns {', '.join(sorted(columns))} hold no example. Wanted: `messages`, or `prompt` and "
            "`completion`, or `input_ids` and `labels`"
        )
    conversational = tokenizer.chat_template is not None if form == "ids" else form == "messages"
    if form == "pair":
        conversational = isinstance(dataset[0]["prompt"], list)
    if form != "ids" and conversational and tokenizer.chat_template is None:
        raise ConfigError(
            f"{source}: the rows are conversations, but the tokenizer {tokenizer.name_or_path!r} has no chat "
            "template: set chat_template or chat_template_path"
        )
    tokenise = _Tokenise(tokenizer, form, frozenset(stops), max_length, truncate_long_rows)
    features = Features(
        {
            "id": Value("string"),
            "prompt": List(Value("int64")),
            "reference": List(Value("int64")),
            "trailer": List(Value("int64")),
            "fault": Value("string"),
            "cut_prompt": Value("bool"),
            "truncated": Value("bool"),
        }
    )
    # Neither written to nor read from the cache of `datasets`: its key does not cover the code of this module.
    table = dataset.map(
        tokenise,
        remove_columns=dataset.column_names,
        features=features,
        num_proc=num_proc,
        desc="Tokenizing",
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    ids, faults = _unique_ids(table["id"][:], table["fault"][:], explicit="id" in columns)
    bad_rows = [BadRow(row, ids[row], fault) for row, fault in enumerate(faults) if fault]
    good = [row for row, fault in enumerate(faults) if not fault]
    _report_bad_rows(bad_rows, len(table), source, on_bad_rows)
    if not good:
        raise DataError(f"{source}: no row is left after {len(bad_rows)} bad rows were skipped")
    cut = sum(table["cut_prompt"][:])
    if cut:
        logger.warning(
            "%s: in %d of %d rows the tokenised prompt is no prefix of the tokenised row, because tokens merge "
            "across the border "
            "or the chat template renders the prompt alone differently; the answer starts where the two part",
            source, cut, len(table),
        )  # fmt: skip
    truncated = sum(table["truncated"][:])
    table = table.remove_columns(["id", "fault", "cut_prompt", "truncated"]).add_column("id", ids)
    if bad_rows:
        table = table.select(good)
    return ExampleSet(table, bad_rows, source, cut, truncated, conversational)


class _Tokenise:
    """Row → token ids and fault. A class, so that `datasets` can send it to worker processes."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        form: str,
        stops: frozenset[int],
        max_length: int | None,
        truncate_long_rows: bool,
    ) -> None:
        self.tokenizer, self.form, self.stops = tokenizer, form, stops
        self.max_length, self.truncate_long_rows = max_length, truncate_long_rows
        self.vocabulary = len(tokenizer)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        fault, prompt, answer, cut = self._split(row)
        reference, trailer, truncated = answer, [], False
        if not fault:
            fault = "the prompt has no token" if not prompt else "the answer has no token" if not answer else ""
        if not fault:
            end = max((at + 1 for at, token in enumerate(answer) if token in self.stops), default=0)
            reference, trailer = answer[:end], answer[end:]
            if not end:
                ending = self.tokenizer.convert_ids_to_tokens(answer[-3:])
                fault = (
                    f"no EOS: the answer ends with {ending} and holds none of the stop tokens "
                    f"{self.tokenizer.convert_ids_to_tokens(sorted(self.stops))}; set eos_token to the one the "
                    f"template uses"
                )
            elif end == 1:
                fault = "the answer is empty: it holds nothing but EOS"
        if not fault and self.max_length is not None:
            room = self.max_length - len(prompt)
            if room < 1:
                fault = f"over-length: the prompt alone has {len(prompt)} tokens, max_length is {self.max_length}"
            elif len(answer) > room and self.truncate_long_rows:
                reference, trailer, truncated = answer[:room][: len(reference)], answer[len(reference) : room], True
            elif len(answer) > room:
                fault = f"over-length: {len(prompt)} + {len(answer)} tokens, max_length is {self.max_length}"
        given = row.get("id")
        content = hashlib.blake2b(json.dumps([prompt, answer]).encode(), digest_size=8).hexdigest()
        return {
            "id": content if given is None else str(given),
            "prompt": prompt,
            "reference": reference,
            "trailer": trailer,
            "fault": fault,
            "cut_prompt": cut and not fault,
            "truncated": truncated,
        }

    def _split(self, row: dict[str, Any]) -> tuple[str, list[int], list[int], bool]:
        """(fault, prompt ids, answer ids, whether the prompt lost its end to the answer)."""
        if self.form == "ids":
            return self._split_ids(row)
        if self.form == "messages":
            messages = row["messages"]
            fault = _messages_fault("messages", messages)
            if not fault and messages[-1]["role"] != "assistant":
                fault = f"messages ends with a {messages[-1]['role']} turn: there is no answer to learn"
            if not fault and len(messages) < 2:
                fault = "messages has no turn before the answer"
            if fault:
                return fault, [], [], False
            prompt, completion = messages[:-1], messages[-1:]
        else:
            prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            fault = _messages_fault("prompt", prompt) or _messages_fault("completion", completion)
            return (fault, [], [], False) if fault else self._chat(row, prompt, completion)
        fault = _text_fault("prompt", prompt) or _text_fault("completion", completion)
        return (fault, [], [], False) if fault else self._text(prompt, completion)

    def _chat(
        self, row: dict[str, Any], prompt: list[Any], completion: list[Any]
    ) -> tuple[str, list[int], list[int], bool]:
        tools, options = row.get("tools"), row.get("chat_template_kwargs") or {}
        try:
            options = {"tools": json.loads(tools) if isinstance(tools, str) else tools, **options}
        except (json.JSONDecodeError, TypeError) as error:
            return f"tools is no JSON, or chat_template_kwargs no mapping: {error}", [], [], False
        apply = self.tokenizer.apply_chat_template
        try:
            before = apply(prompt, add_generation_prompt=True, return_dict=True, **options)
            whole = apply(prompt + completion, return_dict=True, **options)
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template, line {error.lineno}: {error}; mend chat_template") from error
        except (TemplateError, ValueError, TypeError) as error:
            return f"the chat template refuses it: {error}", [], [], False
        return _cut(list(before["input_ids"]), list(whole["input_ids"]))

    def _text(self, prompt: str, completion: str) -> tuple[str, list[int], list[int], bool]:
        eos = self.tokenizer.eos_token
        completion = completion if completion.endswith(eos) else completion + eos
        return _cut(self.tokenizer(prompt)["input_ids"], self.tokenizer(prompt + completion)["input_ids"])

    def _split_ids(self, row: dict[str, Any]) -> tuple[str, list[int], list[int], bool]:
        ids, labels = row["input_ids"], row.get("labels")
        mask = row.get("completion_mask") if labels is None else labels
        if not ids or not isinstance(ids, list) or not isinstance(mask, list):
            return "input_ids or its mask is null, empty or no list", [], [], False
        if labels is not None:
            mask = [label != -100 for label in labels]
        foreign = [index for index in ids if not isinstance(index, int) or not 0 <= index < self.vocabulary]
        if foreign:
            return f"input_ids: {foreign[0]!r} is none of the tokenizer's {self.vocabulary} ids", [], [], False
        if len(mask) != len(ids):
            return f"{len(ids)} input_ids but {len(mask)} labels or mask entries", [], [], False
        if labels is not None and any(label not in (-100, token) for label, token in zip(labels, ids, strict=True)):
            return "labels differ from input_ids: these are contexts already, not an example", [], [], False
        if not any(mask):
            return "no trainable token: every label is -100", [], [], False
        start = list(map(bool, mask)).index(True)
        if not all(mask[start:]):
            return "the trained tokens are not one piece at the end of the row", [], [], False
        return "", ids[:start], ids[start:], False


def _cut(prompt: list[int], whole: list[int]) -> tuple[str, list[int], list[int], bool]:
    common = 0
    for a, b in zip(prompt, whole, strict=False):
        if a != b:
            break
        common += 1
    return "", whole[:common], whole[common:], common < len(prompt)


def _text_fault(name: str, value: Any) -> str:
    if value is None:
        return f"{name} is null"
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__}, not a string"
    return "" if value.strip() else f"{name} is empty"


def _messages_fault(name: str, messages: Any) -> str:
    if not messages:
        return f"{name} is null or empty"
    if not isinstance(messages, list):
        return f"{name} is {type(messages).__name__}, not a list of turns"
    for turn, message in enumerate(messages):
        if not isinstance(message, dict) or not message.get("role"):
            return f"{name}, turn {turn}: no role"
        if message.get("tool_calls"):
            continue
        fault = _text_fault(f"{name}, turn {turn} ({message['role']}): content", message.get("content"))
        if fault:
            return fault
    return ""


def _unique_ids(ids: list[str], faults: list[str], *, explicit: bool) -> tuple[list[str], list[str]]:
    """Given ids must differ; ids made from the content get a number where a row occurs again."""
    seen: dict[str, int] = {}
    times: Counter[str] = Counter()
    unique, all_faults = [], []
    for row, (example_id, fault) in enumerate(zip(ids, faults, strict=True)):
        first = seen.setdefault(example_id, row)
        if first != row and explicit and not fault:
            fault = f"duplicate id: row {first} has the same one"
        elif first != row and not explicit:
            times[example_id] += 1
            example_id = f"{example_id}-{times[example_id] + 1}"
        unique.append(example_id)
        all_faults.append(fault)
    return unique, all_faults


def _report_bad_rows(bad_rows: list[BadRow], total: int, source: str, on_bad_rows: str) -> None:
    if not bad_rows:
        return
    lines = [f"{source}, row {bad.row} (id {bad.id}): {bad.reason}" for bad in bad_rows]
    if on_bad_rows == "raise":
        more = [f"… and {len(lines) - SHOWN_BAD_ROWS} more"] if len(lines) > SHOWN_BAD_ROWS else []
        way_out = (
            f"{len(bad_rows)} of {total} rows cannot be used: mend them, or leave them out with on_bad_rows: skip"
        )
        raise DataError([way_out, *lines[:SHOWN_BAD_ROWS], *more])
    for line in lines[:SHOWN_BAD_ROWS]:
        logger.warning("skipped %s", line)
    logger.warning("%s: %d of %d rows skipped", source, len(bad_rows), total)
