"""RAC in deployment: completions and their corrections from a server that speaks OpenAI's `/v1/completions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from ...data.pauses import pause_id
from ...data.special_tokens import special_token_ids, stop_tokens
from ...decoding import Completion
from .config import CORRECTION_PROMPT
from .correct import Correction, complete_and_correct


if TYPE_CHECKING:
    from openai import OpenAI

# What vLLM would otherwise take from the model's generation config. Servers that do not know these keys ignore them.
EXTRA_BODY = {"return_token_ids": True, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


def correct_with_server(
    client: OpenAI,
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[list[dict[str, Any]]] | Sequence[list[int]],
    *,
    correction_prompt: str = CORRECTION_PROMPT,
    max_completion_length: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    concurrency: int = 64,
    conversational: bool | None = None,
    date: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] = EXTRA_BODY,
) -> list[Correction]:
    """`gapbridge.correct` through a server: the same prompts as token ids; greedily the same tokens up to rounding.

    A server that returns no `token_ids` has its text tokenized again, which may cut words at other places.

    Args:
        client: an `openai.OpenAI` client, whose timeout and retries hold.
        model: the name under which the server knows the model.
        tokenizer: the model's; a `generation_config.json` beside it says what else ends a completion.
        prompts, correction_prompt, conversational, date, chat_template_kwargs: as for `correct`.
        max_completion_length: the most tokens of each of the two completions.
        temperature: 0 is greedy.
        concurrency: requests at a time; the server batches them.
        extra_body: keys of a request beside OpenAI's; give `{}` to a server that refuses unknown keys.

    Raises:
        DataError: the prompts cannot be used. ConfigError: the chat template cannot carry a correction.
        openai.OpenAIError: the server refuses a request, or cannot be reached.
    """
    folder = Path(tokenizer.name_or_path)
    configured = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    stops, pause = stop_tokens(tokenizer, configured), pause_id(tokenizer)
    ends = {*stops, *special_token_ids(tokenizer)}
    sampling: dict[str, Any] = {"max_tokens": max_completion_length, "temperature": temperature, "top_p": 1.0}
    if pause is not None:
        sampling["logit_bias"] = {str(pause): -100}

    def ask(context: list[int], seed: int) -> Completion:
        choice = client.completions.create(
            model=model, prompt=context, seed=seed, extra_body=dict(extra_body), **sampling
        ).choices[0]
        tokens = (choice.model_extra or {}).get("token_ids")
        tokens = tokenizer(choice.text, add_special_tokens=False)["input_ids"] if tokens is None else list(tokens)
        finished = choice.finish_reason == "stop"
        return Completion([*tokens, stops[0]] if finished and not {*tokens[-1:]} & ends else tokens, finished)

    def complete(contexts: list[list[int]], turn: int, on_finished: Callable[[int], object]) -> list[Completion]:
        seeds = range(seed + turn, seed + 2 * len(contexts), 2)  # prompts of one seed would share their random numbers
        completions = []
        with ThreadPoolExecutor(concurrency) as pool:
            for completion in pool.map(ask, contexts, seeds):
                completions.append(completion)
                on_finished(1)
        return completions

    return complete_and_correct(
        tokenizer, prompts, stops, complete, correction_prompt, conversational, date, chat_template_kwargs or {}
    )
