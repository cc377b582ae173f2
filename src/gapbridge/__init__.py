"""Gapbridge: close the gap between training and inference in LLM fine-tuning.

The public names are imported when they are first used, so that `import gapbridge` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import methods


if TYPE_CHECKING:
    from .data.example import Example, ExampleSet
    from .data.preferences import build_preferences
    from .data.tokenization import build_examples
    from .decoding import MixedContext, mix_contexts, mix_contexts_sequential
    from .errors import ConfigError, DataError, GapbridgeError, RunError, StoreError, TrainingError
    from .methods.bash.trainer import BASHConfig, BASHTrainer
    from .methods.rac.correct import Correction, correct
    from .methods.rac.trainer import RACConfig, RACTrainer
    from .runs.preview import preview
    from .training.gap_callback import GapCallback

_HOMES = {
    "ConfigError": "gapbridge.errors",
    "DataError": "gapbridge.errors",
    "Example": "gapbridge.data.example",
    "ExampleSet": "gapbridge.data.example",
    "GapCallback": "gapbridge.training.gap_callback",
    "GapbridgeError": "gapbridge.errors",
    "MixedContext": "gapbridge.decoding",
    "RunError": "gapbridge.errors",
    "StoreError": "gapbridge.errors",
    "TrainingError": "gapbridge.errors",
    "build_examples": "gapbridge.data.tokenization",
    "build_preferences": "gapbridge.data.preferences",
    "mix_contexts": "gapbridge.decoding",
    "mix_contexts_sequential": "gapbridge.decoding",
    "preview": "gapbridge.runs.preview",
    **methods.public_names(),
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
