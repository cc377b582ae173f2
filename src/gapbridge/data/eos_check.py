"""Whether a chat template ends an answer with a stop token, asked of a placeholder before there are data."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from ..errors import ConfigError, DataError, describe
from .chat_splitting import ChatSplitter
from .chat_template import ChatTemplate
from .conversation import Conversation
from .special_tokens import UndecodableTokens, completion_end


_QUESTION, _ANSWER = "question", "answer"


def missing_eos_error(template: ChatTemplate, stops: Sequence[int]) -> str | None:
    """What is wrong with the end of an answer, with the recipe key that fixes it; None where a stop token ends it.

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
    advice = f"Use a chat_template that ends an answer with {{{{ eos_token }}}} ({tokenizer.eos_token})"
    if token is not None:
        advice = f"Add `{yaml.safe_dump({'eos_token': token}).strip()}`"
    return describe("chat_template", got, expected, advice)
