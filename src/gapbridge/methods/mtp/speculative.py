"""Answers proposed by the heads: `generate`, and the answer mode of evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.special_tokens import stop_tokens as stop_tokens_of
from ...data.special_tokens import undecodable_token_ids
from ...decoding import Completion, SamplingParams, generate_completions
from ...decoding.mtp_heads import HEADS_FILE, load_adjacent_heads
from ...decoding.speculative_decoding import SpeculativeStats
from ...errors import ConfigError
from ...training.decoding_mode import AnswerRequest


logger = logging.getLogger(__name__)


def generate(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_tokens: Sequence[int] | None = None,
    ids: Sequence[str | int] | None = None,
    max_completion_length: int = 256,
    options: SamplingParams | None = None,
    on_finished: Callable[[int], object] | None = None,
    **draw: Any,
) -> tuple[list[Completion], SpeculativeStats]:
    """Answer prompts in fewer passes: heads 2 to n propose tokens, the model confirms them.

    The tokens are those of [`~gapbridge.decoding.generate_completions`] with the same options, greedy or sampled.

    Args:
        model: a model with future heads, from [`load`] or a trainer; heads that lie where it was loaded from do, too.
        prompts: token ids; none may be empty.
        tokenizer, stop_tokens: what ends an answer: the tokens given, or those of model and tokenizer. With a
            tokenizer no answer holds a pause or an id without a token.
        ids: stable ids for keyed sampling; by default the positions in the list.
        options: how tokens are sampled; or give the fields of `SamplingParams` as keywords (`temperature=0`).
        on_finished: called with the number of newly finished answers.

    Returns:
        One answer for each prompt, and what the heads did: `passes_per_token`, and `acceptance` by head.

    Raises:
        ConfigError: the model has no heads, nothing says what ends an answer, or an option lies outside its range.
        DataError: the prompts cannot be used.
    """
    if stop_tokens is None and tokenizer is None:
        advice = "Give a tokenizer or stop_tokens"
        raise ConfigError("stop_tokens", "none, and no tokenizer", "what ends a completion", advice)
    if tokenizer is not None:
        unnamed = undecodable_token_ids(tokenizer, model)
        if options is None:
            draw["suppress_tokens"] = [*draw.get("suppress_tokens", ()), *unnamed]
        else:
            options = options.without(unnamed)
    speculation = SpeculativeStats(_heads(model))
    completions = generate_completions(
        model,
        prompts,
        ids=list(range(len(prompts))) if ids is None else ids,
        max_completion_length=max_completion_length,
        stop_tokens=stop_tokens_of(tokenizer, model) if stop_tokens is None else stop_tokens,
        options=options,
        on_finished=on_finished,
        speculation=speculation,
        **draw,
    )
    return completions, speculation


def speculative_answers(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, asked: AnswerRequest
) -> list[Completion]:
    """The single-pass answers once more, proposed by the heads; says how many passes it took, and whether they agree.

    A server knows nothing of the heads, and is not asked.

    Raises:
        ConfigError: the model has no heads.
    """
    completions, done = generate(
        model,
        asked.prompts,
        tokenizer=tokenizer,
        ids=asked.ids,
        max_completion_length=asked.max_completion_length,
        options=asked.options,
        on_finished=asked.on_finished,
    )
    equal = sum(a == b for a, b in zip(completions, asked.first, strict=True))
    shares = ", ".join(f"head {head}: {share:.0%}" for head, share in enumerate(done.acceptance, start=2))
    logger.info(
        "%d answers in %.3f passes a token, %d of them equal to the direct ones; proposals accepted of %s",
        len(completions), done.passes_per_token, equal, shares,
    )  # fmt: skip
    return completions


def _heads(model: PreTrainedModel | PeftModel) -> Any:
    heads = load_adjacent_heads(model)
    if heads is None:
        place, expected = model.name_or_path or "model", "the heads of MTPTrainer with num_future_tokens above 1"
        advice = "Load an adapter with gapbridge.methods.mtp.load, or train it with save_merged_model: true"
        raise ConfigError(place, f"no {HEADS_FILE}", expected, advice)
    return heads
