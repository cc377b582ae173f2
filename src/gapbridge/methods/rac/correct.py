"""Correction at inference: answer, ask again, answer again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from .rows import CorrectionTemplates


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
    options = SamplingParams(
        temperature, suppress_tokens=undecodable_token_ids(tokenizer, model), seed=seed, batch_size=batch_size
    )
    stops = stop_tokens(tokenizer, model)

    def complete(contexts: list[list[int]], turn: int, on_finished: Callable[[int], object]) -> list[Completion]:
        return generate_completions(
            model,
            contexts,
            ids=range(len(contexts)) if ids is None else ids,
            max_completion_length=max_completion_length,
            stop_tokens=stops,
            options=replace(options, round_index=turn),  # the corrected answer is sampled independently of the first
            on_finished=on_finished,
        )

    return complete_and_correct(
        tokenizer, prompts, stops, complete, correction_prompt, conversational, date, chat_template_kwargs or {}
    )


def complete_and_correct(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[list[dict[str, Any]]] | Sequence[list[int]],
    stops: Sequence[int],
    complete: Callable[[list[list[int]], int, Callable[[int], object]], list[Completion]],
    correction_prompt: str,
    conversational: bool | None,
    date: str | None,
    chat_template_kwargs: Mapping[str, Any],
) -> list[Correction]:
    """`correct` with any engine.

    Args:
        stops: the ids that end a completion.
        complete: from contexts, 0 (first answers) or 1 (corrected ones) and a function that counts finished
            completions to the completions.
    """
    if not prompts:
        return []
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs)
    asked = [_prompt_ids(template, prompt) for prompt in prompts]
    if conversational is None:
        conversational = not isinstance(prompts[0], str) and tokenizer.chat_template is not None
    with tqdm(total=2 * len(asked), desc="answering and correcting", delay=1) as bar:
        first = complete(asked, 0, bar.update)
        arguments = [chat_template_kwargs] * len(asked)
        templates = CorrectionTemplates(tokenizer, correction_prompt, stops, conversational, date)
        corrected = complete(_correction_contexts(templates, asked, first, arguments), 1, bar.update)
    texts = [[str(tokenizer.decode(one.tokens, skip_special_tokens=True)) for one in of] for of in (first, corrected)]
    return [Correction(*both) for both in zip(*texts, strict=True)]


def corrected_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: AnswerRequest
) -> list[Completion]:
    """The answers that follow the single-pass ones and the request `settings["correction_prompt"]`, as token ids.

    Raises:
        ConfigError: the chat template cannot carry a correction, or an option lies outside its range.
        DataError: the prompts cannot be used.
    """
    stops = stop_tokens(tokenizer, model)
    templates = CorrectionTemplates(
        tokenizer, asked.settings["correction_prompt"], stops, asked.conversational, asked.date
    )
    arguments = asked.chat_template_kwargs or [{}] * len(asked.first)
    contexts = _correction_contexts(templates, asked.prompts, asked.first, arguments)
    # Another round of noise: the corrected answer is sampled independently of the first.
    options = asked.options.without(undecodable_token_ids(tokenizer, model))
    return asked.generate(model, contexts, stops, replace(options, round_index=options.round_index + 1))


def _correction_contexts(
    templates: CorrectionTemplates,
    prompts: Sequence[Sequence[int]],
    first: Sequence[Completion],
    arguments: Sequence[Mapping[str, Any]],
) -> list[list[int]]:
    """x ⊕ ŷ ⊕ cue of each prompt, after which the corrected completion starts."""
    return [
        [*x, *(part for ids in templates.completion_and_cue(completion, own) for part in ids)]
        for x, completion, own in zip(prompts, first, arguments, strict=True)
    ]


def _prompt_ids(template: ChatTemplate, prompt: str | list[Any]) -> list[int]:
    """The token ids of a prompt, which end where the completion starts, pauses of the tokenizer included."""
    ids = template.prompt_ids(prompt)
    return ids if ids == list(prompt) else [*ids, *pauses_after_prompt(template.tokenizer)]
