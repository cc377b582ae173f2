"""Put a model where it generates, and into the state and precision in which it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments
from transformers.integrations import is_fsdp_enabled

from ..compat import mixed_precision
from ..errors import RunError
from .attention import GROUPED


logger = logging.getLogger(__name__)

MASKABLE_ATTENTION = ("eager", "sdpa", GROUPED)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, and gradient checkpointing, which is active in training mode only, off) without
    gradients, of any module.

    Each module gets its own flag back, also after an exception: a frozen part that was in evaluation mode stays in it.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def generation_mode(model: PreTrainedModel) -> Iterator[None]:
    """`evaluation_mode`, with an attention that takes the mask of the slot cache.

    Attention implementations that take no 4-D mask (flash attention) are replaced meanwhile: by sdpa, or by eager
    where the model has no sdpa (attention sinks, soft-capped attention). Where query heads share keys, sdpa is
    `attention.grouped_attention`.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    before = model.config._attn_implementation
    attention = before
    if attention not in MASKABLE_ATTENTION:
        # transformers 4 lets Gemma-2 have sdpa, which leaves out the soft cap of its scores there.
        attention = "sdpa" if base._supports_sdpa and not uses_logit_softcapping(model.config) else "eager"
        logger.info("attention implementation %s → %s while contexts are generated", before, attention)
    if attention == "sdpa" and uses_gqa(model):
        attention = GROUPED
    try:
        if attention != before:
            model.set_attn_implementation(attention)
        with evaluation_mode(model), _cached_casts(model):
            yield
    finally:
        if attention != before:
            model.set_attn_implementation(before)


@contextmanager
def _cached_casts(model: nn.Module) -> Iterator[None]:
    """Let autocast cast frozen float32 weights once, as it does those that require a gradient, not in each pass."""
    frozen = [weight for weight in model.parameters() if not weight.requires_grad and weight.dtype == torch.float32]
    if not any(torch.is_autocast_enabled(device) for device in {weight.device.type for weight in frozen}):
        frozen = []
    try:
        for weight in frozen:
            weight.requires_grad = True
        yield
    finally:
        for weight in frozen:
            weight.requires_grad = False


def uses_gqa(model: PreTrainedModel) -> bool:
    """Whether several query heads of the model share one head of keys (grouped-query and multi-query attention)."""
    options = model.config.get_text_config().to_dict()
    return 0 < (options.get("num_key_value_heads") or 0) < (options.get("num_attention_heads") or 0)


def uses_logit_softcapping(config: PretrainedConfig) -> bool:
    """Whether attention's scores are soft-capped (Gemma-2), which sdpa cannot do."""
    return config.get_text_config().to_dict().get("attn_logit_softcapping") is not None


def move_to_device(model: PreTrainedModel | PeftModel, args: TrainingArguments) -> None:
    """Put the model on this process's device, where it is not in place already.

    Raises:
        RunError: the weights are sharded, or were loaded by one process only.
    """
    check_loading()
    if is_sharded(model):
        advice = "Give the model as a path, or load it with gapbridge.handbook.get_model"
        raise RunError("model", "sharded weights", "complete weights to generate contexts with", advice)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    quantized = base.config.to_dict().get("quantization_config") is not None
    if not quantized and "hf_device_map" not in vars(base):  # those were placed while they were loaded
        model.to(args.device)


def check_loading() -> None:
    """Refuse FSDP that would load weights into one process only, where all generate.

    Raises:
        RunError: with the line that the accelerate configuration needs.
    """
    if is_fsdp_enabled():  # transformers' word for it
        got = "true, so that one process alone has the weights before training"
        expected, advice = "false, since all processes generate", "Set it to false in the accelerate configuration"
        raise RunError("fsdp_cpu_ram_efficient_loading", got, expected, advice)


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds only its share of some parameter: of a DTensor, or none at all as under ZeRO-3."""
    return any(isinstance(parameter, DTensor) or not parameter.numel() for parameter in model.parameters())


def generation_precision(model: PreTrainedModel, args: TrainingArguments) -> torch.autocast:
    """The precision of the training steps: float32 weights under mixed precision generate in mixed precision too."""
    dtype = _autocast_dtype(model, args)
    return torch.autocast(model.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def precision_name(model: PreTrainedModel, args: TrainingArguments) -> str:
    """The text by which a store knows the precision of its contexts, such as `float32, autocast bfloat16`."""
    dtypes = (model.dtype, _autocast_dtype(model, args))
    return ", autocast ".join(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype is not None)


def device_name(model: PreTrainedModel) -> str:
    """The text by which a store knows where its answers were measured, such as `cpu, sdpa`."""
    return f"{model.device.type}, {model.config._attn_implementation}"


def _autocast_dtype(model: PreTrainedModel, args: TrainingArguments) -> torch.dtype | None:
    # Not args.bf16: the launcher's configuration may ask for mixed precision where the recipe does not; it holds then.
    if mixed_precision(args) == "no" or model.dtype != torch.float32:
        return None
    return torch.float16 if mixed_precision(args) == "fp16" else torch.bfloat16
