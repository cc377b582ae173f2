"""The argument parser of a command, and the types of option values.

Nothing here imports torch, so that help and refusals answer at once.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from functools import partial
from typing import IO, Any, NoReturn, TypeVar

from ..errors import ConfigError, describe


Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """A parser that collects the wrong values of all options, and takes no abbreviated option.

    An abbreviation may be a key of the recipe.

    Attributes:
        errors: One sentence for each wrong value of the last line.
        extend_help: Adds what the help shows besides the options.
    """

    def __init__(self, **kwargs: Any) -> None:
        width = max(100, min(119, shutil.get_terminal_size().columns))
        lines = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28, width=width)
        super().__init__(**{"allow_abbrev": False, "formatter_class": lines, **kwargs})
        self.errors: list[str] = []
        self.extend_help: Callable[[], None] | None = None

    def error(self, message: str) -> NoReturn:
        refusal = describe("command line", message.removeprefix("argument "), "valid options", "Correct the options")
        raise ConfigError([*self.errors, refusal])

    def print_help(self, file: IO[str] | None = None) -> None:  # type: ignore[override]
        if self.extend_help is not None:
            self.extend_help()
        super().print_help(file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"got {value!r}, expected {' or '.join(action.choices)}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            got, _, expected = error.message.partition(", expected ")
            place = f"command line, --{action.dest}"
            self.errors.append(describe(place, got.removeprefix("got "), expected, "Correct the value"))
            return None


def integer(text: str, least: int | None = None) -> int:
    """An integer, of at least so much."""
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or (least is not None and value < least):
        raise _unexpected(text, "an integer" if least is None else f"an integer of at least {least}")
    return value


positive = partial(integer, least=1)
non_negative = partial(integer, least=0)


def number(text: str, above: float = -math.inf) -> float:
    """A finite number, above a limit."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not above < value < math.inf:
        raise _unexpected(text, "a number" if above < 0 else f"a number above {above:g}")
    return value


positive_number = partial(number, above=0)


def number_or_none(text: str) -> float | None:
    """A finite number, or the word none."""
    return None if text.casefold() == "none" else number(text)


def several(kind: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Values with commas between them."""
    return lambda text: [kind(part.strip()) for part in text.split(",")]


def _unexpected(text: str, expected: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
