"""What an epoch of each method costs beside SFT, and beside TRL's GKD and SDFT, over the length of answers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import Setup, digit_rows, free_memory, tokenizer, trainer_options
from datasets import Dataset
from overhead import OURS, THEIRS, make_trainer


def run(setup: Setup) -> None:
    (shape,) = setup.shapes("1b")
    ways = [*(name for name in OURS if name != "RAC, by length"), *THEIRS]
    one_epoch(setup, "SFT", shape, 8)  # the first kernels of a process take longer
    for answer in (64, 512) if not setup.is_tiny else (12,):
        base = 1.0
        for way in ways:
            with setup.case(f"{way}, answers of {answer} tokens") as found:
                found |= one_epoch(setup, way, shape, answer)
                total = found["generation_seconds"] + found["training_seconds"]
                base = total if way == "SFT" else base
                found["times_sft"] = total / base


def one_epoch(setup: Setup, way: str, shape: str, answer: int) -> dict[str, Any]:
    """Seconds that are drawn before training, and those of training."""
    model = setup.model(shape)
    with tempfile.TemporaryDirectory() as folder:
        options = trainer_options(
            setup, folder, bf16=False, num_train_epochs=1, per_device_train_batch_size=setup.choose(16, 2),
            logging_steps=1000,
        )  # fmt: skip
        trainer = make_trainer(
            way, model, tokenizer(), conversations(setup.choose(32, 4), setup.choose(32, 8), answer), options,
            new_model=lambda: setup.model(shape), max_length=4 * answer + 256, limit=answer,
        )  # fmt: skip
        trainer.train()
        record = Path(folder) / "_contexts" / "timing.json"
        generation = json.loads(record.read_text())["seconds"] if record.exists() else 0.0
        training = next(entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry)
    del trainer, model
    free_memory()
    return {"generation_seconds": generation, "training_seconds": float(training)}


def conversations(count: int, prompt: int, answer: int) -> Dataset:
    turns = {"prompt": "user", "completion": "assistant"}
    return digit_rows(count, prompt, answer).map(
        lambda row: {name: [{"role": role, "content": row[name]}] for name, role in turns.items()}
    )
