"""Bytes on one device while a recipe trains and while it samples contexts, by docs/research/memory-estimates.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from ..decoding.attention import expands_gqa_keys
from ..decoding.keyed_sampler import MAX_SCORES
from ..recipe.type_checks import to_builtin
from .fake_step import StepMemory


SHARDED = ("zero2", "zero3", "fsdp")  # what of them is divided among the processes is in `_parts`
CONFIGS = ("single", "ddp", *SHARDED)
PARTS = (
    "weights", "gathered weights", "gradients", "optimizer", "reference model", "activations", "cache", "one layer",
    "logits",
)  # fmt: skip
_STATES = {  # of the optimizer, for each trained parameter: how many, and their bytes (None: those of the parameter)
    "adamw_torch": (2, None), "adamw_torch_fused": (2, None), "rmsprop": (1, None), "sgd": (0, None),
    "adafactor": (0, None), "adamw_bnb_8bit": (2, 1), "adamw_8bit": (2, 1), "paged_adamw_8bit": (2, 1),
    "paged_adamw_32bit": (2, 4),
}  # fmt: skip
_BUCKET = 10**9  # bytes of gradients that DeepSpeed keeps on their way, and of weights that ZeRO-3 gathers ahead
_SCORE = 20  # bytes for each logit that is sampled from: float32, two words of noise and their temporaries


@dataclass(frozen=True)
class Memory:
    """Bytes of each part on one device, in training and in generation (empty where nothing is generated); `peak` is
    the larger sum."""

    training: Mapping[str, float]
    generation: Mapping[str, float]

    @property
    def peak(self) -> float:
        return max(_sum(self.training), _sum(self.generation))


def memory(
    step: StepMemory,
    args: Any,
    config: str,
    gpus: int,
    *,
    reference: bool,
    generation: Mapping[str, float],
    on_cpu: bool = False,
) -> Memory:
    """The parts of a device's memory under an accelerate configuration.

    Args:
        step: simulated with the micro-batch; for DeepSpeed with weights in bf16, see `simulate`.
        config: single, ddp, zero2, zero3 or fsdp.
        reference: whether a frozen copy of the model stands beside it.
        generation: what generation needs: the weights as they were loaded, and `generation_parts`.
    """
    trained = step.trained
    each = step.gradients / max(1, trained)  # bytes of a trained weight
    number, size = _STATES.get(to_builtin(args.optim), (2, None))
    share = gpus if config in SHARDED else 1
    if config in ("zero2", "zero3"):
        # A master copy and its gradient in float32 and the states, all of them divided; bf16 gradients on their way.
        parts = {
            "weights": step.weights / (share if config == "zero3" else 1),
            "gradients": trained * (2 + 4) / share + min(_BUCKET, 2 * trained),
            "optimizer": trained * 4 * (1 + number) / share,
        }
        parts["gathered weights"] = min(2.0 * _BUCKET, step.weights) if config == "zero3" else 0
        update = trained * 4 / share
    elif config == "fsdp":
        parts = {
            "weights": trained * 4 / share + (step.weights - trained * each) / share,
            "gradients": trained * 4 / share,
            "optimizer": trained * 4 * number / share,
            # Two layers in bf16, the one that runs and the next, and the embeddings.
            "gathered weights": 2 * (2 * (step.parameters - step.embedded) / step.layers + step.embedded),
        }
        update = trained * 4 / share
    else:
        parts = {
            "weights": step.weights,
            "gradients": step.gradients * (2 if config == "ddp" and gpus > 1 else 1),  # and the buckets of DDP
            "optimizer": trained * number * (each if size is None else size),
        }
        update = 2 * step.largest if on_cpu else step.gradients  # torch updates all of a device's tensors at once
    if reference:
        parts["reference model"] = step.weights / (share if config in ("zero3", "fsdp") else 1)
    parts["activations"] = max(step.activations, update)
    return Memory({name: size for name, size in parts.items() if size}, generation)


def generation_parts(
    config: PretrainedConfig,
    width: int,
    *,
    rows: int,
    length: int,
    fed: int,
    seen: int,
    generated: int,
    eager: bool,
    on_cpu: bool,
) -> dict[str, float]:
    """What generation contexts takes beside the weights.

    Args:
        width: bytes of a number in the weights, and so in the cache and in masks, under mixed precision too.
        rows, length: of the slot cache.
        fed: the tokens of a row in one pass, at most; seen: the slots that they attend to; generated: how many of them
            have logits.
        eager: whether attention is computed step by step, with the scores of all heads in memory.
    """
    text = config.get_text_config()
    options = text.to_dict()
    layers, heads, hidden = text.num_hidden_layers, text.num_attention_heads, text.hidden_size
    remaining = options.get("num_key_value_heads") or heads
    depth = options.get("head_dim") or hidden // heads
    inner = options.get("intermediate_size") or 4 * hidden
    tokens, logits = rows * fed, rows * generated * text.vocab_size
    pairs = tokens * seen
    # Of keys and values that heads share, or of the mask instead: see `decoding.attention`.
    copied = heads != remaining and (eager or expands_gqa_keys(remaining, depth, fed))
    attention = 2 * rows * length * heads * depth * width if copied else pairs * width * (heads // remaining - 1)
    return {
        "cache": 2 * layers * rows * length * remaining * depth * width,
        # The mask, what attention adds to it, its scores with their softmax in float32, the window's widest states.
        "one layer": pairs * width
        + attention
        + pairs * heads * (2 * width + 4) * eager
        + tokens * width * (4 * hidden + 3 * inner),
        "logits": logits * width + min(logits, MAX_SCORES[on_cpu]) * _SCORE,
    }


def _sum(parts: Mapping[str, float]) -> float:
    return float(sum(parts.values()))
