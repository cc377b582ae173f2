"""RAC rows (Cen et al. 2025, Algorithm 2): x ⊕ ŷ ⊕ cue ⊕ y, the loss on y alone."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ...decoding import Draft
from ...errors import ConfigError
from ...training.rows import masked_row


def rac_row(
    x: Sequence[int], y_hat: Sequence[int], cue: Sequence[int], y: Sequence[int], trailer: Sequence[int] = ()
) -> dict[str, list[int]]:
    """The row whose loss is -Σ_t log π(y_t | x, ŷ, cue, y_<t).

    Args:
        x: prompt, P ids.
        y_hat: the model's own draft as it stands in the context, D ids.
        cue: the correction request with all that the chat template puts around it, C ids.
        y: reference, T ids, ending with a stop token.
        trailer: what the template puts after y.

    Returns:
        `input_ids` = x ⊕ ŷ ⊕ cue ⊕ y ⊕ trailer; `labels` = -100 on the first P + D + C, then y ⊕ trailer.
    """
    return masked_row([*x, *y_hat, *cue], [*y, *trailer])


def chat_cue(tokenizer: PreTrainedTokenizerBase, correction_prompt: str, stops: Sequence[int]) -> list[int]:
    """The ids between the stop token of one assistant turn and the first token of the next, with the request between.

    They are read off the template once, on a placeholder conversation, and do not depend on it.

    Raises:
        ConfigError: the template renders an earlier turn differently once another follows.
    """
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    first = list(tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"])
    asked = [*turns, {"role": "user", "content": correction_prompt}]
    both = list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])
    end = max((at + 1 for at, token in enumerate(first) if token in stops), default=0)
    if not end:
        raise ConfigError(
            "the chat template puts no stop token after an assistant turn: set eos_token to the one it uses"
        )
    if both[:end] != first[:end]:
        raise ConfigError(
            "the chat template renders an assistant turn differently once another turn follows (some drop a reasoning "
            "part): a draft cannot be kept as it was sampled. Use a template that leaves earlier turns alone"
        )
    return both[end:]


def text_cue(tokenizer: PreTrainedTokenizerBase, correction_prompt: str) -> list[int]:
    """The request as a paragraph of its own, for data without a chat template."""
    return list(tokenizer(f"\n\n{correction_prompt}\n", add_special_tokens=False)["input_ids"])


def correction_cue(
    tokenizer: PreTrainedTokenizerBase, correction_prompt: str, stops: Sequence[int], *, conversational: bool
) -> list[int]:
    """The ids that stand between draft and reference: a turn of a chat, or a paragraph. Raises as `chat_cue` does."""
    if conversational:
        return chat_cue(tokenizer, correction_prompt, stops)
    return text_cue(tokenizer, correction_prompt)


def draft_in_context(draft: Draft, *, conversational: bool, eos_token_id: int) -> list[int]:
    """A draft as it stands before the cue.

    In a chat the turn must be closed: a draft cut at the cap gets the EOS it did not reach. In plain text an EOS would
    end the document: the stop token of a finished draft is left out.
    """
    if conversational:
        return draft.tokens if draft.finished else [*draft.tokens, eos_token_id]
    return draft.tokens[:-1] if draft.finished else draft.tokens
