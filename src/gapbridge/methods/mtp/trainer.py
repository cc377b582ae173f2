"""The multi-token prediction trainer (Gloeckle et al. 2024)."""

from __future__ import annotations

import copy
import functools
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import SFTConfig, SFTTrainer

from ...decoding.mtp_heads import (
    HEADS_ATTRIBUTE,
    CapturedStates,
    MTPHeads,
    add_heads,
    capture_hidden_states,
    find_decoder_parts,
    find_heads,
    head_states,
    load_heads,
    save_heads,
    saved_heads,
    unwrap_peft,
)
from ...errors import ConfigError, describe
from ...training.decoding_mode import DecodingMode
from ...training.method import GapTrainerMixin
from ...training.ratios import Ratios
from .config import MTPArgs
from .losses import HeadLoss, future_targets, sequential_losses
from .speculative import speculative_answers


_PAPER = {
    "title": "Better & Faster Large Language Models via Multi-token Prediction",
    "id": "2404.19737",
    "citation": (
        "@inproceedings{gloeckle2024better,\n"
        "    title     = {{Better \\& Faster Large Language Models via Multi-token Prediction}},\n"
        "    author    = {Gloeckle, Fabian and Idrissi, Badr Youbi and Rozi{\\`e}re, Baptiste and Lopez-Paz, David "
        "and Synnaeve, Gabriel},\n"
        "    booktitle = {International Conference on Machine Learning},\n"
        "    year      = 2024\n"
        "}"
    ),
}


@dataclass
class MTPConfig(MTPArgs, SFTConfig):
    """Configuration for [`MTPTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.mtp.config.MTPArgs`]."""


