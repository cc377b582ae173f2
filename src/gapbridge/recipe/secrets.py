"""Secrets of a recipe, tokens and keys of services: nothing that a run writes holds one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any


REDACTED = "<redacted>"

# Whole names, for `eos_token` and `suppress_tokens` are none.
_KEYS = frozenset("hub_token push_to_hub_token use_auth_token auth_token access_token token api_key password".split())
# Any name with such a word, which TOKENIZERS_PARALLELISM does not have.
_VARIABLE = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?(?![A-Z])", re.IGNORECASE)


def secrets_in(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The secrets in a recipe's keys, those of `env` and of mappings included: `env.WANDB_API_KEY` → value."""
    return {
        ".".join(names): value
        for names, value in _leaves(keys)
        if _is_secret(names) and value not in (None, "", True, False)
    }


def without_secrets(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys less those that hold a secret."""
    names = secrets_in(keys)

    def kept(value: Any, prefix: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {
                key: kept(entry, (*prefix, str(key)))
                for key, entry in value.items()
                if ".".join((*prefix, str(key))) not in names
            }
        return value

    cleaned: dict[str, Any] = kept(dict(keys), ())
    return cleaned


def redacted_command(words: Sequence[str]) -> list[str]:
    """A command line with the secrets among its options replaced, those in mappings written as JSON included."""
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    options = {
        option[2:].replace("-", "_"): _decoded(value) for option, value in pairwise(parts) if option.startswith("--")
    }
    secrets = sorted(map(str, secrets_in(options).values()), key=len, reverse=True)
    result = []
    for word in words:
        for secret in secrets:
            word = word.replace(secret, REDACTED)
        result.append(word)
    return result


def _decoded(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("{") else text
    except ValueError:
        return text


def _is_secret(names: tuple[str, ...]) -> bool:
    if names[0] == "env":
        return bool(_VARIABLE.search(names[-1]))
    return names[-1].lower() in _KEYS


def _leaves(value: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(entry, (*names, str(key)))
    elif names:
        yield names, value
