"""Silence for what libraries say about placeholder rows and models without weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


_LIBRARIES = ("accelerate", "datasets", "DeepSpeed", "peft", "torch", "transformers", "trl")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the log lines below an error, and the Python warnings, of libraries."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def hidden_dataset_bars(hidden: bool = True) -> Iterator[None]:
    """Hide the progress bars of `datasets`, which count placeholder rows; with False do nothing."""
    if not hidden or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
