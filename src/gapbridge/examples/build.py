"""Data sets as examples: prompts and reference answers as token ids, and every row that cannot be one listed.

The chat template is applied here, once; from here on only ids travel. Decoding sampled ids and encoding the text again
gives other ids, and prompt and answer tokenised apart lose the tokens at their border, so both are tokenised together.
A chat is cut where the template's generation prompt ends (`turns.py`), plain text where TRL's `SFTTrainer` cuts it:
after the longest common prefix of the prompt's ids and the whole row's ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from ..errors import ConfigError, DataError
from ..files import writing
from .conversation import WithoutPadding, read_conversation
from .example import EXAMPLE_FEATURES, BadRow, ExampleSet
from .pauses import pauses_after_prompt, with_pauses
from .rendering import RENDER_ERRORS
from .tables import PART
from .template import ChatTemplate
from .text import TextEncoder
from .tokens import Fillers, answer_end
from .turns import ChatSplitter, Split, split_pair


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
    assistant_turns: str = "all",
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ExampleSet:
    """Tokenise a data set in one of TRL's forms, or take its ids as they are.

    Forms: `messages`; `prompt` and `completion` as lists of messages or as strings; `input_ids` with `labels` or
    `completion_mask` (the reference starts at the first trained token). `messages` win over a `prompt` column without
    `completion` (UltraChat's `prompt` repeats the first user turn). A row may bring `tools` and
    `chat_template_kwargs`. An `id` column is used where there is one; otherwise an id is a hash of the content. For a
    model with pauses (`pauses.py`) they stand at the end of each prompt, and a conversation is one example a turn.

    Args:
        stops: token ids that end an answer, from `stop_tokens`.
        max_length: the most tokens in a row, prompt and answer together; None for no limit.
        on_bad_rows: `raise` or `skip`. Both list every bad row with its number, id and reason.
        truncate_long_rows: cut answers that do not fit (they lose their EOS), as TRL does, instead of refusing them.
        assistant_turns: which turns of `messages` are answers: `all`, as in TRL's `assistant_only_loss`, or `last`.
            What is asked once a row (an evaluation, a gap) takes `last`.
        date: the day, `YYYY-MM-DD`, for templates that write today's date; None takes the clock. A run keeps the day
            on which it began and passes it each time, and so does what is evaluated afterwards: otherwise the examples
            differ after midnight.
        chat_template_kwargs: arguments of the chat template for every row, such as `{"enable_thinking": False}`; a
            row's own `chat_template_kwargs` win.

    Raises:
        DataError: the data set is empty, has no known columns, has bad rows (with `raise`), or has no good row.
        ConfigError: there is no chat template for conversations, it is no Jinja, or an argument cannot be used.
    """
    if assistant_turns not in ("all", "last"):
        raise ConfigError(f"assistant_turns is {assistant_turns!r}: choose one of all, last")
    if not len(dataset):
        raise DataError(f"{source}: the data set is empty")
    form = _form(set(dataset.column_names), source)
    conversational = tokenizer.chat_template is not None if form == "ids" else form == "messages"
    if form == "pair":
        conversational = isinstance(dataset[0]["prompt"], list)
    if form != "ids" and conversational:
        require_template(tokenizer, source)
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs or {})
    tokenise = RowTokeniser(template, form, frozenset(stops), max_length, truncate_long_rows, assistant_turns == "all")
    table, bad_rows, cut, truncated = tokenise_rows(
        dataset, tokenise, EXAMPLE_FEATURES, num_proc=num_proc, source=source, on_bad_rows=on_bad_rows
    )
    examples = ExampleSet(
        table, bad_rows, source, cut, truncated, conversational, tuple(stops), date, dict(chat_template_kwargs or {})
    )
    return with_pauses(examples, pauses_after_prompt(tokenizer))


def require_template(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise ConfigError where conversations have no chat template."""
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"{source}: the rows are conversations, but the tokenizer {tokenizer.name_or_path!r} has no chat "
            "template: set chat_template or chat_template_path"
        )


