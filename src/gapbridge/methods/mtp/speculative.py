"""Answers proposed by the heads: `generate`, and the answer mode of evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.special_tokens import stop_tokens, undecodable_token_ids
from ...decoding import Completion, SamplingParams, generate_completions
from ...decoding.mtp_heads import HEADS_FILE, load_adjacent_heads
from ...decoding.sampling_params import resolve_sampling_params
from ...decoding.speculative_decoding import SpeculativeStats
from ...errors import ConfigError
from ...training.decoding_mode import AnswerRequest


logger = logging.getLogger(__name__)


def generate(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[str | int] | None = None,
    options: SamplingParams | None = None,
    max_completion_length: int = 256,
    on_finished: Callable[[int], object] | None = None,
    **draw: Any,
) -> tuple[list[Completion], SpeculativeStats]:
    """Answer prompts in fewer passes: heads 2 to n propose tokens, the model confirms them.

    The tokens are those of [`~gapbridge.decoding.generate_completions`] with the same arguments, greedy or sampled.

    Args:
        model: a model with future heads, from [`load`] or a trainer; heads that lie where it was loaded from do, too.
        prompts: token ids; none may be empty.
        tokenizer: says what ends an answer; no answer holds a pause or an id without a token.
        ids: stable ids for keyed sampling; by default the positions in the list.

    Returns:
        One answer for each prompt, and what the heads did: `passes_per_token`, and `acceptance` by head.

    Raises:
        ConfigError: the model has no heads, or an option is out of range. DataError: the prompts cannot be used.
    """
    speculation = SpeculativeStats(_heads(model))
    completions = generate_completions(
        model,
        prompts,
        ids=range(len(prompts)) if ids is None else ids,
        max_completion_length=max_completion_length,
        stop_tokens=stop_tokens(tokenizer, model),
        options=resolve_sampling_params(options, draw).without(undecodable_token_ids(tokenizer, model)),
        on_finished=on_finished,
        speculation=speculation,
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
        advice = "Restore the file, or load an adapter with gapbridge.methods.mtp.checkpoint.load"
        raise ConfigError(place, f"no {HEADS_FILE}", expected, advice)
    return heads
