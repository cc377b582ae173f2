"""SPIN's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import describe
from ...training.completion_config import CompletionArgs
from ...training.config import PreferenceArgs, option


@dataclass
class SPINArgs(CompletionArgs, PreferenceArgs):
    """How pairs are made; completions are sampled as [`~gapbridge.training.completion_config.CompletionArgs`] says.

    The pairs of the round before are read from its store, `../round_<k-1>` of the round's own directory.
    """

    RANGES = {"beta": (0, None)}

    beta: float = option(0.1, "β: weight of the deviation from the model at the start of the round (λ in the paper).")
    include_previous_round_pairs: bool = option(
        True, "Train on the pairs of the previous round as well, from round 2 on."
    )

    def own_errors(self) -> list[str]:
        fixed = "false, since SPIN's reference is the model at the start of the round"
        cases = (
            (self.loss_type != ["sigmoid"], "loss_type", ", ".join(self.loss_type), "sigmoid, the loss of SPIN"),
            (self.precompute_ref_log_probs, "precompute_ref_log_probs", "true", fixed),
            (self.sync_ref_model, "sync_ref_model", "true", fixed),
        )
        errors = [describe(key, got, wanted, "Remove the key") for holds, key, got, wanted in cases if holds]
        if not self.eval_on_generated_contexts and self.eval_strategy != "no":
            got = "false, so that no held-out pair is left to evaluate"
            advice = "Set it to true, or set eval_strategy: 'no'"
            errors.append(describe("eval_on_generated_contexts", got, "true", advice))
        return errors


FIELDS = SPINArgs
