"""Whether a chat template ends an answer with a stop token, asked of a placeholder before there are data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from ..errors import ConfigError, DataError, describe
from .chat_splitting import ChatSplitter
from .chat_template import ChatTemplate
from .conversation import Conversation
from .special_tokens import UndecodableTokens, completion_end


_QUESTION, _ANSWER = "question", "answer"


@dataclass(frozen=True)
class MissingEos:
    """An answer that no stop token ends: what is wrong (`error`, with the recipe key that fixes it, if one can), and
    the token that a template ends it with instead, if that is a token."""

    error: str
    token: str | None


def find_missing_eos(template: ChatTemplate, stops: Sequence[int]) -> MissingEos | None:
    """What is wrong with the end of an answer; None where a stop token ends it.

    None also where the template does not take the placeholder: then the rows themselves must tell.

    Args:
        stops: token ids that end an answer, from `stop_tokens`.
    """
    tokenizer = template.tokenizer
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    fillers = UndecodableTokens(tokenizer, stops)
    try:
        split = ChatSplitter(template, stops, fillers).split(Conversation(turns, (1,)))
        tail = template.text(turns).rpartition(_ANSWER)[2]
    except (DataError, ConfigError):
        return None
    if split.error or completion_end(split.answer, stops, fillers):
        return None
    named = ", ".join(map(str, tokenizer.convert_ids_to_tokens(sorted(stops))))
    got, expected = f"{tail!r} at the end of an answer", f"a stop token there ({named})"
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    token = next((piece for piece in map(str, tokenizer.tokenize(tail)) if piece in added), None)
    if token is None and tail.strip() in tokenizer.get_vocab():
        token = tail.strip()
    if token is not None:
        advice = f"Add `{yaml.safe_dump({'eos_token': token}).strip()}`"
    else:
        advice = f"Use a chat_template that ends an answer with {{{{ eos_token }}}} ({tokenizer.eos_token})"
    return MissingEos(describe("chat_template", got, expected, advice), token)
