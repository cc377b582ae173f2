"""A way of answering that a method brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding import Completion, SamplingParams, generate_completions


@dataclass(frozen=True)
class AnswerRequest:
    """What a mode answers.

    prompts: token ids that end where the answer starts, with the pauses of training. first: the single-pass answers to
        them. ids: of the keyed sampling.
    settings: the mode's own.
    conversational, date, chat_template_kwargs: of the examples, the last for each prompt.
    complete: what generates, `generate_completions` without its model; by default it is that, with the model.
    """

    prompts: Sequence[Sequence[int]]
    first: Sequence[Completion]
    ids: Sequence[str | int]
    settings: Mapping[str, Any]
    max_completion_length: int
    options: SamplingParams
    conversational: bool = True
    date: str | None = None
    chat_template_kwargs: Sequence[Mapping[str, Any]] | None = None
    on_finished: Callable[[int], object] | None = None
    complete: Callable[..., list[Completion]] | None = None

    def generate(
        self,
        model: PreTrainedModel | PeftModel,
        contexts: Sequence[Sequence[int]],
        stop_tokens: Sequence[int],
        options: SamplingParams,
    ) -> list[Completion]:
        """Completions of contexts that take the place of the prompts."""
        return (self.complete or partial(generate_completions, model))(
            contexts,
            ids=self.ids,
            max_completion_length=self.max_completion_length,
            stop_tokens=stop_tokens,
            options=options,
            on_finished=self.on_finished,
        )


@dataclass(frozen=True)
class DecodingMode:
    """A way of answering that a method brings, besides the direct one.

    help: what it does.
    options: what it can be set on the command line, each with its help.
    settings: from a recipe's configuration, of whatever method, to the mode's settings as JSON values.
    answer: the completions of a request, by a model with its tokenizer.
    any_model: whether every model can answer so. `--decoding_mode all` leaves out what only the method's own models
        can.
    through_server: whether a vLLM server can generate the answers.
    """

    help: str
    options: dict[str, str]
    settings: Callable[[Any], dict[str, Any]]
    answer: Callable[[Any, PreTrainedTokenizerBase, AnswerRequest], list[Completion]]
    any_model: bool = True
    through_server: bool = True