def tokenise_rows(
    dataset: Dataset,
    tokenise: Callable[[dict[str, Any]], dict[str, Any]],
    features: Features,
    *,
    num_proc: int | None,
    source: str,
    on_bad_rows: str,
) -> tuple[Dataset, list[BadRow], int, int]:
    """The good rows of a data set in columns of `features`, the bad rows, and how many were cut at the border of
    prompt and answer or truncated.

    Args:
        tokenise: a row → `features`, and the flags `fault`, `cut_prompt` and `truncated`.

    Raises:
        DataError: there are bad rows (with `raise`), or no good one.
    """
    flags = {"fault": Value("string"), "cut_prompt": Value("bool"), "truncated": Value("bool")}
    # Neither written to nor read from the cache of `datasets`: its key does not cover the code of this module. The
    # file is mapped into memory, and gone when nobody uses it any more.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, writing(Path(folder) / "rows.arrow"):
        table = dataset.map(
            _Unpadded(tokenise, dataset.features),
            remove_columns=dataset.column_names,
            features=Features({**features, **flags}),
            num_proc=num_proc,
            desc="Tokenizing",
            load_from_cache_file=False,
            cache_file_name=f"{folder}/rows.arrow",
            writer_batch_size=PART,
        )
    ids, faults = _unique_ids(table["id"][:], table["fault"][:], explicit="id" in dataset.column_names)
    bad_rows = [BadRow(row, ids[row], fault) for row, fault in enumerate(faults) if fault]
    good = [row for row, fault in enumerate(faults) if not fault]
    _report_bad_rows(bad_rows, len(table), source, on_bad_rows)
    if not good:
        raise DataError(f"{source}: no row is left after {len(bad_rows)} bad rows were skipped")
    cut = sum(table["cut_prompt"][:])
    if cut:
        logger.warning(
            "%s: in %d of %d rows the tokenised prompt is no prefix of the tokenised row, because tokens merge across "
            "the border; the answer starts where the two part",
            source, cut, len(table),
        )  # fmt: skip
    truncated = sum(table["truncated"][:])
    table = table.remove_columns(["id", *flags]).add_column("id", ids)
    if bad_rows:
        table = table.select(good)
    return table, bad_rows, cut, truncated


def _form(columns: set[str], source: str) -> str:
    if "input_ids" in columns:
        if not columns & {"labels", "completion_mask"}:
            raise DataError(
                f"{source}: `input_ids` needs `labels` or `completion_mask` to say where the answer starts"
            )
        return "ids"
    if {"prompt", "completion"} <= columns:
        return "pair"
    if "messages" in columns:
        return "messages"
    raise DataError(
        f"{source}: the columns {', '.join(sorted(columns))} hold no example. Wanted: `messages`, or `prompt` and "
        "`completion`, or `input_ids` and `labels`"
    )


class _Unpadded:
    """`tokenise` for rows without the nulls that Arrow pads them with."""

    def __init__(self, tokenise: Callable[[dict[str, Any]], dict[str, Any]], features: Features) -> None:
        self._tokenise, self._without_padding = tokenise, WithoutPadding(features)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._tokenise(self._without_padding(row))


