"""One training step of a model on tensors that take no memory: how many bytes would be alive, at most.

The model's own forward and backward pass run, in full size, on `FakeTensorMode`'s tensors, and `MemoryTracker` counts
them. So what autograd keeps, what gradient checkpointing makes again and what the loss needs are counted, not
estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ..compat import fuse_head
from .memory_tracker import MemoryTracker


@dataclass(frozen=True)
class StepMemory:
    """What a step takes, in bytes where nothing else is said.

    layers, parameters, trained: numbers of layers, and of parameters. embedded: those of them in embeddings and output
    embedding.
    weights, gradients: of all parameters, and of the trained ones. largest: the largest trained parameter.
    activations: the most that is alive beyond weights and gradients.
    """

    layers: int
    parameters: int
    trained: int
    embedded: int
    weights: int
    gradients: int
    largest: int
    activations: int


def run_fake_step(
    config: PretrainedConfig,
    dtype: torch.dtype,
    *,
    rows: int,
    length: int,
    checkpointing: bool,
    autocast: bool = False,
    adapter: PeftConfig | None = None,
    masked: bool = True,
) -> StepMemory:
    """A step on `rows` rows of `length` tokens, with the mask that rows of several lengths, or packed ones, have.

    Args:
        masked: False for an attention that needs no mask for packed rows.
        autocast: mixed precision, bf16 over weights of `dtype`.
        adapter: train this adapter instead of the model.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        fuse_head(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if adapter is not None:
            model.enable_input_require_grads()
            model = get_peft_model(model, adapter)
    model.train()
    with FakeTensorMode(), MemoryTracker() as live:
        _materialise(model)
        live.track([*model.parameters(), *model.buffers()])
        weights = live.now
        _pass(model, rows, length, autocast, masked)  # its gradients stay, as between two micro-batches
        gradients = live.now - weights
        _pass(model, rows, length, autocast, masked)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return StepMemory(
            layers=config.get_text_config().num_hidden_layers,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            trained=sum(parameter.numel() for parameter in trained),
            embedded=_embedded(model),
            weights=weights,
            gradients=gradients,
            largest=max(parameter.nbytes for parameter in trained),
            activations=live.peak - weights - gradients,
        )


def _materialise(model: nn.Module) -> None:
    """Put fake tensors of the CPU in the place of those without a device. `Module.to` cannot: it swaps tensors."""
    made: dict[int, torch.Tensor] = {}  # a tied weight is one
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fresh, requires_grad=tensor.requires_grad) if is_weight else fresh
                tensors[name] = made[id(tensor)]  # type: ignore[assignment]


def _pass(model: Any, rows: int, length: int, autocast: bool, masked: bool) -> None:
    """A forward and a backward pass."""
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool) if masked else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(input_ids=tokens, attention_mask=mask, labels=tokens, fused_lm_head=True).loss
    loss.backward()


def _embedded(model: PreTrainedModel) -> int:
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = {id(layer.weight): layer.weight for layer in layers if layer is not None}
    return sum(weight.numel() for weight in weights.values())
