"""Multi-token prediction (Gloeckle et al. 2024): train to predict the next n tokens at each position."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .checkpoint import load as load
    from .speculative import generate as generate

EXPORTS = {"MTPConfig": "trainer", "MTPTrainer": "trainer"}
_HOMES = {"generate": "speculative", "load": "checkpoint"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
