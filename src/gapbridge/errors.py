"""The exceptions that Gapbridge raises for errors that a user can fix, and the form of their texts.

`GapbridgeError` is the base class: `except GapbridgeError` catches every refusal and nothing else. The command line
turns it into a message without a traceback and exit code 2. No message holds a secret: see `public`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload


REDACTED = "<redacted>"
# The forms of services' tokens, wherever they stand.
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{16,}|gh[opsru]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|sk-(?=[\w-]{0,99}\d)(?=[\w-]{0,99}[A-Z])[\w-]{20,}|xox[a-z]-[\w-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_URL = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)(?P<rest>[^\s\"'<>`]*)")


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def describe(place: object, got: object, expected: object, advice: str) -> str:
    """The text of one error, in the form of all: `<place>: got X, expected Y. <one imperative sentence>.`

    The first three may be values, which are shown as `str` shows them.

    Args:
        place: the file, with the row or key, or the option.
        got: what was found, in words that follow "got".
        expected: what is valid, in words that follow "expected".
        advice: a sentence in the imperative, without its full stop.
    """
    return f"{place}: got {got}, expected {expected}. {advice}."


def require(holds: object, place: object, got: object, expected: object, advice: str) -> list[str]:
    """No error where a condition holds, else one, see `describe`: for lists of all errors of a file or a command."""
    return [] if holds else [describe(place, got, expected, advice)]


class GapbridgeError(Exception):
    """Base class. `errors` lists every error that was found, not only the first one.

    What libraries say may hold the URL that they were given: it loses user, password and query.

    Args:
        error: a text or several, or one error's four parts: see `describe`.
    """

    @overload
    def __init__(self, error: str | Sequence[str]) -> None: ...

    @overload
    def __init__(self, error: object, got: object, expected: object, advice: str) -> None: ...

    def __init__(self, error: Any, got: object = None, expected: object = None, advice: str | None = None) -> None:
        if advice is not None:
            error = describe(error, got, expected, advice)
        self.errors: list[str] = [public(text) for text in ([error] if isinstance(error, str) else error)]
        super().__init__(self.errors)

    def __str__(self) -> str:
        if len(self.errors) == 1:
            return self.errors[0]
        return f"{len(self.errors)} errors:\n" + "\n".join(f"  - {error}" for error in self.errors)


class ConfigError(GapbridgeError, ValueError):
    """A recipe, an option or an argument is wrong: an unknown key, a wrong type, a value outside its range."""


class DataError(GapbridgeError, ValueError):
    """The data cannot be used: a missing file, an empty data set, bad rows."""


class StoreError(GapbridgeError):
    """A round's contexts on disk are incomplete, damaged, or were made with other options."""


class RunError(GapbridgeError):
    """An output directory holds another run, a checkpoint is not whole, or the processes do not work together."""


class TrainingError(GapbridgeError):
    """Training had to stop: the loss is not a finite number."""


# What transformers, TRL, accelerate and PEFT raise for options that they cannot take, that do not go together, or
# whose package is missing.
_REPORTED_TYPES = 1000  # characters of a library's message
_REFUSALS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    OSError,
    RuntimeError,
)


@contextmanager
def as_config_error(where: str = "") -> Iterator[None]:
    """What a library inside refuses becomes a ConfigError that begins with `where`; what code of this package raises
    passes through."""
    try:
        yield
    except _REFUSALS as error:
        if isinstance(error, GapbridgeError) or _origin(error) == "gapbridge":
            raise
        says_enough = str(error) and isinstance(error, (ValueError, TypeError, ImportError, OSError, RuntimeError))
        name = type(error).__name__
        raise ConfigError(f"{where}{error}" if says_enough else f"{where}{name}: {error}") from error


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around a library that reads a model's or a tokenizer's files: whatever it raises becomes a ConfigError that says
    that `what` cannot be loaded; what code of this package raises passes through.

    Files can hold anything, and the libraries check little of it. Those in Rust raise plain `Exception`, others
    classes of their own.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, GapbridgeError) or _origin(error) == "gapbridge":
            raise
        said = " ".join(str(error).split())
        said = said if len(said) <= _REPORTED_TYPES else f"{said[:_REPORTED_TYPES]} …"
        plain = isinstance(error, (OSError, ValueError)) or type(error) is Exception
        cause = said if plain else f"{type(error).__name__}: {said}"
        raise ConfigError(
            what, f"files that cannot be loaded ({cause})", "readable ones", "Check its path and its files"
        ) from error


def _origin(error: BaseException) -> str:
    """The top package of the code that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]


def public(text: str) -> str:
    """A text whose URLs have lost user, password and query, and in which services' tokens are replaced.

    A signed URL's query is its key, and what stands before the @ a password.
    """
    return TOKEN.sub(REDACTED, _URL.sub(lambda found: found["scheme"] + _bare(found["rest"]), text))


def _bare(rest: str) -> str:
    """What follows `://`, without user and query. A password may hold the signs that end a host."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    port = host.partition(":")[2]
    if "@" in host:
        rest = rest[host.rfind("@") + 1 :]
    elif port and not port.isdigit():
        rest = rest[rest.rfind("@") + 1 :]
    return rest.partition("?")[0]
