"""Pause tokens (Goyal et al. 2024): train with M pause tokens before each completion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .inference import completion_request, generate, paused_prompt, paused_template

EXPORTS = {"PauseConfig": "trainer", "PauseTrainer": "trainer"}
__all__ = ["completion_request", "generate", "paused_prompt", "paused_template"]


def __getattr__(name: str) -> Any:
    """What asks a model is imported when it is first used: torch comes with it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(import_module(f"{__name__}.inference"))[name]
