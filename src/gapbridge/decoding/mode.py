"""Put a model into the state in which it generates, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


logger = logging.getLogger(__name__)

MASKABLE_ATTENTION = ("eager", "sdpa")


@contextmanager
def generation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode (no dropout, and gradient checkpointing, which is active in training mode only, off) without
    gradients.

    Each module gets its own flag back, also after an exception: a frozen part that was in evaluation mode stays in it.
    Attention implementations that take no 4-D mask (flash attention) are replaced by sdpa meanwhile.
    """
    flags = [(module, module.training) for module in model.modules()]
    attention = model.config._attn_implementation
    switch = attention not in MASKABLE_ATTENTION
    try:
        model.eval()
        if switch:
            logger.info("attention implementation %s → sdpa while contexts are generated", attention)
            model.set_attn_implementation("sdpa")
        with torch.no_grad():
            yield
    finally:
        if switch:
            model.set_attn_implementation(attention)
        for module, training in flags:
            module.training = training