class MTPSFTTrainer(SFTTrainer):
    """[`~trl.SFTTrainer`] whose loss is the sum over the model's own head and the future heads that stand on it.

    The losses of the heads are taken inside the model's forward pass, where TRL takes that of the first: what wraps
    the model sees one forward and one backward pass.
    """

    def __init__(self, *args: Any, peft_config: PeftConfig | None = None, **kwargs: Any) -> None:
        wanted = kwargs["args"].num_future_tokens > 1
        if wanted:
            _check(kwargs["model"], peft_config, kwargs)
            peft_config = None if peft_config is None else _beside_heads(peft_config)
        super().__init__(*args, peft_config=peft_config, **kwargs)
        if wanted and self.is_fsdp_enabled:
            got, expected = "a value above 1 under FSDP, where heads are not trained", "zero2, ddp, or one process"
            raise ConfigError("num_future_tokens", got, expected, "Use one of these configurations")
        self._heads = find_heads(self.model) if wanted else None
        self._figures: Tensor | None = None  # of the last forward pass, `[heads, 3]`
        self._ratios = Ratios()
        if self._heads is not None:
            self._heads.requires_grad_(True)  # an adapter has frozen them with the rest
            self._patch_forward(unwrap_peft(self.model), self._heads)

    def _patch_forward(self, base: PreTrainedModel, heads: MTPHeads) -> None:
        """Add the heads' log-probabilities to those that `base.forward` gives TRL."""
        original_forward, parts = base.forward, find_decoder_parts(base)

        @functools.wraps(type(base).forward)
        def forward(_: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
            if not fused_lm_head:
                return original_forward(*args, **kwargs)
            with capture_hidden_states(parts) as captured:
                output = original_forward(*args, fused_lm_head=True, **kwargs)
            total, figures = self._future_losses(heads, captured, kwargs["labels"], kwargs.get("position_ids"))
            first = [output.log_probs.sum(), output.is_top1.sum(), output.label_mask.sum()]
            self._figures = torch.cat([torch.stack([entry.detach().float() for entry in first])[None], figures])
            if self.model.training:
                # TRL takes the negative sum and divides it by the number of tokens with loss.
                weighted = (self.args.mtp_loss_weight * total)[None]
                output.log_probs = torch.cat([output.log_probs.flatten(), weighted])
            return output

        base.forward = types.MethodType(forward, base)

    def _future_losses(
        self, heads: MTPHeads, captured: CapturedStates, labels: Tensor, position_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of heads 2 to n, the sum of their log-probabilities and their figures."""
        parts, states = captured.parts, captured.states
        starts = None if position_ids is None else position_ids == 0
        if states is None:
            raise RuntimeError("the model's last layer was not called")
        losses = [
            HeadLoss(
                functools.partial(head_states, heads, index, captured),
                parts.unembedding,
                future_targets(labels, index + 2, starts),
            )
            for index in range(len(heads))
        ]
        alone = self.state.global_step < self.args.mtp_head_only_ratio * self.state.max_steps
        for module in heads.modules():
            if "gradient_checkpointing" in vars(module):
                vars(module)["gradient_checkpointing"] = False  # the activations of one head are in memory, no more
        shared = [] if alone else [parts.norm, parts.unembedding]
        learning = [weight for part in (heads, *shared) for weight in part.parameters() if weight.requires_grad]
        return sequential_losses(states.detach() if alone else states, losses, learning)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor | Any], *args: Any, **kwargs: Any) -> Any:
        """-Σ_i Σ_t log p_i(x_{t+i} | x_≤t) in training, divided by the number of tokens with loss; that of head 1
        alone in evaluation."""
        result = super().compute_loss(model, inputs, *args, **kwargs)
        if self._figures is not None:
            figures = self.accelerator.reduce(self._figures, reduction="sum").tolist()
            mode = "train" if self.model.training else "eval"
            for index, (log_probs, correct, count) in enumerate(figures, start=1):
                self._ratios.add(mode, f"head_{index}_loss", -log_probs, count)
                self._ratios.add(mode, f"head_{index}_accuracy", correct, count)
            self._figures = None
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._ratios.move_to(self._metrics, "train" if self.model.training else "eval")
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._heads is not None and self.args.should_save:
            weights = None if state_dict is None else _of_heads(state_dict)
            save_heads(Path(output_dir or self.args.output_dir), self._heads, weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_heads(resume_from_checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The heads are not missing: they have a file of their own."""
        missing = [name for name in load_result.missing_keys if not name.startswith(f"{HEADS_ATTRIBUTE}.")]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if not self.is_deepspeed_enabled:  # its own checkpoint has the whole model
            self._load_heads(str(self.state.best_model_checkpoint))

    def _load_heads(self, checkpoint: str) -> None:
        if self._heads is None:
            return
        path = saved_heads(checkpoint)
        if path is None:
            got, advice = "no future heads with num_future_tokens above 1", "Restore it, or choose another checkpoint"
            raise ConfigError(checkpoint, got, "the heads", advice)
        load_heads(unwrap_peft(self.model), path)


class MTPTrainer(GapTrainerMixin, MTPSFTTrainer):
    """
    Trainer for multi-token prediction: from every position the model learns the next n tokens, each with a head of its
    own on a shared trunk.

    It takes what [`~trl.SFTTrainer`] takes, with an [`MTPConfig`]; see [`~gapbridge.training.method.GapTrainerMixin`]
    for the arguments. The rows are the reference rows. `loss` is the sum over the heads in training; `eval_loss` is
    the next-token loss, comparable with SFT's. It logs `head_i_loss` and `head_i_accuracy` for i = 1 … n. With an
    adapter the trunk learns through it, and the heads with all their weights.

    Raises:
        ConfigError: heads do not fit the model, or how its weights are held.
    """

    _tag_names = ["trl", "mtp", "gapbridge"]
    _name = "MTP"
    _paper = _PAPER
    config_class = MTPConfig
    sft_equivalent_config = {"num_future_tokens": 1}
    answer_modes = {
        "speculative": DecodingMode(
            help="the single-pass answers again, proposed by the model's heads: the same, in fewer passes",
            options={},
            settings=lambda args: {},
            answer=speculative_answers,
            through_server=False,
            any_model=False,
        )
    }

    @classmethod
    def figures_of(cls, args: MTPConfig) -> tuple[str, ...]:
        heads = range(1, args.num_future_tokens + 1) if args.num_future_tokens > 1 else ()
        own = [f"head_{index}_{figure}" for index in heads for figure in ("loss", "accuracy")]
        return (*super().figures_of(args), *own)

    @classmethod
    def refused_configs(cls, args: MTPConfig, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
        """A head's gradients are taken from whole weights."""
        return ("zero3", "fsdp") if args.num_future_tokens > 1 else ()

    @classmethod
    def setup_model(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: MTPConfig) -> None:
        """Heads 2 to n: those that lie beside the model, or new ones."""
        if model is None or isinstance(model, PeftModel) or args.num_future_tokens == 1 or find_heads(model):
            return
        errors = []
        if model.config.to_dict().get("quantization_config") is not None:
            got, expected = "a quantized model, whose layers heads would copy", "unquantized weights"
            advice = "Remove load_in_4bit and load_in_8bit, or set num_future_tokens: 1"
            errors.append(describe("num_future_tokens", got, expected, advice))
        if is_deepspeed_zero3_enabled():
            got, expected = "a value above 1 under ZeRO-3, where heads are not trained", "zero2, ddp, or one process"
            errors.append(describe("num_future_tokens", got, expected, "Use one of these configurations"))
        if errors:
            raise ConfigError(errors)
        path = saved_heads(model.config._name_or_path)
        add_heads(model, args.num_future_tokens - 1)
        if path is not None:
            load_heads(model, path)


METHOD = MTPTrainer


def _check(model: PreTrainedModel | PeftModel, peft_config: PeftConfig | None, given: Mapping[str, Any]) -> None:
    """Refuse what heads cannot stand on, before TRL takes it."""
    key = "num_future_tokens"
    errors = []
    if isinstance(model, PeftModel):
        advice = "Merge the adapter (save_merged_model: true in its own run), and start from the merged model"
        errors.append(describe(key, "an adapter on the trunk of the heads", "a complete model", advice))
    elif find_heads(model) is None:
        advice = "Call MTPTrainer.setup_model(model, tokenizer, args)"
        errors.append(describe(key, "a model without heads", "a model with heads", advice))
    if peft_config is not None and peft_config.is_prompt_learning:
        got = f"an adapter of type {peft_config.peft_type.value}, which moves the labels"
        errors.append(describe(key, got, "LoRA", "Use LoRA"))
    if given.get("compute_loss_func") is not None:
        got = "a function, which would see the loss of head 1 alone"
        errors.append(describe("compute_loss_func", got, "none", "Remove the argument"))
    if errors:
        raise ConfigError(errors)


def _beside_heads(peft_config: PeftConfig) -> PeftConfig:
    """The adapter's configuration, with the heads among what it leaves alone: they learn with all their weights."""
    changed = copy.copy(peft_config)
    excluded = changed.exclude_modules
    pattern = rf"(.*\.)?{HEADS_ATTRIBUTE}\..*"
    if isinstance(excluded, str):
        pattern = f"{pattern}|{excluded}"
    elif excluded:
        pattern = f"{pattern}|(.*\\.)?({'|'.join(re.escape(name) for name in excluded)})"
    changed.exclude_modules = pattern
    return changed


def _of_heads(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The heads' weights among a whole model's, under their own names."""
    prefix = re.compile(rf"(.*\.)?{HEADS_ATTRIBUTE}\.")
    return {prefix.sub("", name, count=1): value for name, value in state_dict.items() if prefix.match(name)}
