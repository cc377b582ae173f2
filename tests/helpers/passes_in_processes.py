"""Trainers whose passes between steps run on wrapped and sharded weights: `accelerate launch … THIS MODEL FOLDER`.

Each process writes what its trainers logged to `FOLDER/logged-<rank>.json`.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from gapbridge import (
    GapCallback,
    GapDPOConfig,
    GapDPOTrainer,
    ScheduledSamplingConfig,
    ScheduledSamplingTrainer,
    SPINConfig,
    SPINTrainer,
)
from gapbridge.tasks.word_problems import problems


STEPS, ROWS = 3, 4  # rows in a step, in all processes together


def rows(split: str, count: int) -> Dataset:
    """Answers of one to four steps, so that processes have unequal work; with five held-out rows one has none."""
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(1, 2, 3, 4))])


def pairs() -> Dataset:
    given = list(rows("train", 17))
    keys = itertools.pairwise(given)
    return Dataset.from_list(
        [{"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in keys]
    )


def common(processes: int) -> dict[str, Any]:
    return {
        "use_cpu": True, "bf16": False, "report_to": "none", "max_steps": STEPS, "logging_steps": 1, "seed": 7,
        "save_strategy": "no", "per_device_train_batch_size": ROWS // processes // 2, "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": 2, "learning_rate": 1e-3,
    }  # fmt: skip


def trainers(model: str, folder: Path, processes: int) -> dict[str, Any]:
    """How to make each trainer; one is made, trained and forgotten before the next."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    options = common(processes)
    scheduled = {**options, "mixture_coefficient": 0.5, "num_sampling_passes": "exact"}
    lora = LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])

    def sampling(peft: LoraConfig | None) -> Trainer:
        args = ScheduledSamplingConfig(str(folder), **scheduled)
        return ScheduledSamplingTrainer(
            model, args=args, train_dataset=rows("train", 16), processing_class=tokenizer, peft_config=peft
        )

    return {
        "sft": lambda: SFTTrainer(
            model,
            args=SFTConfig(str(folder), **options),
            train_dataset=rows("train", 16),
            processing_class=tokenizer,
        ),
        "dpo": lambda: DPOTrainer(
            model, args=DPOConfig(str(folder), **options), train_dataset=pairs(), processing_class=tokenizer
        ),
        "preferences": lambda: GapDPOTrainer(
            model, args=GapDPOConfig(str(folder), **options), train_dataset=pairs(), processing_class=tokenizer
        ),
        "spin": lambda: SPINTrainer(
            model,
            args=SPINConfig(str(folder / "spin"), **options, max_completion_length=20, generation_shard_size=4),
            train_dataset=rows("train", 16),
            processing_class=tokenizer,
        ),
        "scheduled": lambda: sampling(None),
        "scheduled, lora": lambda: sampling(lora),
    }


def logged(model: str, folder: Path, processes: int) -> dict[str, Any]:
    """What each trainer logs, and how many of its parameters were in shards."""
    found = {}
    for name, make in trainers(model, folder, processes).items():
        trainer = make()
        trainer.add_callback(GapCallback(trainer, rows("test", 5), every=2, prefix_lengths=(1, 4, 8)))
        trainer.train()
        parameters = list(trainer.model.parameters())
        sharded = sum(isinstance(p, DTensor) or ("ds_persist" in vars(p) and not p.ds_persist) for p in parameters)
        found[name] = {"sharded": sharded, "log": trainer.state.log_history}
    return found


if __name__ == "__main__":
    import deepspeed

    sys.path.append(str(Path(__file__).parents[1]))
    from helpers.on_cpu import fsdp2_on_cpu

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with fsdp2_on_cpu():
        outcome = logged(sys.argv[1], Path(sys.argv[2]), 2)
    rank = PartialState().process_index
    (Path(sys.argv[2]) / f"logged-{rank}.json").write_text(json.dumps(outcome))
    PartialState().wait_for_everyone()
    sys.stdout.flush()
    sys.stderr.flush()
    # gloo's thread lets go of the last collective's tensors when it can, for which it needs the interpreter; torch
    # ends the process with SIGABRT where that is being torn down.
    os._exit(0)
