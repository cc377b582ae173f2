"""Equal budgets: how many optimizer steps a variant makes so that it costs what the control costs. Pure arithmetic.

The unit of `compute` is one token in a forward pass, as in docs/research/cost.md: a backward pass counts as two, and
a token that is generated as one (decoding token by token costs more than that where it waits for memory).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class StepCost:
    """What a variant's training costs, measured on a few of its rows.

    rows_per_step: rows of one optimizer step; with packing these, and all others here, are packed rows.
    row_tokens: mean tokens of a row in the training forward pass.
    passes: forward passes that one of its tokens costs in a step.
    generated_tokens: tokens fed before training, all rounds together.
    rows: rows of one epoch.
    rounds: how often contexts are generated.
    """

    rows_per_step: int
    row_tokens: float
    passes: float
    generated_tokens: float
    rows: float
    rounds: int = 1

    def tokens(self, steps: int) -> float:
        """Tokens through the training forward pass in so many steps."""
        return steps * self.rows_per_step * self.row_tokens

    def compute(self, steps: int) -> float:
        """Forward-token equivalents of so many steps, and of the generation before them."""
        return self.passes * self.tokens(steps) + self.generated_tokens

    def configured_steps(self, epochs: float, max_steps: int = -1) -> int:
        """The steps of all rounds together, each of `epochs`, or of `max_steps` where that is larger than 0."""
        if max_steps > 0:
            return self.rounds * max_steps
        return self.rounds * math.ceil(epochs * math.ceil(round(self.rows) / self.rows_per_step))


def budget_steps(budget: str, control: StepCost, control_steps: int, variant: StepCost) -> int:
    """The steps of all the variant's rounds together that equal `control_steps` of the control; a multiple of its
    rounds, at least one in each.

    Raises:
        ConfigError: the control's budget does not pay for what the variant generates before it trains.
    """
    wanted = float(control_steps)
    if budget == "tokens":
        wanted = control.tokens(control_steps) / variant.tokens(1)
    elif budget == "compute":
        left = control.compute(control_steps) - variant.generated_tokens
        if left <= 0:
            got = f"compute, of which generation alone takes {variant.generated_tokens:,.0f} tokens"
            expected = f"less than the {control.compute(control_steps):,.0f} tokens of the control's training"
            raise ConfigError("budget", got, expected, "Train the control longer, or set budget to tokens or steps")
        wanted = left / (variant.passes * variant.tokens(1))
    return variant.rounds * max(1, round(wanted / variant.rounds))
