"""The decoding engine: keyed noise, slot cache, mixed contexts and drafts.

The names are imported when they are first used, so that the options cost no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .drafting import draft_answers
    from .engine import Draft
    from .mixing import MixedContext, mix_contexts, mix_contexts_sequential
    from .options import DrawOptions

_HOMES = {
    "Draft": "engine",
    "DrawOptions": "options",
    "MixedContext": "mixing",
    "draft_answers": "drafting",
    "mix_contexts": "mixing",
    "mix_contexts_sequential": "mixing",
}

__all__ = ["Draft", "DrawOptions", "MixedContext", "draft_answers", "mix_contexts", "mix_contexts_sequential"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
