"""DPO's own keys; all others are those of TRL's `DPOConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import describe
from ...training.config import PreferenceArgs, option


# What TRL's trainer computes. It looks at the name when it computes the first loss, after everything is loaded.
PAIR_LOSSES = frozenset(
    """
    sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft
    sigmoid_norm
    """.split()
)


@dataclass
class DPOArgs(PreferenceArgs):
    """What of [`~trl.DPOConfig`] makes a run DPO."""

    RANGES = {"beta": (0, None)}

    beta: float = option(0.1, "β: weight of the deviation from the reference model; with 0 no weight changes.")

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        if unknown := sorted(set(self.loss_type) - PAIR_LOSSES):
            expected = f"some of {', '.join(sorted(PAIR_LOSSES))}"
            errors.append(describe("loss_type", ", ".join(unknown), expected, "Choose among them"))
        return errors


FIELDS = DPOArgs
