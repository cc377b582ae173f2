"""Commands of Gapbridge, one after the other, in processes without GPUs: `accelerate launch … on_cpu.py JOBS.json`.

JOBS.json is a list of jobs: `arguments` as after `gapbridge`, `environment` variables for this job alone, and
`fsdp_on_cpu`. Two things that only GPUs have are bridged, for the tests alone: accelerate applies FSDP2 to GPUs only,
though torch's own works on CPUs, and DeepSpeed compiles a communication kernel for CPUs that no training step needs.

For each training every process writes `train-<rank>.json` into its directory: how the trainer is distributed and how
many of the parameters are in shards. `JOBS.json.<rank>` gets each job's outcome: `done`, or the message of a refusal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_CALLBACKS

from gapbridge.cli import run
from gapbridge.errors import GapbridgeError


class RecordSharding(TrainerCallback):
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        parameters = list(kwargs["model"].parameters())
        sharded = sum(isinstance(p, DTensor) or ("ds_persist" in vars(p) and not p.ds_persist) for p in parameters)
        record = {
            "distributed_type": AcceleratorState().distributed_type.value,
            "world_size": args.world_size,
            "resumed_at": state.global_step,
            "parameters": len(parameters),
            "sharded": sharded,
        }
        Path(args.output_dir, f"train-{args.process_index}.json").write_text(json.dumps(record))


@contextmanager
def fsdp2_on_cpu() -> Iterator[None]:
    """Inside, accelerate understands FSDP2 for processes that talk through gloo."""
    original = AcceleratorState.__init__

    def initialise(
        self: AcceleratorState,
        *args: Any,
        fsdp_plugin: FullyShardedDataParallelPlugin | None = None,
        **kwargs: Any,
    ) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is None or self.distributed_type != DistributedType.MULTI_CPU:
            return
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = initialise
    try:
        yield
    finally:
        AcceleratorState.__init__ = original


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def rewind(run: Path, checkpoint: Path) -> None:
    """Make a complete run look as if it had been killed just after `checkpoint` was written; keep its model aside."""
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, "state": "running"}))
        (checkpoint.parent / "model").rename(run.with_name(f"{run.name}-first-model"))
        for later in checkpoint.parent.glob("checkpoint-*"):
            if int(later.name.split("-")[1]) > int(checkpoint.name.split("-")[1]):
                later.rename(run.with_name(f"{run.name}-{later.name}"))
    PartialState().wait_for_everyone()


def perform(arguments: list[str]) -> str:
    try:
        if arguments[0] == "rewind":
            rewind(Path(arguments[1]), Path(arguments[2]))
        else:
            run(arguments)
    except GapbridgeError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def main(jobs_file: Path) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    DEFAULT_CALLBACKS.append(RecordSharding)
    if "GROUP_TIMEOUT" in os.environ:  # transformers passes none on where there is no GPU
        timeout = timedelta(seconds=int(os.environ["GROUP_TIMEOUT"]))
        torch.distributed.init_process_group("gloo", timeout=timeout)
    outcomes = []
    for job in json.loads(jobs_file.read_text(encoding="utf-8")):
        with environment(job.get("environment", {})):
            if job.get("fsdp_on_cpu", True):
                with fsdp2_on_cpu():
                    outcomes.append(perform(job["arguments"]))
            else:
                outcomes.append(perform(job["arguments"]))
        jobs_file.with_name(f"{jobs_file.name}.{os.environ.get('RANK', '0')}").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
