"""SFT as a method: the rows are the examples."""

from __future__ import annotations

from dataclasses import dataclass

from trl import SFTConfig, SFTTrainer

from ...training.config import DataArgs
from ...training.method import GapTrainerMixin


@dataclass
class GapSFTConfig(DataArgs, SFTConfig):
    """Configuration of [`GapSFTTrainer`]: [`~trl.SFTConfig`] with the treatment of bad rows."""


class GapSFTTrainer(GapTrainerMixin, SFTTrainer):
    """[`~trl.SFTTrainer`] on the examples that the other methods get, with their guards; one round, nothing
    sampled."""

    _tag_names = ["trl", "sft", "gapbridge"]
    config_class = GapSFTConfig


METHOD = GapSFTTrainer
