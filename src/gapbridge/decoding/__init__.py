"""The decoding engine: keyed noise, slot cache, mixed contexts and completions.

The names are imported when they are first used, so that the options cost no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .engine import Completion as Completion
    from .free_running import generate_completions as generate_completions
    from .mixing import MixedContext as MixedContext
    from .mixing import mix_contexts as mix_contexts
    from .mixing import mix_contexts_sequential as mix_contexts_sequential
    from .sampling_params import SamplingParams as SamplingParams

_HOMES = {
    "Completion": "engine",
    "SamplingParams": "sampling_params",
    "MixedContext": "mixing",
    "generate_completions": "free_running",
    "mix_contexts": "mixing",
    "mix_contexts_sequential": "mixing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
