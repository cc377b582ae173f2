"""Correction at inference: answer, ask again, answer again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.chat_template import ChatTemplate
from ...data.pauses import pauses_after_prompt
from ...data.special_tokens import stop_tokens, undecodable_token_ids
from ...decoding import Completion, SamplingParams, generate_completions
from ...training.decoding_mode import AnswerRequest
from .config import CORRECTION_PROMPT
from .rows import CorrectionTemplates, completion_as_context_ids


@dataclass(frozen=True)
class Correction:
    """The model's first answer to a prompt and its corrected one, as text."""

    first: str
    corrected: str


def correct(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[list[dict[str, Any]]] | Sequence[list[int]],
    *,
    correction_prompt: str = CORRECTION_PROMPT,
    max_completion_length: int = 256,
    temperature: float = 0.0,
    ids: Sequence[str | int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    conversational: bool | None = None,
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[Correction]:
    """Answer each prompt (x → ŷ), then correct the answer (x → ŷ → cue → ỹ), with the layout of training.

    Args:
        prompts: messages, strings, or token ids that end where the answer starts.
        correction_prompt: the request used in training.
        temperature: 0 is greedy.
        ids: stable ids for keyed sampling; by default the positions in the list.
        conversational: whether the request is a chat turn; by default it is, unless the prompts are strings. Token ids
            need it where the tokenizer has no chat template.
        date, chat_template_kwargs: as `build_examples` takes them; give what the model was trained with.

    Raises:
        DataError: the prompts cannot be used. ConfigError: the chat template cannot carry a correction.
    """
    if not prompts:
        return []
    if conversational is None:
        conversational = is_conversational(tokenizer, prompts)
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs or {})
    token_ids = [prompt_ids(template, prompt) for prompt in prompts]
    shared: dict[str, Any] = {
        "ids": list(range(len(prompts))) if ids is None else ids,
        "max_completion_length": max_completion_length,
        "options": SamplingParams(
            temperature, suppress_tokens=undecodable_token_ids(tokenizer, model), seed=seed, batch_size=batch_size
        ),
    }
    with tqdm(total=2 * len(prompts), desc="answering and correcting", delay=1) as bar:
        first = generate_completions(
            model, token_ids, stop_tokens=stop_tokens(tokenizer, model), on_finished=bar.update, **shared
        )
        asked = AnswerRequest(
            token_ids,
            first,
            conversational=conversational,
            settings={"correction_prompt": correction_prompt},
            date=date,
            chat_template_kwargs=[chat_template_kwargs or {}] * len(prompts),
            on_finished=bar.update,
            **shared,
        )
        corrected = corrected_answers(model, tokenizer, asked)
    return as_text(tokenizer, first, corrected)


def corrected_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: AnswerRequest
) -> list[Completion]:
    """The answers that follow the single-pass ones and the request `settings["correction_prompt"]`, as token ids.

    Raises:
        ConfigError: the chat template cannot carry a correction, or an option lies outside its range.
        DataError: the prompts cannot be used.
    """
    stops = stop_tokens(tokenizer, model)
    contexts = correction_contexts(
        tokenizer,
        asked.prompts,
        asked.first,
        stops,
        correction_prompt=asked.settings["correction_prompt"],
        conversational=asked.conversational,
        date=asked.date,
        chat_template_kwargs=asked.chat_template_kwargs,
    )
    # Another round of noise: the corrected answer is sampled independently of the first.
    options = asked.options.without(undecodable_token_ids(tokenizer, model))
    return asked.generate(model, contexts, stops, replace(options, round_index=options.round_index + 1))


def correction_contexts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    first: Sequence[Completion],
    stops: Sequence[int],
    *,
    correction_prompt: str,
    conversational: bool,
    date: str | None = None,
    chat_template_kwargs: Sequence[Mapping[str, Any]] | None = None,
) -> list[list[int]]:
    """The token ids x ⊕ ŷ ⊕ cue of each prompt, after which the corrected completion starts.

    Args:
        prompts, conversational, date, chat_template_kwargs: as an `AnswerRequest` has them.
        first: the completions ŷ. stops: the ids that end one.

    Raises:
        ConfigError: the chat template cannot carry a correction.
    """
    layouts = CorrectionTemplates(tokenizer, correction_prompt, stops, conversational=conversational, date=date)
    contexts = []
    for x, completion, arguments in zip(prompts, first, chat_template_kwargs or [{}] * len(first), strict=True):
        closing, cue = layouts.of(arguments)
        contexts.append(
            [*x, *completion_as_context_ids(completion, conversational=conversational, eos_token_id=closing), *cue]
        )
    return contexts


def is_conversational(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> bool:
    """Whether the request is a chat turn: unless the prompts are strings, where the tokenizer has a chat template."""
    return not isinstance(prompts[0], str) and tokenizer.chat_template is not None


def prompt_ids(template: ChatTemplate, prompt: str | list[Any]) -> list[int]:
    """The token ids of a prompt, which end where the completion starts, pauses of the tokenizer included."""
    ids = template.prompt_ids(prompt)
    return ids if ids == list(prompt) else [*ids, *pauses_after_prompt(template.tokenizer)]


def as_text(
    tokenizer: PreTrainedTokenizerBase, first: Sequence[Completion], corrected: Sequence[Completion]
) -> list[Correction]:
    """Both completions of each prompt, decoded."""
    texts = [[str(tokenizer.decode(one.tokens, skip_special_tokens=True)) for one in of] for of in (first, corrected)]
    return [Correction(*both) for both in zip(*texts, strict=True)]
