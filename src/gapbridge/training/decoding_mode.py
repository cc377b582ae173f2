"""A way of answering that a method brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..decoding import Completion


@dataclass(frozen=True)
class DecodingMode:
    """A way of answering that a method brings, besides the direct one.

    help: what it does.
    options: what it can be set on the command line, each with its help.
    settings: from a recipe's configuration, of whatever method, to the mode's settings as JSON values.
    answer: `answer(model, tokenizer, prompts, first, ids=, conversational=, date=, chat_template_kwargs=, settings=,
        max_completion_length=, options=, on_finished=, complete=)` → drafts; `first` are the single-pass answers to
        the same prompts, `chat_template_kwargs` the arguments of the chat template for each of them, `complete` is
        what
        generates: `generate_completions` without its model.
    any_model: whether every model can answer so. `--decoding_mode all` leaves out what only the method's own models
        can.
    through_server: whether a vLLM server can generate the answers.
    """

    help: str
    options: dict[str, str]
    settings: Callable[[Any], dict[str, Any]]
    answer: Callable[..., list[Completion]]
    any_model: bool = True
    through_server: bool = True