class RowTokeniser:
    """Row → token ids and fault. A class, so that `datasets` can send it to worker processes.

    `answer` names the column that holds the answer beside a `prompt`.
    """

    def __init__(
        self,
        template: ChatTemplate,
        form: str,
        stops: frozenset[int],
        max_length: int | None,
        truncate_long_rows: bool,
        all_turns: bool,
        answer: str = "completion",
    ) -> None:
        self.tokenizer, self.form, self.stops = template.tokenizer, form, stops
        self.max_length, self.truncate_long_rows, self.all_turns = max_length, truncate_long_rows, all_turns
        self.answer = answer
        self.vocabulary = len(self.tokenizer)
        self.pauses = len(pauses_after_prompt(self.tokenizer))
        self.fillers = Fillers(self.tokenizer, stops)
        self.text = TextEncoder.of(self.tokenizer)
        self.splitter = None
        if form != "ids" and self.tokenizer.chat_template is not None:
            self.splitter = ChatSplitter(template, stops, self.fillers)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        split = self._read(row)
        fault, prompt, answer = split.fault, split.prompt, split.answer
        trained = split.trained or [True] * len(answer)
        if not fault:
            fault = "the prompt has no token" if not prompt else "the answer has no token" if not answer else ""
        end = 0
        if not fault:
            end = answer_end(answer, self.stops, self.fillers)
            if not end and not split.trained:  # one piece, with words after its stop token
                end = max((at + 1 for at, token in enumerate(answer) if token in self.stops), default=0)
            fault = self._ending_fault(answer, end)
        asks = len(prompt) + self.pauses
        room = len(answer) if self.max_length is None else self.max_length - asks
        truncated = not fault and room < len(answer)
        if not fault and room < 1:
            fault = f"over-length: the prompt alone has {asks} tokens, max_length is {self.max_length}"
        elif truncated and not self.truncate_long_rows:
            fault = f"over-length: {asks} + {len(answer)} tokens, max_length is {self.max_length}"
        content = hashlib.blake2b(json.dumps([prompt, answer]).encode(), digest_size=8).hexdigest()
        kept = min(room, end)
        return {
            "id": given_id(row) or content,
            "prompt": prompt,
            "reference": answer[:kept],
            "trailer": [token for token, loss in zip(answer[end:room], trained[end:room], strict=True) if loss],
            "trained": None if all(trained[:kept]) else trained[:kept],
            "asked": split.asked,
            "arguments": None if fault else arguments_of(row),
            "fault": fault,
            "cut_prompt": split.asked is not None and not fault,
            "truncated": truncated and not fault,
        }

    def _ending_fault(self, answer: list[int], end: int) -> str:
        if not end:
            ending = self.tokenizer.convert_ids_to_tokens(answer[-3:])
            return (
                f"no EOS: the answer ends with {ending} and holds none of the stop tokens "
                f"{self.tokenizer.convert_ids_to_tokens(sorted(self.stops))}; set eos_token to the one the "
                "template uses"
            )
        return "the answer is empty: it holds nothing but EOS" if end == 1 else ""

    def _read(self, row: dict[str, Any]) -> Split:
        try:
            arguments_of(row)
            return self._split(row)
        except ConfigError:
            raise
        except DataError as error:
            return Split(fault=str(error))
        except RENDER_ERRORS as error:  # what JSON can hold and no text: large numbers, deep nesting, half surrogates
            return Split(fault=f"cannot be read: {type(error).__name__} {error}".strip())

    def _split(self, row: dict[str, Any]) -> Split:
        if self.form == "ids":
            return self._split_ids(row)
        if self.form == "messages":
            messages = row["messages"]
            fault = messages_fault("messages", messages)
            return Split(fault=fault) if fault else self._chat(row, [], messages, ("messages", "messages"))
        prompt, completion = row["prompt"], row[self.answer]
        if isinstance(prompt, list) and isinstance(completion, list):
            fault = messages_fault("prompt", prompt) or messages_fault(self.answer, completion)
            return Split(fault=fault) if fault else self._chat(row, prompt, completion, ("prompt", self.answer))
        fault = text_fault("prompt", prompt) or text_fault(self.answer, completion)
        return Split(fault=fault) if fault else self._text(prompt, completion)

    def _chat(self, row: dict[str, Any], before: list[Any], answers: list[Any], names: tuple[str, str]) -> Split:
        if self.splitter is None:
            return Split(fault="it is a conversation, and the tokenizer has no chat template")
        conversation = read_conversation(before, answers, names, all_turns=self.all_turns)
        if isinstance(conversation, str):
            return Split(fault=conversation)
        tools, options = row.get("tools"), row.get("chat_template_kwargs") or {}
        try:
            options = {"tools": json.loads(tools) if isinstance(tools, str) else tools, **options}
        except (ValueError, TypeError, RecursionError) as error:
            return Split(fault=f"tools is no JSON, or chat_template_kwargs no mapping: {error}")
        return self.splitter.split(conversation, **options)

    def _text(self, prompt: str, completion: str) -> Split:
        return split_pair(self.text.ids(prompt), self.text.ids(prompt + self.text.closed(completion)))

    def _split_ids(self, row: dict[str, Any]) -> Split:
        ids, labels = row["input_ids"], row.get("labels")
        mask = row.get("completion_mask") if labels is None else labels
        if not ids or not isinstance(ids, list) or not isinstance(mask, list):
            return Split(fault="input_ids or its mask is null, empty or no list")
        if labels is not None:
            mask = [label != -100 for label in labels]
        foreign = [index for index in ids if not isinstance(index, int) or not 0 <= index < self.vocabulary]
        if foreign:
            return Split(fault=f"input_ids: {foreign[0]!r} is none of the tokenizer's {self.vocabulary} ids")
        if len(mask) != len(ids):
            return Split(fault=f"{len(ids)} input_ids but {len(mask)} labels or mask entries")
        if labels is not None and any(label not in (-100, token) for label, token in zip(labels, ids, strict=True)):
            return Split(fault="labels differ from input_ids: these are contexts already, not an example")
        if not any(mask):
            return Split(fault="no trainable token: every label is -100")
        start = list(map(bool, mask)).index(True)
        if not all(mask[start:]):
            return Split(fault="the trained tokens are not one piece at the end of the row")
        return Split(ids[:start], ids[start:])


