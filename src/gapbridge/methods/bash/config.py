"""BASH's own keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...decoding.sampling_params import SamplingParams
from ...training.config import DataArgs, GenerationArgs


REPLACEMENTS = ("model", "uniform", "unigram")


@dataclass
class BASHArgs(GenerationArgs, DataArgs):
    r"""How contexts are mixed; rounds and sampling are those of [`~gapbridge.training.config.GenerationArgs`].

    Args:
        mixture_coefficient (`float`, *optional*, defaults to `0.2`):
            β, the probability that a position of the context holds the model's own token. 0 is SFT.
        suppress_tokens (`list[int]`, *optional*):
            Token ids never sampled into a context. Defaults to the stop tokens, all special tokens and ids beyond the
            tokenizer's.
        verify_window (`int`, *optional*, defaults to `16`):
            The most tokens a row is fed in one pass. No influence on the contexts.

        > Controls and research options of this package; none is the paper's

        replacement_source (`str`, *optional*, defaults to `"model"`):
            What stands in a context where it is not the reference: the model's own tokens, or as many random ones in
            each example, `"uniform"` over the vocabulary or `"unigram"`, as often as in the references.
        sft_fraction (`float`, *optional*, defaults to `0.0`):
            Share in [0, 1] of examples that are trained on the reference context. 1 is SFT.
        final_sft_epochs (`float`, *optional*, defaults to `0.0`):
            So many epochs at the end of each round are trained on reference contexts, in the same training run. Of
            `max_steps` it is the share `final_sft_epochs / num_train_epochs`.
        sampling_token_regex (`str`, *optional*):
            A regular expression: tokens are sampled on those reference tokens only in whose text it is found.
        num_masked_labels_after_replacement (`int`, *optional*, defaults to `0`):
            So many labels after each replaced token carry no loss.
        generator_model_name_or_path (`list[str]`, *optional*):
            A model that samples the contexts instead of the current weights; of several, each samples for one fold of
            the examples (see `holdout_fold`).
    """

    RUNTIME_ONLY = frozenset({"verify_window"})

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
            "help": "Source of the replacing tokens: the model, or random tokens (uniform, unigram) as a control.",
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
    sampling_token_regex: str | None = field(
        default=None,
        metadata={"help": "Regular expression; only reference tokens whose text matches it can be sampled."},
    )
    num_masked_labels_after_replacement: int = field(
        default=0, metadata={"help": "Number of labels masked after each replaced token."}
    )
    generator_model_name_or_path: list[str] | None = field(
        default=None,
        metadata={
            "help": "Model that generates the contexts instead of the current weights; a list holds one model for "
            "each fold."
        },
    )

    def __post_init__(self) -> None:
        if isinstance(self.generator_model_name_or_path, str):
            self.generator_model_name_or_path = [self.generator_model_name_or_path]
        super().__post_init__()

    def errors(self) -> list[str]:
        errors = super().errors()
        if not 0 <= self.mixture_coefficient <= 1:
            errors.append(f"mixture_coefficient is {self.mixture_coefficient}: it must lie in [0, 1]")
        if self.replacement_source not in REPLACEMENTS:
            errors.append(
                f"replacement_source is {self.replacement_source!r}: choose one of {', '.join(REPLACEMENTS)}"
            )
        if not 0 <= self.sft_fraction <= 1:
            errors.append(f"sft_fraction is {self.sft_fraction}: it must lie in [0, 1]")
        if self.num_masked_labels_after_replacement < 0:
            errors.append(
                f"num_masked_labels_after_replacement is {self.num_masked_labels_after_replacement}: it must be 0 "
                f"(off) or larger"
            )
        errors += self._final_epochs_errors()
        if self.sampling_token_regex is not None:
            try:
                re.compile(self.sampling_token_regex)
            except re.error as error:
                errors.append(
                    f"sampling_token_regex is {self.sampling_token_regex!r}: no regular expression ({error})"
                )
        paths = self.generator_model_name_or_path
        if paths is not None and (not paths or not all(paths) or len(set(paths)) < len(paths)):
            errors.append(f"generator_model_name_or_path is {paths}: give a model, or a different one for each fold")
        if self.sft_fraction == 1:
            idle = [name for name, value in self._mixing_options().items() if value]
            if idle:
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

    def _mixing_options(self) -> dict[str, bool]:
        """The options that only act on mixed contexts, and whether each is set."""
        return {
            "replacement_source": self.replacement_source != "model",
            "final_sft_epochs": self.final_sft_epochs > 0,
            "sampling_token_regex": self.sampling_token_regex is not None,
            "num_masked_labels_after_replacement": self.num_masked_labels_after_replacement > 0,
            "generator_model_name_or_path": self.generator_model_name_or_path is not None,
        }

    def sampling_params(self, suppress_tokens: tuple[int, ...] = (), **more: int) -> SamplingParams:
        return super().sampling_params(suppress_tokens, verify_window=self.verify_window, **more)


FIELDS = BASHArgs
