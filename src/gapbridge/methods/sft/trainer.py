"""SFT as a method: the rows are the examples."""

from __future__ import annotations

from dataclasses import dataclass

from trl import SFTConfig, SFTTrainer

from ...training.config import ExampleFields
from ...training.method import Method


@dataclass
class PlainSFTConfig(ExampleFields, SFTConfig):
    """Configuration of [`PlainSFTTrainer`]: [`~trl.SFTConfig`] with the treatment of bad rows."""


class PlainSFTTrainer(Method, SFTTrainer):
    """[`~trl.SFTTrainer`] on the examples that the other methods get, with their guards; one round, nothing drawn."""

    _tag_names = ["trl", "sft", "gapbridge"]
    config_class = PlainSFTConfig


METHOD = PlainSFTTrainer
