"""Secrets of a recipe, tokens and keys of services: nothing that a run writes or says holds one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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


@dataclass
class Redacted:
    """Keys as they may be written, and what they have lost.

    keys: less those that hold a secret; URLs lose user, password and query.
    secrets: by name, such as `env.WANDB_API_KEY`; those of `env`, lists and mappings included.
    cut: the names of values, no secrets themselves, of which a part is kept.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)


def redact(keys: Mapping[str, Any], sign: str | None = None) -> Redacted:
    """A recipe's keys without secrets; `sign`, where there is one, takes the place of each."""
    result = Redacted()
    result.keys = _redacted(keys, (), sign, result)
    return result


def redacted_command(words: Sequence[str]) -> list[str]:
    """A command line with the secrets among its options replaced, those in mappings written as JSON included."""
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    options: dict[str, Any] = {}
    for option, value in pairwise(parts):
        if option.startswith("--"):
            name = option[2:].replace("-", "_")
            options[name] = value
            with suppress(ValueError):
                options[name] = json.loads(value) if value.startswith(("{", "[")) else value
    secrets = sorted(map(str, redact(options).secrets.values()), key=len, reverse=True)
    result = []
    for word in words:
        for secret in secrets:
            word = word.replace(secret, REDACTED)
        result.append(public(word))
    return result


def _redacted(value: Any, names: tuple[str, ...], sign: str | None, found: Redacted) -> Any:
    """A value with `sign` in place of each secret, which is left out where there is no sign; `found` gets their
    names."""
    if isinstance(value, Mapping):
        remaining = {}
        for key, entry in value.items():
            inner = (*names, str(key))
            if not _is_secret(inner, entry):
                remaining[key] = _redacted(entry, inner, sign, found)
                continue
            found.secrets[".".join(inner)] = entry
            if sign is not None:
                remaining[key] = sign
        return remaining
    if isinstance(value, list):
        return [_redacted(entry, (*names, str(at)), sign, found) for at, entry in enumerate(value)]
    if isinstance(value, str) and public(value) != value:
        found.cut.append(".".join(names))
        return public(value)
    return value


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
