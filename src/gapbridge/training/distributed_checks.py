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

from ..errors import RunError, describe


_ON_CPU = "Add `--use_cpu true` on a machine without GPUs, and leave ACCELERATE_USE_CPU unset"


def check_processes(args: TrainingArguments) -> None:
    """Refuse processes that a launcher started together and that do not know of each other, or cannot wait for each
    other.

    Raises:
        RunError: with the way out. Nothing has been written then.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if args.world_size != launched:
        got = f"{launched} started by the launcher, of which this one ({args.device}) knows {args.world_size}"
        raise RunError("processes", got, f"one group of processes, not {launched} copies of the run", str(_ON_CPU))
    if launched > 1 and PartialState().distributed_type == DistributedType.NO:
        raise RunError(
            "processes", f"{launched} that do not average their gradients", "one group of processes", str(_ON_CPU)
        )


def check_accelerator(args: TrainingArguments, accelerator: Accelerator, model: nn.Module) -> None:
    """Refuse a trainer whose accelerator is not what the launcher, or the recipe, asked for.

    Raises:
        RunError: listing every difference.
    """
    launched, kind = int(os.environ.get("WORLD_SIZE", "1")), accelerator.distributed_type
    asked = {name: str_to_bool(os.environ.get(f"ACCELERATE_USE_{name}", "false")) for name in ("FSDP", "DEEPSPEED")}
    errors = []
    if accelerator.num_processes != launched:
        got = f"{launched} started by the launcher, of which the trainer knows {accelerator.num_processes}"
        errors.append(describe("processes", got, "the same number", "Check the launcher's configuration"))
    if (args.fsdp or asked["FSDP"]) and launched > 1 and kind != DistributedType.FSDP:
        got = f"{kind.value} in the trainer, with the complete model in every process"
        expected = "FSDP, which accelerate has on GPUs alone"
        errors.append(describe("FSDP", got, expected, "Use accelerate_configs/ddp.yaml on CPUs"))
    if args.deepspeed or asked["DEEPSPEED"]:
        if kind != DistributedType.DEEPSPEED:
            errors.append(describe("DeepSpeed", f"{kind.value} in the trainer", "DeepSpeed", str(_ON_CPU)))
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
        got = f"stage {stage} in the recipe and zero_stage {asked} of the launcher"
        errors.append(describe("deepspeed", got, "one stage", "Keep one of them"))
    gathers = config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save", False)
    if stage == 3 and not gathers and not isinstance(model, PeftModel):
        got = "a configuration that saves no weights for from_pretrained"
        advice = "Set zero3_save_16bit_model: true in the accelerate configuration"
        errors.append(describe("ZeRO-3", got, "stage3_gather_16bit_weights_on_model_save", advice))
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
                got, advice = "a configuration that shards no parameter", "Name the class of its layers, or use ddp"
                raise RunError("fsdp_transformer_layer_cls_to_wrap", got, "the layers of the model", advice)
        if accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.deepspeed_plugin.zero_stage == 3:
            if all(parameter.ds_persist for parameter in model.parameters()):
                got = "no sharded parameter, since all are below stage3_param_persistence_threshold"
                expected = "parameters to shard"
                raise RunError("ZeRO-3", got, expected, "Use ddp or zero2, which cost less, or lower the threshold")


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Whether something holds in any process; all of them must ask together."""
    flag = torch.tensor([here], dtype=torch.int64, device=accelerator.device)
    return bool(accelerator.reduce(flag, reduction="sum"))
