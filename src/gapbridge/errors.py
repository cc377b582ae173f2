"""The exceptions that Gapbridge raises for faults a user can mend. Each says where, what, and the way out.

`GapbridgeError` is the base class: `except GapbridgeError` catches every refusal and nothing else. The command line
turns it into a message without a traceback and exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class GapbridgeError(Exception):
    """Base class. `faults` lists every fault that was found, not only the first one."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: list[str] = [faults] if isinstance(faults, str) else list(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        return f"{len(self.faults)} faults:\n" + "\n".join(f"  - {fault}" for fault in self.faults)


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
_SAID = 1000  # characters of a library's message
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
def refusals(where: str = "") -> Iterator[None]:
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
        said = said if len(said) <= _SAID else f"{said[:_SAID]} …"
        plain = isinstance(error, (OSError, ValueError)) or type(error) is Exception
        raise ConfigError(f"{what} cannot be loaded: {'' if plain else f'{type(error).__name__}: '}{said}") from error


def _origin(error: BaseException) -> str:
    """The top package of the code that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]
