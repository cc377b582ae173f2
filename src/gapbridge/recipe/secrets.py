"""Secrets of a recipe, tokens and keys of services: nothing that a run writes or says holds one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..errors import REDACTED, TOKEN, public


# Whole names, for `eos_token` and `suppress_tokens` are none.
_KEYS = frozenset("hub_token push_to_hub_token use_auth_token auth_token access_token token api_key password".split())
# Any name with such a word, which TOKENIZERS_PARALLELISM does not have.
_LONG_WORD = re.compile(
    r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CONNECTION_?STR(ING)?|CONN_?STR|BEARER|COOKIE|WEBHOOK)S?"
    r"(?![A-Z])",
    re.IGNORECASE,
)
# Short words count between underscores only: PATH, PASSES and AUTHOR are no secrets.
_SHORT_WORD = re.compile(
    r"(?<![A-Z0-9])(PATS?|PASS|PWD|PW|O?AUTH2?|DSN|SAS|JWT|SIG|SIGNATURE)(?![A-Z])", re.IGNORECASE
)
_FLAGS = frozenset(("", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null"))
# In a variable's value: a header, or a part of a connection string.
_PART = re.compile(
    r"\b(?:bearer|basic)\s+\S{6,}|\b(?:password|passwd|pwd|pass|\w*key|\w*secret|\w*token|sig|signature)\s*=\s*[^\s;&]",
    re.IGNORECASE,
)


def secrets_in(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The secrets in a recipe's keys, those of `env`, lists and mappings included: `env.WANDB_API_KEY` → value."""
    return {".".join(names): value for names, value in _leaves(keys) if _is_secret(names, value)}


def cut_in(keys: Mapping[str, Any]) -> list[str]:
    """The names of values, no secrets themselves, of which `without_secrets` keeps a part: URLs with user or query."""
    return [
        ".".join(names)
        for names, value in _leaves(keys)
        if isinstance(value, str) and not _is_secret(names, value) and public(value) != value
    ]


def without_secrets(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys less those that hold a secret; URLs lose user, password and query."""
    remaining: dict[str, Any] = _replaced(dict(keys), (), None)
    return remaining


def redacted(key: str, value: Any) -> Any:
    """A key's value as an error may show it."""
    return _replaced({key: value}, (), REDACTED)[key]


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
        result.append(public(word))
    return result


def _replaced(value: Any, names: tuple[str, ...], sign: str | None) -> Any:
    """A value with `sign` in place of each secret, which is left out where there is no sign."""
    if isinstance(value, Mapping):
        return {
            key: sign if _is_secret((*names, str(key)), entry) else _replaced(entry, (*names, str(key)), sign)
            for key, entry in value.items()
            if sign is not None or not _is_secret((*names, str(key)), entry)
        }
    if isinstance(value, list):
        return [_replaced(entry, (*names, str(at)), sign) for at, entry in enumerate(value)]
    return public(value) if isinstance(value, str) else value


def _decoded(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith(("{", "[")) else text
    except ValueError:
        return text


def _is_secret(names: tuple[str, ...], value: Any) -> bool:
    if value is None or value is True or value is False:
        return False
    name, text = names[-1], str(value)
    if names[0] != "env":
        return (name.lower() in _KEYS and bool(text)) or (isinstance(value, str) and bool(TOKEN.fullmatch(value)))
    if len(names) == 1 or text.lower() in _FLAGS or (name.upper().endswith("TOKENS") and text.isdigit()):
        return False
    named = _LONG_WORD.search(name) or _SHORT_WORD.search(name)
    return bool(named or _PART.search(text)) or public(text) != text


def _leaves(value: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    secret = bool(names) and _is_secret(names, value)
    if isinstance(value, Mapping) and not secret:
        for key, entry in value.items():
            yield from _leaves(entry, (*names, str(key)))
    elif isinstance(value, list) and not secret:
        for at, entry in enumerate(value):
            yield from _leaves(entry, (*names, str(at)))
    elif names:
        yield names, value
