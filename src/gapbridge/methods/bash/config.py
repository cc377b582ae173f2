"""BASH's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...decoding.sampling_params import SamplingParams
from ...training.config import DataArgs, GenerationArgs


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
    }  # fmt: skip

    mixture_coefficient: float = field(
        default=0.2,
        metadata={"help": "β: probability (0-1) that a position of the context is sampled from the model; 0 is SFT."},
    )
    suppress_tokens: list[int] | None = field(
        default=None,
        metadata={"help": "Token ids that are never sampled; default: all special tokens and stop tokens."},
    )
    verify_window: int = field(
        default=16, metadata={"help": "Maximum number of tokens of a row in one forward pass; changes the speed only."}
    )
    replacement_source: str = field(
        default="model",
        metadata={
            "help": "Source of the sampled tokens: the model, or uniformly random tokens as a control.",
            "choices": list(REPLACEMENTS),
        },
    )
    sft_fraction: float = field(
        default=0.0,
        metadata={"help": "Fraction (0-1) of examples that are trained on the reference context; 1 is SFT."},
    )
    final_sft_epochs: float = field(
        default=0.0, metadata={"help": "Number of epochs at the end of each round that train on reference contexts."}
    )
    num_masked_labels_after_replacement: int = field(
        default=0, metadata={"help": "Number of labels masked after each replaced token."}
    )

    def errors(self) -> list[str]:
        errors = super().errors()
        errors += self._final_epochs_errors()
        if self.sft_fraction == 1:
            unset: dict[str, Any] = {"replacement_source": "model", "final_sft_epochs": 0}
            unset["num_masked_labels_after_replacement"] = 0
            if idle := [name for name, value in unset.items() if vars(self)[name] != value]:
                errors.append(
                    f"sft_fraction is 1, so that no context is mixed and {', '.join(idle)} would have no effect: "
                    "leave them out, or lower sft_fraction"
                )
        return errors

    def _final_epochs_errors(self) -> list[str]:
        final, errors = self.final_sft_epochs, []
        epochs = min(
            [self.num_train_epochs] if self.num_epochs_per_round is None else self.num_epochs_per_round, default=0
        )
        if not 0 <= final <= epochs:
            errors.append(
                f"final_sft_epochs is {final}: it must lie between 0 and the epochs of a round, {epochs:g}"
                + (" (of max_steps it is that share of num_train_epochs)" if self.max_steps > 0 else "")
            )
        if final and self.num_masked_labels_after_replacement:
            errors.append(
                "final_sft_epochs trains on the labels as contexts, num_masked_labels_after_replacement takes "
                "labels away: keep one"
            )
        return errors

    def sampling_params(self, suppress_tokens: tuple[int, ...] = (), **more: int) -> SamplingParams:
        return super().sampling_params(suppress_tokens, verify_window=self.verify_window, **more)


FIELDS = BASHArgs