def given_id(row: Mapping[str, Any]) -> str:
    """The id that a row brings, without what no file can hold; empty where it brings none."""
    given = row.get("id")
    try:
        return "" if given is None else str(given).encode(errors="backslashreplace").decode()
    except ValueError:  # a number with more digits than Python writes
        return ""


def arguments_of(row: Mapping[str, Any]) -> str | None:
    """The arguments of the chat template that a row brings, as JSON."""
    own = row.get("chat_template_kwargs")
    return json.dumps(own, sort_keys=True) if own else None


def text_fault(name: str, value: Any) -> str:
    if value is None:
        return f"{name} is null"
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__}, not a string"
    return "" if value.strip() else f"{name} is empty"


def messages_fault(name: str, messages: Any) -> str:
    if not messages:
        return f"{name} is null or empty"
    if not isinstance(messages, list):
        return f"{name} is {type(messages).__name__}, not a list of turns"
    for turn, message in enumerate(messages):
        if not isinstance(message, dict) or not message.get("role"):
            return f"{name}, turn {turn}: no role"
        if not isinstance(message["role"], str):
            return f"{name}, turn {turn}: role is {type(message['role']).__name__}, not a string"
        if message.get("tool_calls"):
            continue
        fault = text_fault(f"{name}, turn {turn} ({message['role']}): content", message.get("content"))
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
    shown = lines[:SHOWN_BAD_ROWS]
    if on_bad_rows == "raise":
        more = f" ({len(lines) - len(shown)} more are not shown)" if len(lines) > len(shown) else ""
        cut = any(bad.reason.startswith("over-length") and "alone" not in bad.reason for bad in bad_rows)
        shorten = (
            ", cut long answers (truncate_long_rows=True; `truncate_long_rows: true` in a recipe)," if cut else ""
        )
        shown[-1] += (
            f"\n{len(lines)} of {total} rows cannot be used{more}: mend them{shorten} or leave them out "
            "(on_bad_rows='skip'; `on_bad_rows: skip` in a recipe)"
        )
        raise DataError(shown)
    for line in shown:
        logger.warning("skipped %s", line)
    logger.warning("%s: %d of %d rows skipped", source, len(bad_rows), total)
