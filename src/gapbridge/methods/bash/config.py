"""BASH's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import describe
from ...training.config import DataArgs, GenerationArgs, option


REPLACEMENTS = ("model", "uniform")


@dataclass
class BASHArgs(GenerationArgs, DataArgs):
    """How contexts are mixed; rounds and sampling are those of [`~gapbridge.training.config.GenerationArgs`].

    From `replacement_source` on the keys are controls and research options of this package; none is the paper's. With
    `max_steps` the `final_sft_epochs` are its share `final_sft_epochs / num_train_epochs`.
    """

    RUNTIME_ONLY = frozenset({"verify_window"})
    RANGES = {
        "mixture_coefficient": (0, 1), "sft_fraction": (0, 1), "num_masked_labels_after_replacement": (0, None),
        "verify_window": (1, None),
    }  # fmt: skip

    mixture_coefficient: float = option(
        0.2, "β: probability (0-1) that a position of the context is sampled from the model; 0 is SFT."
    )
    suppress_tokens: list[int] | None = option(
        None, "Token ids that are never sampled; default: all special tokens and stop tokens."
    )
    verify_window: int = option(16, "Maximum number of tokens of a row in one forward pass; changes the speed only.")
    replacement_source: str = option(
        "model",
        "Source of the sampled tokens: the model, or uniformly random tokens as a control.",
        choices=REPLACEMENTS,
    )
    sft_fraction: float = option(
        0.0, "Fraction (0-1) of examples that are trained on the reference context; 1 is SFT."
    )
    final_sft_epochs: float = option(
        0.0, "Number of epochs at the end of each round that train on reference contexts."
    )
    num_masked_labels_after_replacement: int = option(0, "Number of labels masked after each replaced token.")

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        final, rounds = self.final_sft_epochs, self.num_epochs_per_round
        epochs = min([self.num_train_epochs] if rounds is None else rounds, default=0)
        if not 0 <= final <= epochs:
            expected = f"a number from 0 to the epochs of a round ({epochs:g})"
            advice = "Correct the value, which with max_steps is a fraction of num_train_epochs"
            errors.append(describe("final_sft_epochs", final, expected, advice))
        if final and self.num_masked_labels_after_replacement:
            got, expected = "a value with num_masked_labels_after_replacement", "one of them"
            errors.append(describe("final_sft_epochs", got, expected, "Keep one of the keys"))
        unset = {"replacement_source": "model", "final_sft_epochs": 0, "num_masked_labels_after_replacement": 0}
        idle = [name for name, value in unset.items() if vars(self)[name] != value]
        if self.sft_fraction == 1 and idle:
            got = f"1, so that {', '.join(idle)} would have no effect"
            advice = "Remove these keys, or lower sft_fraction"
            errors.append(describe("sft_fraction", got, "less than 1, to mix contexts", advice))
        return errors


FIELDS = BASHArgs
