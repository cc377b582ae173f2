"""A chat template as examples need it: text and ids of a conversation, on a frozen date, and its training variant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import BatchEncoding

from ..compat import training_chat_template
from ..errors import ConfigError, DataError
from .rendering import MAX_CHARACTERS, RENDER_ERRORS, bounded_rendering, try_once
from .text import text_ids


Messages = list[dict[str, Any]]

_MARKER = re.compile(r"{%[-+]?\s*generation\s*[-+]?%}")
_PLACEHOLDER: Messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
_DATE = re.compile(r"""strftime_now\(\s*("[^"]*"|'[^']*')\s*\)""")


@dataclass(frozen=True)
class ChatTemplate:
    """One way to render conversations: a tokenizer, the source of a template, and its arguments.

    Attributes:
        source: Jinja source; None takes the tokenizer's own (of several, the one that fits the row's tools).
        date: the day that `strftime_now` gives, `YYYY-MM-DD`; None leaves the clock running. Who trains or evaluates
            more than once on the same examples (a run that is resumed, several processes, an evaluation afterwards)
            must pass the same date each time.
        arguments: template arguments for every conversation, such as `{"enable_thinking": False}`.
    """

    tokenizer: PreTrainedTokenizerBase
    source: str | None = None
    date: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self, messages: Messages, *, ask: bool = False, **options: Any) -> str:
        """The conversation as text; with `ask` the template's generation prompt follows it.

        Raises:
            DataError: the template refuses it, whatever it raises, or the text holds half of a surrogate pair.
            ConfigError: the template is no Jinja, or a rendering takes too many seconds, bytes or characters.
        """
        options = {**self.arguments, **options}
        source = options["chat_template"] = options.get("chat_template") or self._source(options.get("tools"))
        apply = self.tokenizer.apply_chat_template
        try_once(source, lambda: str(apply(messages, tokenize=False, add_generation_prompt=ask, **options)))
        with bounded_rendering():
            text = str(apply(messages, tokenize=False, add_generation_prompt=ask, **options))
        if len(text) > MAX_CHARACTERS:
            got, expected = f"a rendering of {len(text):,} characters", f"up to {MAX_CHARACTERS:,}"
            raise DataError("chat template", got, expected, "Shorten the row, or correct the template")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            place, got = f"chat template, character {error.start} of the rendering", "half of a surrogate pair"
            raise DataError(place, got, "text", "Repair the text of the row") from error
        return text

    def ids(self, messages: Messages, *, ask: bool = False, **options: Any) -> list[int]:
        """`text` as token ids; errors are the same."""
        return self.tokens(self.text(messages, ask=ask, **options))

    def tokens(self, rendered: str) -> list[int]:
        """A rendered text, or a piece of one, as token ids: the template writes the special tokens itself."""
        return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, prompt: str | Messages | list[int]) -> list[int]:
        """What a model is asked: the ids of a conversation with the template's generation prompt, of a text, or those
        that are given.

        Raises:
            DataError: the prompt is empty, or the template refuses it. ConfigError: as in `text`.
        """
        if not prompt:
            raise DataError("prompt", "an empty one", "text, turns or token ids", "Give a prompt")
        if isinstance(prompt, str):
            return text_ids(self.tokenizer, prompt)
        if isinstance(prompt[0], int):
            return list(prompt)
        return self.ids(prompt, ask=True)

    def marked(self, messages: Messages, **options: Any) -> BatchEncoding:
        """The encoded conversation with `assistant_masks`: 1 on the tokens that TRL's `assistant_only_loss` trains."""
        options = {"chat_template": self._source(options.get("tools")), **self.arguments, **options}
        with bounded_rendering():
            encoded: BatchEncoding = self.tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True, **options
            )
        return encoded

    def has_markers(self, **options: Any) -> bool:
        """Whether the template says with `{% generation %}` which part of a turn the assistant wrote."""
        return _MARKER.search(self._source(options.get("tools"))) is not None

    def thinking_arguments(self, **options: Any) -> list[str]:
        """The template's own arguments about thinking, such as `enable_thinking`."""
        words = set(re.findall(r"\b[a-z_]*think[a-z_]*\b", self._source(options.get("tools"))))
        return sorted(word for word in words if re.fullmatch(r"(enable|preserve|keep|truncate)_\w+", word))

    def training_variant(self) -> ChatTemplate | None:
        """TRL's variant of the template for training, which `assistant_only_loss` takes; None where there is none.

        It marks what the assistant wrote, and mostly renders earlier turns as they were written.
        """
        if self.source is not None:
            return None
        try:
            self.text(_PLACEHOLDER)  # before TRL renders with it: it may never end
        except DataError:
            pass
        except ConfigError:  # reported when a row is rendered
            return None
        try:
            source = training_chat_template(self.tokenizer)
        except RENDER_ERRORS:  # TRL has none, or its probe is more than the template takes
            return None
        return None if source is None else ChatTemplate(self.tokenizer, source, self.date, self.arguments)

    def _source(self, tools: Any) -> str:
        return on_date(self.source or self.tokenizer.get_chat_template(None, tools), self.date)


@lru_cache(maxsize=64)
def on_date(source: str, date: str | None) -> str:
    """A template whose `strftime_now` gives one day, whatever the day.

    The template's environment sets `strftime_now`, and arguments reach a template as plain data only, so the date
    cannot be passed in: a macro of that name, put before the template, stands in for the function.

    Raises:
        ConfigError: `date` is no ISO date, or the template computes the format.
    """
    if date is None or "strftime_now" not in source:
        return source
    try:
        day = datetime.fromisoformat(date)
    except ValueError as error:
        raise ConfigError("chat_template_date", repr(date), "a day as YYYY-MM-DD", "Correct the day") from error
    formats = _DATE.findall(source)
    if source.count("strftime_now(") != len(formats):
        got = "a computed format of strftime_now, so that its date cannot be fixed"
        raise ConfigError("chat_template", got, "a literal format", "Write the format into chat_template")
    cases = "".join(
        f"{{%- if format == {literal} -%}}{{{{- {json.dumps(day.strftime(literal[1:-1]))} -}}}}{{%- endif -%}}"
        for literal in sorted(set(formats))
    )
    # `+%}` keeps what the template itself starts with.
    return f"{{%- macro strftime_now(format) -%}}{cases}{{%- endmacro +%}}{source}"
