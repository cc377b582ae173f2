"""The parser of the command line, and the kinds of values that options take. Free of torch, as `options.py` is."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import ConfigError


_KEYS = " Every key of the recipe is an option, too: --KEY VALUE."


@dataclass(frozen=True)
class Refused:
    """Stands in a namespace for a value that its option cannot take, so that all of them are reported together."""

    text: str
    why: str


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Helps up to 119 columns wide, where the terminal is; names stand beside what they mean."""
    width = max(100, min(119, shutil.get_terminal_size().columns))
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=width)


class Parser(argparse.ArgumentParser):
    """Refuses with a ConfigError, and takes no abbreviated option: it may be meant for the recipe."""

    def __init__(self, **kwargs: Any) -> None:
        settings = {"allow_abbrev": False, "formatter_class": _formatter}
        super().__init__(**{**settings, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message.removeprefix('argument ')}")


class _Show(argparse.Action):
    """Prints what its `const` returns for the parser, and ends."""

    const: Callable[[Parser], str]

    def __call__(self, parser: Any, *_: Any) -> NoReturn:
        print(self.const(parser).rstrip())
        raise SystemExit(0)


def whole(text: str) -> int | Refused:
    try:
        return int(text)
    except ValueError:
        return Refused(text, "it must be a whole number")


def count(text: str) -> int | Refused:
    value = whole(text)
    return Refused(text, "it must be a whole number from 1 on") if isinstance(value, Refused) or value < 1 else value


def amount(text: str) -> int | Refused:
    value = whole(text)
    return Refused(text, "it must be a whole number from 0 on") if isinstance(value, Refused) or value < 0 else value


def number(text: str) -> float | Refused:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else Refused(text, "it must be a number")


def number_or_none(text: str) -> float | Refused | None:
    return None if text.casefold() == "none" else number(text)


def one_of(*names: str) -> Callable[[str], str | Refused]:
    """One of these words."""
    return lambda text: text if text in names else Refused(text, f"choose {' or '.join(names)}")


def several(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Values with commas between them."""

    def values(text: str) -> Any:
        found = [kind(part.strip()) for part in text.split(",")]
        return next((entry for entry in found if isinstance(entry, Refused)), found)

    return values


def add_show(parser: Parser, option: str, text: Callable[[Any], str], help: str) -> None:
    short = ["-h"] if option == "--help" else []
    parser.add_argument(
        *short, option, action=_Show, nargs=0, const=text, default=argparse.SUPPRESS, dest="shown", help=help
    )


def add_command(commands: Any, name: str, takes: str, summary: str, examples: str, **kwargs: Any) -> Parser:
    """A command's parser: its summary stands in the overview and opens its help, which ends with examples."""
    parser: Parser = commands.add_parser(
        name,
        usage=f"gapbridge {name} {takes}",
        help=summary.replace("%", "%%"),
        description=f"{summary[:1].upper()}{summary[1:]}.{_KEYS if 'KEY' in takes else ''}",
        epilog="examples:\n" + "".join(f"  gapbridge {name} {line}\n" for line in examples.splitlines()),
        **kwargs,
    )
    return parser


def add_recipe(parser: Parser, help: str = "the recipe; its name without --config is the same") -> None:
    parser.add_argument("--config", action="append", default=[], metavar="RECIPE.yaml", help=help)
    add_scale(parser, "tiny: two steps of the recipe with a small model and data, below outputs/tiny")


def add_scale(parser: Parser, help: str) -> None:
    parser.add_argument("--scale", type=scale, metavar="tiny", help=help)


def scale(text: str) -> str | Refused:
    return text if text == "tiny" else Refused(text, "there is no other scale than tiny")
