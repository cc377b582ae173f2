"""One folder a method. Its name is the command's and the recipe's; nothing else lists the methods.

__init__.py   what the method is, in one line (shown by `--help`), and EXPORTS: its public names and their modules
config.py     FIELDS: its own keys, free of torch
trainer.py    METHOD: the trainer, a subclass of `gapbridge.training.method.Method`
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from ..training.answer_mode import AnswerMode
    from ..training.config import Fields
    from ..training.method import Method


CONTROL = "sft"  # what the others are compared with


def names() -> tuple[str, ...]:
    """The methods, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def summary(name: str) -> str:
    """What the method is, in one line."""
    return str(import_module(f"{__name__}.{name}").__doc__).split("\n")[0]


def fields_of(name: str) -> type[Fields]:
    """The dataclass of the method's own keys; importing it imports no torch."""
    fields: type[Fields] = import_module(f"{__name__}.{name}.config").FIELDS
    return fields


def find(name: str) -> type[Method]:
    """The method's trainer."""
    method: type[Method] = import_module(f"{__name__}.{name}.trainer").METHOD
    return method


def answer_modes() -> dict[str, AnswerMode]:
    """What evaluation offers besides direct answers: the modes of all methods, by name."""
    return {mode: what for name in names() for mode, what in find(name).answer_modes.items()}


def public_names() -> dict[str, str]:
    """The names that `gapbridge` offers of the methods, each with its module."""
    return {
        public: f"{__name__}.{name}.{module}"
        for name in names()
        for public, module in import_module(f"{__name__}.{name}").EXPORTS.items()
    }
