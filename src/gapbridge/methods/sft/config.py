"""SFT's own keys: those of every method."""

from __future__ import annotations

from ...training.config import ExampleFields


FIELDS = ExampleFields
