"""SFT's own keys: those of every method."""

from __future__ import annotations

from ...training.config import DataArgs


FIELDS = DataArgs
