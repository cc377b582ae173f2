"""The scheduled sampling trainer (Bengio et al. 2015; Mihaylova & Martins 2019; Duckworth et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from ...data.example import IGNORE_INDEX
from ...data.special_tokens import suppressed_tokens
from ...decoding.keyed_sampler import KeyedSampler
from ...decoding.model_state import evaluation_mode
from ...decoding.parallel_sampling import parallel_sample
from ...errors import ConfigError
from ...training.distributed_checks import any_process
from ...training.method import GapTrainerMixin
from ...training.ratios import Ratios
from .config import EXACT, ScheduledSamplingArgs
from .sampling_mask import SamplingMasks


EXACT_PASSES = 2  # by its cost beside SFT on the tiny base, 1.7 to 2.1 steps (docs/research/cost.md)


_PAPER = {
    "title": "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
    "id": "1506.03099",
    "citation": (
        "@inproceedings{bengio2015scheduled,\n"
        "    title     = {{Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks}},\n"
        "    author    = {Bengio, Samy and Vinyals, Oriol and Jaitly, Navdeep and Shazeer, Noam},\n"
        "    booktitle = {Advances in Neural Information Processing Systems},\n"
        "    year      = 2015\n"
        "}"
    ),
}


@dataclass
class ScheduledSamplingConfig(ScheduledSamplingArgs, SFTConfig):
    """Configuration for [`ScheduledSamplingTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.scheduled_sampling.config.ScheduledSamplingArgs`]."""


class OnlineSamplingSFTTrainer(SFTTrainer):
    """[`~trl.SFTTrainer`] that mixes the model's own tokens into the inputs of a batch before its loss is taken.

    It stands after the guards of [`GapTrainerMixin`], which know rows by the ids that they had before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = SamplingMasks(self.processing_class, self.model)
        suppressed = suppressed_tokens(self.model, self.processing_class, self.args.suppress_tokens)
        self._ratios = Ratios()
        self._sampler = KeyedSampler(self.args.sampling_params(suppressed), self.accelerator.device)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor | Any], *args: Any, **kwargs: Any) -> Any:
        """-Σ_t log π(y_t | x, ŷ_<t) in training, with ŷ sampled now; -Σ_t log π(y_t | x, y_<t) in evaluation."""
        if self.model.training:
            inputs = {**inputs, "input_ids": self._mixed(model, inputs)}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _mixed(self, model: nn.Module, inputs: dict[str, Tensor | Any]) -> Tensor:
        """The batch's `input_ids` `[n, L]` with the positions of the sampling mask sampled from the current
        weights."""
        args, step = self.args, self.state.global_step
        coefficient = args.mixture_coefficient
        if args.mixture_schedule == "linear":  # the paper's ε_i = max(ε, k - c·i), k = 1, ε = 1 - β, c = β / N
            coefficient *= min(1.0, step / self.state.max_steps)
        ids: Tensor = inputs["input_ids"]
        if coefficient == 0:  # in every process alike
            tokens = (inputs["labels"][:, 1:] != IGNORE_INDEX).sum()
            self._count(int(self.accelerator.reduce(tokens, reduction="sum")), 0, 0)
            return ids
        if "attention_mask" not in inputs or not bool(inputs["attention_mask"][:, 0].all()):
            got = "batches without an attention_mask, or padded on the left"
            expected = "an attention_mask, and rows padded on the right"
            raise ConfigError("data_collator", got, expected, "Use the trainer's own collator")
        lengths = inputs["attention_mask"].sum(dim=1)
        generated = self._places.step(ids, inputs["labels"], lengths, coefficient, seed=args.seed, step=step)
        sampling_mask, start, keys = (value.to(ids.device) for value in generated[:3])
        with evaluation_mode(model):
            mixed = parallel_sample(
                model,
                ids,
                sampling_mask,
                start,
                keys,
                self._sampler,
                num_sampling_passes=None if args.num_sampling_passes == EXACT else args.num_sampling_passes,
                anywhere=partial(any_process, self.accelerator),
            )
        counts = torch.tensor(
            [generated.tokens, generated.sampling_mask.sum(), (mixed != ids).sum()], device=ids.device
        )
        tokens, sampled, replaced = self.accelerator.reduce(counts, reduction="sum").tolist()
        self._count(tokens, sampled, replaced)
        return mixed

    def _count(self, tokens: int, sampled: int, replaced: int) -> None:
        """Of the reference tokens of all processes; their shares are logged of all between two log entries."""
        self._ratios.add("train", "sampling/sampled_frac", sampled, tokens)
        self._ratios.add("train", "sampling/replaced_frac", replaced, tokens)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training:
            self._ratios.move_to(self._metrics, "train")
        super().log(logs, start_time)


class ScheduledSamplingTrainer(GapTrainerMixin, OnlineSamplingSFTTrainer):
    """
    Trainer for online scheduled sampling: the model learns the reference token at every position of a context into
    which its own tokens are mixed, sampled from the current weights in each step.

    It takes what [`~trl.SFTTrainer`] takes, with a [`ScheduledSamplingConfig`]; see
    [`~gapbridge.training.method.GapTrainerMixin`] for the arguments. Its rows are the reference rows. It logs the
    shares of completion tokens sampled from the model (`sampling/sampled_frac`) and replaced
    (`sampling/replaced_frac`) by another token than the reference.

    Raises:
        ConfigError: in the first step, a `data_collator` of one's own pads rows on the left.
    """

    _tag_names = ["trl", "scheduled-sampling", "gapbridge"]
    _name = "Scheduled sampling"
    _paper = _PAPER
    config_class = ScheduledSamplingConfig
    sft_equivalent_config = {"mixture_coefficient": 0.0}

    @classmethod
    def forward_equivalents_per_token(cls, args: ScheduledSamplingConfig) -> float:
        passes = EXACT_PASSES if args.num_sampling_passes == EXACT else int(args.num_sampling_passes or 1)
        return super().forward_equivalents_per_token(args) + passes


METHOD = ScheduledSamplingTrainer
