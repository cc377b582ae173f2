"""Gapbridge: close the gap between training and inference in LLM fine-tuning.

The public names are imported when they are first used, so that `import gapbridge` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .bash import BASHConfig, BASHTrainer
    from .decoding import MixedContext, mix_contexts, mix_contexts_sequential
    from .errors import ConfigError, DataError, GapbridgeError, RunError, StoreError, TrainingError
    from .examples import Example, ExampleSet, build_examples
    from .rac import RACConfig, RACTrainer

_HOMES = {
    "BASHConfig": "bash",
    "BASHTrainer": "bash",
    "ConfigError": "errors",
    "DataError": "errors",
    "Example": "examples",
    "ExampleSet": "examples",
    "GapbridgeError": "errors",
    "MixedContext": "decoding",
    "RACConfig": "rac",
    "RACTrainer": "rac",
    "RunError": "errors",
    "StoreError": "errors",
    "TrainingError": "errors",
    "build_examples": "examples",
    "mix_contexts": "decoding",
    "mix_contexts_sequential": "decoding",
}

__all__ = [
    "BASHConfig",
    "BASHTrainer",
    "ConfigError",
    "DataError",
    "Example",
    "ExampleSet",
    "GapbridgeError",
    "MixedContext",
    "RACConfig",
    "RACTrainer",
    "RunError",
    "StoreError",
    "TrainingError",
    "build_examples",
    "mix_contexts",
    "mix_contexts_sequential",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
