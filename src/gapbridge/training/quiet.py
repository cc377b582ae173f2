"""Silence for what libraries say about placeholder rows and models without weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
