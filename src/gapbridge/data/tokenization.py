"""Data sets as examples: prompts and reference answers as token ids, and every row that cannot be one listed.

The chat template is applied here, once; from here on only ids travel. Decoding sampled ids and encoding the text again
gives other ids, and prompt and answer tokenised apart lose the tokens at their border, so both are tokenised together.
A chat is cut where the template's generation prompt ends (`chat_splitting.py`), plain text where TRL's `SFTTrainer`
cuts it: after the longest common prefix of the prompt's ids and the whole row's ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import ConfigError, DataError, describe
from .chat_splitting import ChatSplitter, PromptCompletionMask, split_pair
from .chat_template import ChatTemplate
from .conversation import read_conversation, read_whole_conversation, without_padding
from .example import EXAMPLE_FEATURES, ExampleSet
from .formats import REPAIR_ROW, TEXT_FIELD, as_messages, describe_empty, detect_form, readable
from .loss_scope import LossScope
from .pauses import pauses_after_prompt, with_pauses
from .pretokenized import split_ids
from .rendering import RENDER_ERRORS
from .row_table import tokenise_rows
from .special_tokens import UndecodableTokens, completion_end
from .text import TextEncoder


logger = logging.getLogger(__name__)


def build_examples(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stops: Sequence[int],
    max_length: int | None,
    on_invalid_example: str = "raise",
    truncate_overlong: bool = False,
    num_proc: int | None = None,
    source: str = "train_dataset",
    train_on_assistant_turns: str = "all",
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    text_field: str = TEXT_FIELD,
    assistant_only_loss: bool = True,
    completion_only_loss: bool = True,
) -> ExampleSet:
    """Tokenise a data set in one of TRL's forms, or take its ids as they are.

    Forms: `messages`, or `conversations` of `from` and `value`; `prompt` and `completion` as lists of messages or as
    strings; plain text, which has no prompt (`Example.has_prompt`); `input_ids` with `labels`, with `completion_mask`
    and `assistant_masks`, or alone (`pretokenized.py`). `messages` win over a `prompt` column without
    `completion` (UltraChat's `prompt` repeats the first user turn). A row may bring `tools` and
    `chat_template_kwargs`. An `id` column is used where there is one; otherwise an id is a hash of the content. For a
    model with pauses (`pauses.py`) they stand at the end of each prompt, and a conversation is one example a turn.

    Args:
        stops: token ids that end an answer, from `stop_tokens`.
        max_length: the most tokens in a row, prompt and answer together; None for no limit.
        on_invalid_example: `raise` or `skip`. Both list every bad row with its number, id and reason.
        truncate_overlong: cut rows to `max_length`, as TRL does, and leave out those that have nothing left to learn;
            one warning counts them. Else they are bad rows.
        train_on_assistant_turns: which turns of `messages` are answers: `all`, as in TRL's `assistant_only_loss`, or
            `last`. What is asked once a row (an evaluation, a gap) takes `last`.
        date: the day, `YYYY-MM-DD`, for templates that write today's date; None takes the clock. A run keeps the day
            on which it began and passes it each time, and so does what is evaluated afterwards: otherwise the examples
            differ after midnight.
        chat_template_kwargs: arguments of the chat template for every row, such as `{"enable_thinking": False}`; a
            row's own `chat_template_kwargs` win.
        text_field: the column of plain text.
        assistant_only_loss: whether of conversations the assistant's turns alone are trained; else all of it, which
            then has no prompt.
        completion_only_loss: the same of prompts and completions, and whether `completion_mask` holds.

    Raises:
        DataError: the data set is empty, has no known columns, has bad rows (with `raise`), has no good row, holds
            images, or makes its rows again whenever they are read.
        ConfigError: there is no chat template for conversations, it is no Jinja, or an argument cannot be used.
    """
    if train_on_assistant_turns not in ("all", "last"):
        got = repr(train_on_assistant_turns)
        raise ConfigError("train_on_assistant_turns", got, "all or last", "Choose one of them")
    if not len(dataset):
        raise DataError(describe_empty(source))
    dataset = readable(dataset, source)
    form = detect_form(set(dataset.column_names), source, text_field)
    conversational = form in ("messages", "conversations")
    if form == "ids":
        conversational = tokenizer.chat_template is not None
    if form == "pair":
        conversational = isinstance(dataset[0]["prompt"], list)
    if form != "ids" and conversational:
        require_template(tokenizer, source)
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs or {})
    loss = LossScope(train_on_assistant_turns == "all", assistant_only_loss, completion_only_loss)
    tokenise = RowTokeniser(
        template, form, frozenset(stops), max_length, truncate_overlong, loss, text_field=text_field
    )
    made = tokenise_rows(
        dataset, tokenise, EXAMPLE_FEATURES, num_proc=num_proc, source=source, on_invalid_example=on_invalid_example
    )
    examples = ExampleSet(
        made.table, made.bad_rows, source, made.cut, made.truncated, conversational, tuple(stops), date,
        dict(chat_template_kwargs or {}), loss.in_words(form), made.left_out,
    )  # fmt: skip
    return with_pauses(examples, pauses_after_prompt(tokenizer))


def require_template(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise ConfigError where conversations have no chat template."""
    if tokenizer.chat_template is None:
        got = f"conversations, and the tokenizer {tokenizer.name_or_path!r} has no chat template"
        raise ConfigError(source, got, "a chat template", "Set chat_template or chat_template_path")


class RowTokeniser:
    """Row → token ids and error. A class, so that `datasets` can send it to worker processes.

    `answer` names the column that holds the answer beside a `prompt`.
    """

    def __init__(
        self,
        template: ChatTemplate,
        form: str,
        stops: frozenset[int],
        max_length: int | None,
        truncate_overlong: bool,
        loss: LossScope,
        answer: str = "completion",
        text_field: str = TEXT_FIELD,
    ) -> None:
        self.template, self.tokenizer, self.form, self.stops = template, template.tokenizer, form, stops
        self.max_length, self.truncate_overlong, self.loss = max_length, truncate_overlong, loss
        self.answer, self.text_field, self.whole = answer, text_field, loss.on_whole(form)
        self.vocabulary = len(self.tokenizer)
        self.pauses = len(pauses_after_prompt(self.tokenizer))
        self.fillers = UndecodableTokens(self.tokenizer, stops)
        self.text = TextEncoder.of(self.tokenizer)
        self.splitter = None
        if form != "ids" and self.tokenizer.chat_template is not None:
            self.splitter = ChatSplitter(template, stops, self.fillers)

    def __call__(self, row: dict[str, Any], features: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A row as columns of `EXAMPLE_FEATURES` and `FLAGS`; `features`: columns that Arrow may have padded."""
        row = {**row, **{name: without_padding(row[name], feature) for name, feature in (features or {}).items()}}
        split, end, room, arguments, error = PromptCompletionMask(), 0, 0, None, ""
        try:
            own = row.get("chat_template_kwargs")
            arguments = json.dumps(own, sort_keys=True) if own else None
            split = self._split(row)
            end, room = self._end(split), self._room(split)
        except ConfigError:
            raise
        except DataError as refusal:
            error = str(refusal)
        except RENDER_ERRORS as failure:
            # What JSON can hold and no text: large numbers, deep nesting, half surrogates.
            got = f"values that cannot be read ({type(failure).__name__} {failure})"
            error = describe("row", got, "text", REPAIR_ROW)
        answer = split.answer
        trained = split.loss_mask or [True] * len(answer)
        too_long = not error and room < len(answer)
        left_out = too_long and not any(trained[:room])
        content = hashlib.blake2b(json.dumps([split.prompt, answer]).encode(), digest_size=8).hexdigest()
        remaining = min(room, end)
        return {
            "id": given_id(row) or content,
            "prompt": split.prompt,
            "completion_ids": answer[:remaining],
            "template_suffix_ids": [
                token for token, loss in zip(answer[end:room], trained[end:room], strict=True) if loss
            ],
            "loss_mask": None if all(trained[:remaining]) else trained[:remaining],
            "generation_prompt_ids": split.generation_prompt_ids,
            "template_kwargs_json": None if error else arguments,
            "has_prompt": None if split.has_prompt else False,
            "error": error,
            "cut_prompt": split.generation_prompt_ids is not None and not error,
            "truncated": too_long and not left_out,
            "endless": too_long and room < end and not left_out,
            "left_out": left_out,
        }

    def _split(self, row: dict[str, Any]) -> PromptCompletionMask:
        """A row in prompt and answer, before anything is cut."""
        if self.form == "ids":
            return split_ids(row, self.vocabulary, completion_only=self.loss.completion_only)
        if self.form == "text":
            require_text(self.text_field, row[self.text_field])
            return _whole(self.text.ids(self.text.closed(row[self.text_field])))
        is_pair, names = self.form == "pair", (self.form, self.form)
        before: Any = []
        answers: Any = None if is_pair else as_messages(row[self.form])
        if is_pair:
            before, answers, names = row["prompt"], row[self.answer], ("prompt", self.answer)
            if not isinstance(before, list) or not isinstance(answers, list):
                require_text("prompt", before)
                require_text(self.answer, answers)
                full = self.text.ids(before + self.text.closed(answers))
                return _whole(full) if self.whole else split_pair(self.text.ids(before), full)
            require_messages("prompt", before)
        require_messages(names[1], answers)
        if self.splitter is None:
            got, advice = "a conversation for a tokenizer without a chat template", "Set chat_template"
            raise DataError("row", got, "a chat template", advice)
        if self.whole or (is_pair and not self.loss.assistant_only):
            conversation, options = read_whole_conversation(before, answers, names), template_options(row)
            ids = self.splitter.whole(conversation, **options)
            if self.whole:
                return _whole(ids)
            return split_pair(self.template.ids(conversation.messages[: len(before)], ask=True, **options), ids)
        conversation = read_conversation(before, answers, names, all_turns=self.loss.all_turns)
        return self.splitter.split(conversation, **template_options(row))

    def _end(self, split: PromptCompletionMask) -> int:
        """How many tokens of the answer there are up to its stop token. Raises DataError where there is none."""
        if split.error:
            raise DataError(split.error)
        answer, trained = split.answer, split.loss_mask or [True] * len(split.answer)
        if not split.prompt or not answer:
            if not split.has_prompt:
                raise DataError("row", "a single token", "at least two", REPAIR_ROW)
            raise DataError("prompt" if not split.prompt else self.answer, "no token", "at least one", REPAIR_ROW)
        end = completion_end(answer, self.stops, self.fillers)
        if not end and not split.loss_mask:  # one piece, with words after its stop token
            end = max((at + 1 for at, token in enumerate(answer) if token in self.stops), default=0)
        if self.form == "ids":  # as they are given, whatever they end with
            return end if end and all(trained[end:]) else len(answer)
        if not end:
            ending = self.tokenizer.convert_ids_to_tokens(answer[-3:])
            special = [token for token in answer[-3:] if token in self.tokenizer.added_tokens_decoder]
            advice = "End answers with a stop token, in the chat template or in the data"
            if special:
                advice = f"Set eos_token: {self.tokenizer.convert_ids_to_tokens(special[-1])!r}"
            expected = f"one of the stop tokens {self.tokenizer.convert_ids_to_tokens(sorted(self.stops))}"
            raise DataError(self.answer, f"no EOS, but {ending} at the end", expected, advice)
        if end == 1 and split.has_prompt:
            raise DataError(self.answer, "an empty answer with EOS alone", "at least one token before it", REPAIR_ROW)
        return end

    def _room(self, split: PromptCompletionMask) -> int:
        """How many tokens of the answer `max_length` leaves. Raises DataError where none may be cut."""
        if self.max_length is None:
            return len(split.answer)
        asks, expected = len(split.prompt) + self.pauses, f"max_length ({self.max_length})"
        room = self.max_length - asks
        if room < len(split.answer) and not self.truncate_overlong:
            if room < 1:
                got = f"an over-length prompt alone of {asks} tokens"
                raise DataError("length", got, f"less than {expected}", REPAIR_ROW)
            got = f"an over-length row of {asks} + {len(split.answer)} tokens"
            raise DataError("length", got, f"at most {expected}", REPAIR_ROW)
        return max(0, room)


def _whole(ids: list[int]) -> PromptCompletionMask:
    """A row that is trained from its first token on: no model predicts that one, so that it stands for the prompt."""
    return PromptCompletionMask(list(ids[:1]), list(ids[1:]), has_prompt=False)


def given_id(row: Mapping[str, Any]) -> str:
    """The id that a row brings, without what no file can hold; empty where it brings none."""
    given = row.get("id")
    try:
        return "" if given is None else str(given).encode(errors="backslashreplace").decode()
    except ValueError:  # a number with more digits than Python writes
        return ""


def template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the chat template that a row brings, its tools among them. Raises DataError."""
    tools, options = row.get("tools"), row.get("chat_template_kwargs") or {}
    try:
        return {"tools": json.loads(tools) if isinstance(tools, str) else tools, **options}
    except (ValueError, TypeError, RecursionError) as error:
        got, expected = f"values that cannot be read ({error})", "JSON and a mapping"
        raise DataError("tools and chat_template_kwargs", got, expected, REPAIR_ROW) from error


def require_text(name: str, value: Any) -> None:
    """Raise DataError where the value of a column, or of a turn, is no text."""
    if not isinstance(value, str):
        raise DataError(name, "null" if value is None else type(value).__name__, "a string", REPAIR_ROW)
    if not value.strip():
        raise DataError(name, "an empty string", "text", REPAIR_ROW)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = f"{name}, character {error.start}"
        raise DataError(place, "half of a surrogate pair", "text", REPAIR_ROW) from error


def require_messages(name: str, messages: Any) -> None:
    """Raise DataError where the value of a column is no list of turns."""
    if not messages or not isinstance(messages, list):
        got = type(messages).__name__ if messages else "null or an empty list"
        raise DataError(name, got, "a list of turns", REPAIR_ROW)
    for turn, message in enumerate(messages):
        if not isinstance(message, dict) or not message.get("role"):
            raise DataError(f"{name}, turn {turn}", "no role", "a role", REPAIR_ROW)
        if not isinstance(message["role"], str):
            raise DataError(f"{name}, turn {turn}, role", type(message["role"]).__name__, "a string", REPAIR_ROW)
        if not message.get("tool_calls"):
            require_text(f"{name}, turn {turn} ({message['role']}), content", message.get("content"))
