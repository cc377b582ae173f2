"""Whether the processes of a run work together as their launcher asked: guards against runs that only look parallel.

A launcher's request reaches the processes through environment variables, and a library that does not understand one
goes on without it: processes that know nothing of each other train copies of the model, FSDP becomes plain data
parallelism, ZeRO-3 partitions nothing. All of that ends with exit code 0. Here the request is compared with what the
trainer's accelerator really is, before the first token is generated and before the first step.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, str_to_bool
from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import RunError


_ON_CPU = "on a machine without GPUs add `--use_cpu true`, and leave ACCELERATE_USE_CPU unset"


def check_processes(args: TrainingArguments) -> None:
    """Refuse processes that a launcher started together and that do not know of each other, or cannot wait for each
    other.

    Raises:
        RunError: with the way out. Nothing has been written then.
    """
    launched = _launched_processes()
    if args.world_size != launched:
        raise RunError(
            f"the launcher started {launched} processes, but this one ({args.device}) knows of {args.world_size}: "
            f"each would make and train a copy of its own. With GPUs, give every process one; {_ON_CPU}"
        )
    if launched > 1 and PartialState().distributed_type == DistributedType.NO:
        raise RunError(f"the trainer would not average the gradients of its {launched} processes; {_ON_CPU}")


def check_accelerator(args: TrainingArguments, accelerator: Accelerator, model: nn.Module) -> None:
    """Refuse a trainer whose accelerator is not what the launcher, or the recipe, asked for.

    Raises:
        RunError: listing every difference.
    """
    launched, kind = _launched_processes(), accelerator.distributed_type
    errors = []
    if accelerator.num_processes != launched:
        errors.append(f"the launcher started {launched} processes, the trainer knows of {accelerator.num_processes}")
    if _requested_processes("ACCELERATE_USE_FSDP", args.fsdp) and launched > 1 and kind != DistributedType.FSDP:
        errors.append(
            f"FSDP was asked for, the trainer has {kind.value}, every process with the whole model: accelerate has no "
            "FSDP on CPUs; use ddp there"
        )
    if _requested_processes("ACCELERATE_USE_DEEPSPEED", args.deepspeed):
        if kind != DistributedType.DEEPSPEED:
            errors.append(f"DeepSpeed was asked for, the trainer has {kind.value}; {_ON_CPU}")
        else:
            errors += _deepspeed_errors(accelerator, model)
    if errors:
        raise RunError(errors)


def _deepspeed_errors(accelerator: Accelerator, model: nn.Module) -> list[str]:
    config = accelerator.state.deepspeed_plugin.hf_ds_config
    stage = config.get_value("zero_optimization.stage", 0)
    asked = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    errors = []
    if asked is not None and "ACCELERATE_DEEPSPEED_CONFIG_FILE" not in os.environ and int(asked) != stage:
        errors.append(
            f"the launcher asked for zero_stage {asked}, the recipe's `deepspeed` has stage {stage}: keep one of them"
        )
    gathers = config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save", False)
    if stage == 3 and not gathers and not isinstance(model, PeftModel):
        errors.append(
            "ZeRO-3 would save no weights that from_pretrained loads: set zero3_save_16bit_model: true in the "
            "accelerate configuration (stage3_gather_16bit_weights_on_model_save in a DeepSpeed one)"
        )
    return errors


class CheckSharding(TrainerCallback):
    """Looks, before the first step, whether FSDP and ZeRO-3 have sharded any parameter.

    Raises:
        RunError: every process would hold and update the whole model.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.world_size == 1:
            return
        model, accelerator = kwargs["model"], AcceleratorState()
        if accelerator.distributed_type == DistributedType.FSDP and accelerator.fsdp_plugin.fsdp_version == 2:
            if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
                raise RunError(
                    "FSDP shards no parameter of this model: name its layers in fsdp_transformer_layer_cls_to_wrap, "
                    "or use ddp"
                )
        if accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.deepspeed_plugin.zero_stage == 3:
            if all(parameter.ds_persist for parameter in model.parameters()):
                raise RunError(
                    "ZeRO-3 shards no parameter of this model: all are smaller than "
                    "stage3_param_persistence_threshold. Use ddp or zero2, which cost less, or lower the threshold in "
                    "a DeepSpeed configuration"
                )


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Whether something holds in any process; all of them must ask together."""
    flag = torch.tensor([here], dtype=torch.int64, device=accelerator.device)
    return bool(accelerator.reduce(flag, reduction="sum"))


def _launched_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _requested_processes(variable: str, setting: object) -> bool:
    return bool(setting) or bool(str_to_bool(os.environ.get(variable, "false")))
