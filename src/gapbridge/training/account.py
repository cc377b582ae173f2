"""What a trainer tells of a round: when it starts, in its logs, and in the card of the model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..examples.example import ExampleSet
from ..examples.loss import LESS_THAN_TRL
from .card import complete_card
from .config import RoundFields
from .metrics import LogAtStart


if TYPE_CHECKING:
    from transformers import Trainer as _Behind
else:
    _Behind = object

logger = logging.getLogger(__name__)

Counts = dict[str, int]


class Account(_Behind):
    """Put before a TRL trainer that has `examples`, and `counts` of what their rows are made from.

    A method says in `describe`, `logged` and `warnings` what its counts mean.
    """

    examples: ExampleSet
    counts: Counts

    @classmethod
    def describe(cls, counts: Counts) -> str:
        """The counts of `rows` in words."""
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    @classmethod
    def logged(cls, counts: Counts) -> dict[str, float]:
        """What of the counts the trainer logs when training starts; previews read `contexts/replaced_share`."""
        return {f"contexts/{name}": count for name, count in counts.items()}

    @classmethod
    def warnings(cls, counts: Counts, args: Any) -> list[str]:
        """What in the counts a user should hear of, with the key to turn."""
        return []

    def tell(self, row_count: int) -> None:
        """Say what the round's rows are made from, now and in the logs of the training that follows."""
        counts = self.counts
        if self.is_world_process_zero():
            round_index = self.args.round_index if isinstance(self.args, RoundFields) else 1
            described = f", {self.describe(counts)}" if counts else ""
            logger.info("round %d: %d rows%s", round_index, row_count, described)
            if self.examples.loss_on:
                level = logging.WARNING if LESS_THAN_TRL in self.examples.loss_on else logging.INFO
                logger.log(level, "round %d: loss on %s", round_index, self.examples.loss_on)
            for warning in self.warnings(counts, self.args):
                logger.warning("round %d: %s", round_index, warning)
        self.add_callback(LogAtStart(self.log, self.logged(counts)))

    def create_model_card(self, model_name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """TRL's card, and in it the method's settings, data, counts and losses."""
        super().create_model_card(model_name, *args, **kwargs)
        if self.is_world_process_zero():
            complete_card(
                Path(self.args.output_dir) / "README.md",
                self.args,
                self.examples,
                self.describe(self.counts) if self.counts else "",
                self.state.log_history,
                base=self.model.config._name_or_path,
                model_name=model_name or Path(self.args.output_dir).name,
            )
