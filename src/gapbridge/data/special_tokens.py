"""Which token ids end an answer, control a chat, or mean nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..compat import vocabulary_size
from ..errors import ConfigError
from .pauses import pause_id


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | GenerationConfig | None = None
) -> list[int]:
    """The ids that end an answer: the tokenizer's EOS and what a model's generation config names.

    Args:
        model: the model, or its generation config alone.

    Raises:
        ConfigError: there is none.
    """
    generation = model if model is None or isinstance(model, GenerationConfig) else model.generation_config
    stops = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    if generation is not None and tokenizer.eos_token_id is not None:
        configured = generation.eos_token_id
        ends = configured if isinstance(configured, list) else [] if configured is None else [configured]
        if not all(type(end) is int for end in ends):
            got, expected, advice = f"{configured!r:.80}", "the id of a token or a list of ids", "Correct the file"
            raise ConfigError(f"{tokenizer.name_or_path}, generation_config.json, eos_token_id", got, expected, advice)
        stops |= set(ends)
    if not stops:
        got, expected = "no EOS token", "a token that ends an answer"
        raise ConfigError(f"tokenizer {tokenizer.name_or_path!r}", got, expected, "Set eos_token to that token")
    return sorted(stops)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens: EOS, PAD, roles and turn marks. They are never sampled into a context."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(special | set(tokenizer.all_special_ids))


def undecodable_token_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Ids that no answer holds: rows that pad the embedding, which the tokenizer cannot decode, and a pause token."""
    pause = pause_id(tokenizer)
    padding = list(range(len(tokenizer), vocabulary_size(model)))
    return padding if pause is None else [pause, *padding]


def suppressed_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, configured: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Ids never sampled into a context: as configured, else control and stop tokens and ids without a token."""
    if configured is not None:
        return tuple(sorted(set(configured)))
    suppressed = {
        *special_token_ids(tokenizer),
        *stop_tokens(tokenizer, model),
        *undecodable_token_ids(tokenizer, model),
    }
    return tuple(sorted(suppressed))


def never_sampled_mask(y: Sequence[int], trained: Sequence[bool], control: Collection[int]) -> list[bool]:
    """Where no token is sampled on a reference: what no assistant wrote, and special tokens.

    A special token is never sampled, so that sampling could only replace it by a word: an end of turn, a channel
    mark or a tool mark would vanish from the context.

    Args:
        y: reference, T ids.
        trained: one flag for each token of y.
        control: ids of special tokens, from `special_token_ids`.
    """
    return [not loss or token in control for token, loss in zip(y, trained, strict=True)]


class UndecodableTokens:
    """The ids that carry no words: control and stop tokens, and white space. Asked for with `in`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._known = dict.fromkeys([*special_token_ids(tokenizer), *stops], True)

    def __contains__(self, token: int) -> bool:
        if token not in self._known:
            self._known[token] = not str(self._tokenizer.decode([token])).strip()
        return self._known[token]


def completion_end(tokens: Sequence[int], stops: Collection[int], fillers: UndecodableTokens) -> int:
    """How many tokens of a rendered answer run up to the stop token that ends it; 0 where none does.

    That is the first stop token after the last word: there a model stops that writes the answer, and what a template
    puts after it (a line break, Phi-3's end of text) is no part of it.
    """
    words = len(tokens)
    while words and tokens[words - 1] in fillers:
        words -= 1
    return next((at + 1 for at in range(words, len(tokens)) if tokens[at] in stops), 0)
