"""Gapbridge: close the gap between training and inference in LLM fine-tuning.

The public names are imported when they are first used, so that `import gapbridge` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .decoding import MixedContext, mix_contexts, mix_contexts_sequential
    from .errors import ConfigError, DataError, GapbridgeError, RunError, StoreError, TrainingError
    from .examples.build import build_examples
    from .examples.example import Example, ExampleSet
    from .methods.bash import BASHConfig, BASHTrainer
    from .methods.rac import RACConfig, RACTrainer

_HOMES = {
    "BASHConfig": "methods.bash",
    "BASHTrainer": "methods.bash",
    "ConfigError": "errors",
    "DataError": "errors",
    "Example": "examples.example",
    "ExampleSet": "examples.example",
    "GapbridgeError": "errors",
    "MixedContext": "decoding",
    "RACConfig": "methods.rac",
    "RACTrainer": "methods.rac",
    "RunError": "errors",
    "StoreError": "errors",
    "TrainingError": "errors",
    "build_examples": "examples.build",
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
