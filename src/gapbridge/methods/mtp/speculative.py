"""Answers drafted by the heads: `generate`, and the answer mode of evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...decoding import Draft, DrawOptions, draft_answers
from ...decoding.future_heads import FILE, heads_beside
from ...decoding.speculation import Speculation
from ...errors import ConfigError
from ...examples.tokens import stop_tokens as stop_tokens_of
from ...examples.tokens import unnamed_tokens


logger = logging.getLogger(__name__)


def generate(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_tokens: Sequence[int] | None = None,
    ids: Sequence[str | int] | None = None,
    max_completion_length: int = 256,
    options: DrawOptions | None = None,
    on_finished: Callable[[int], object] | None = None,
    **draw: Any,
) -> tuple[list[Draft], Speculation]:
    """Answer prompts in fewer passes: heads 2 to n propose tokens, the model confirms them.

    The tokens are those of [`~gapbridge.decoding.draft_answers`] with the same options, greedy or sampled.

    Args:
        model: a model with future heads, from [`load`] or a trainer; heads that lie where it was loaded from do, too.
        prompts: token ids; none may be empty.
        tokenizer, stop_tokens: what ends an answer: the tokens given, or those of model and tokenizer. With a
            tokenizer no answer holds a pause or an id without a token.
        ids: stable ids for keyed sampling; by default the positions in the list.
        options: how tokens are drawn; or give the fields of `DrawOptions` as keywords (`temperature=0`).
        on_finished: called with the number of newly finished answers.

    Returns:
        One answer for each prompt, and what the heads did: `passes_per_token`, and `acceptance` by head.

    Raises:
        ConfigError: the model has no heads, nothing says what ends an answer, or an option lies outside its range.
        DataError: the prompts cannot be used.
    """
    if stop_tokens is None and tokenizer is None:
        raise ConfigError("give a tokenizer or stop_tokens: nothing says what ends an answer")
    if tokenizer is not None:
        unnamed = unnamed_tokens(tokenizer, model)
        if options is None:
            draw["suppress_tokens"] = [*draw.get("suppress_tokens", ()), *unnamed]
        else:
            options = options.without(unnamed)
    speculation = Speculation(_heads(model))
    drafts = draft_answers(
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
    return drafts, speculation


def speculative_answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    first: Sequence[Draft],
    *,
    ids: Sequence[str | int],
    settings: dict[str, Any],
    max_completion_length: int,
    options: DrawOptions,
    conversational: bool = True,
    date: str | None = None,
    chat_template_kwargs: Sequence[Mapping[str, Any]] | None = None,
    on_finished: Callable[[int], object] | None = None,
    complete: object = None,
) -> list[Draft]:
    """The direct answers once more, drafted by the heads; tells how many passes it took, and whether they are `first`.

    `complete` is not asked: a server knows nothing of the heads.

    Raises:
        ConfigError: the model has no heads.
    """
    drafts, done = generate(
        model,
        prompts,
        tokenizer=tokenizer,
        ids=ids,
        max_completion_length=max_completion_length,
        options=replace(options, compile_decoding=False),  # a pass feeds several tokens a row
        on_finished=on_finished,
    )
    equal = sum(a == b for a, b in zip(drafts, first, strict=True))
    shares = ", ".join(f"head {head}: {share:.0%}" for head, share in enumerate(done.acceptance, start=2))
    logger.info(
        "%d answers in %.3f passes a token, %d of them equal to the direct ones; proposals accepted of %s",
        len(drafts), done.passes_per_token, equal, shares,
    )  # fmt: skip
    return drafts


def _heads(model: PreTrainedModel | PeftModel) -> Any:
    heads = heads_beside(model)
    if heads is None:
        way_out = "of an adapter they are found by gapbridge.methods.mtp.load, or with merge_adapter: true"
        raise ConfigError(
            f"{model.name_or_path or 'the model'}: has no {FILE}, so nothing proposes tokens. MTPTrainer saves it "
            f"where num_future_tokens is above 1; {way_out}"
        )
    return heads
