"""Prompts with pauses, for this package and for servers, and the answers that follow them.

The output is read after the last pause, and a pause is never written: its logit is taken away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.chat_template import ChatTemplate, Messages
from ...data.pauses import PauseSettings, pause_id, pauses_after_prompt, recorded_pauses
from ...data.special_tokens import stop_tokens, undecodable_token_ids
from ...decoding import Completion, generate_completions
from ...errors import ConfigError
from ...training.decoding_mode import AnswerRequest


Prompt = str | Messages | list[int]


def paused_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    num_pause_tokens: int | None = None,
    *,
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """The token ids of a prompt with M pauses after it, where the answer starts.

    They are what `model.generate` gets; for a server see `completion_request`.

    Args:
        prompt: messages, which the chat template renders; a string; or token ids.
        num_pause_tokens: M; None takes the number that the model was trained with.
        date, chat_template_kwargs: as `build_examples` takes them.

    Raises:
        ConfigError: the tokenizer has no pause token, or M is negative. DataError: the prompt is empty.
    """
    template = ChatTemplate(tokenizer, date=date, arguments=chat_template_kwargs or {})
    return [*template.prompt_ids(prompt), *_pause_ids(tokenizer, num_pause_tokens)]


def completion_request(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, num_pause_tokens: int | None = None
) -> dict[str, Any]:
    """The keys of a `/v1/completions` request that pauses need: the prompt's ids, and a bias against the pause in the
    answer. The caller adds model, length and sampling."""
    prompt_ids = paused_prompt(tokenizer, prompt, num_pause_tokens)
    return {"prompt": prompt_ids, "logit_bias": {str(pause_id(tokenizer)): -100}}


def paused_template(tokenizer: PreTrainedTokenizerBase, num_pause_tokens: int | None = None) -> str:
    """The tokenizer's chat template, which asks with M pauses after its generation prompt.

    Written to a file it is for a server's `/v1/chat/completions` (`vllm serve … --chat-template FILE`), and
    `chat_template_kwargs: {"num_pause_tokens": 4}` in a request then chooses another M. Not for training: examples get
    their pauses by themselves.

    Raises:
        ConfigError: the tokenizer has no pause token, or no chat template.
    """
    pauses, count = _pauses(tokenizer, num_pause_tokens)
    if not tokenizer.chat_template:
        raise ConfigError("tokenizer", "no chat template", "a chat template", "Ask with paused_prompt instead")
    source = tokenizer.get_chat_template().removesuffix("\n")  # which Jinja leaves out at the end alone
    token = json.dumps(pauses.token, ensure_ascii=False)
    wanted = f"{token} * (num_pause_tokens if num_pause_tokens is defined else {count})"
    return f"{source}{{{{ {wanted} if add_generation_prompt else '' }}}}"


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[Messages] | Sequence[list[int]],
    *,
    num_pause_tokens: int | None = None,
    max_completion_length: int = 256,
    temperature: float = 0.0,
    ids: Sequence[str | int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[str]:
    """Answer each prompt after M pauses.

    Args:
        prompts, num_pause_tokens, date, chat_template_kwargs: as for `paused_prompt`.
        temperature: 0 is greedy.
        ids: stable ids for keyed sampling; by default the positions in the list.

    Returns:
        The answers as text, without a pause.

    Raises:
        ConfigError: the tokenizer has no pause token. DataError: the prompts cannot be used.
    """
    options = {"date": date, "chat_template_kwargs": chat_template_kwargs}
    with tqdm(total=len(prompts), desc="answering after pauses", delay=1) as bar:
        completions = generate_completions(
            model,
            [paused_prompt(tokenizer, prompt, num_pause_tokens, **options) for prompt in prompts],  # type: ignore[arg-type]
            ids=list(range(len(prompts))) if ids is None else ids,
            max_completion_length=max_completion_length,
            stop_tokens=stop_tokens(tokenizer, model),
            suppress_tokens=tuple(undecodable_token_ids(tokenizer, model)),
            on_finished=bar.update,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
        )
    return [str(tokenizer.decode(completion.tokens, skip_special_tokens=True)) for completion in completions]


def paused_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: AnswerRequest
) -> list[Completion]:
    """The answers after `settings["num_pause_tokens"]` pauses, in the place of those that the prompts end with.

    With as many pauses as in training these are the single-pass answers.

    Raises:
        ConfigError: the tokenizer has no pause token, or the number is none.
    """
    known, count = _pauses(tokenizer, asked.settings["num_pause_tokens"])
    if count == known.count:
        if asked.on_finished is not None:
            asked.on_finished(len(asked.first))
        return list(asked.first)
    pauses = _pause_ids(tokenizer, count)
    contexts = [[*prompt[: len(prompt) - known.count], *pauses] for prompt in asked.prompts]
    options = asked.options.without(undecodable_token_ids(tokenizer, model))
    return asked.generate(model, contexts, stop_tokens(tokenizer, model), options)


def _pauses(tokenizer: PreTrainedTokenizerBase, count: int | None) -> tuple[PauseSettings, int]:
    """The tokenizer's pauses, and how many are wanted."""
    known = recorded_pauses(tokenizer)
    if known is None:
        raise ConfigError("tokenizer", "no pause token", "one", "Train the model with `gapbridge pause` first")
    count = known.count if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigError("num_pause_tokens", f"{count!r}", "an integer of at least 0", "Correct the value")
    return known, count


def _pause_ids(tokenizer: PreTrainedTokenizerBase, count: int | None) -> list[int]:
    return pauses_after_prompt(tokenizer, _pauses(tokenizer, count)[1])
