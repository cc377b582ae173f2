"""One folder a method. Its name is the command's and the recipe's; nothing else lists the methods.

__init__.py   what the method is, in one line (shown by `--help`); DISPLAY_NAME, how messages and reports call it; and
              EXPORTS, its public names and their modules
config.py     FIELDS: its own keys, free of torch
trainer.py    METHOD: the trainer, a subclass of `gapbridge.training.method.GapTrainerMixin`
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from ..training.config import BaseArgs
    from ..training.decoding_mode import DecodingMode
    from ..training.method import GapTrainerMixin


CONTROL = "sft"  # what the others are compared with


def list_methods() -> tuple[str, ...]:
    """The methods, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def method_summary(name: str) -> str:
    """What the method is, in one line."""
    return str(import_module(f"{__name__}.{name}").__doc__).split("\n")[0]


def display_name(name: str) -> str:
    """What messages and reports call the method `name`, such as BASH; a name that is none of a method stays."""
    return str(import_module(f"{__name__}.{name}").DISPLAY_NAME) if name in list_methods() else name


def method_fields(name: str) -> type[BaseArgs]:
    """The dataclass of the method's own keys; importing it imports no torch."""
    fields: type[BaseArgs] = import_module(f"{__name__}.{name}.config").FIELDS
    return fields


def get_method(name: str) -> type[GapTrainerMixin]:
    """The method's trainer."""
    method: type[GapTrainerMixin] = import_module(f"{__name__}.{name}.trainer").METHOD
    return method


def answer_modes() -> dict[str, DecodingMode]:
    """What evaluation offers besides single-pass answers: the modes of all methods, by name."""
    return {mode: what for name in list_methods() for mode, what in get_method(name).answer_modes.items()}


def public_names() -> dict[str, str]:
    """The names that `gapbridge` offers of the methods, each with its module."""
    return {
        public: f"{__name__}.{name}.{module}"
        for name in list_methods()
        for public, module in import_module(f"{__name__}.{name}").EXPORTS.items()
    }
