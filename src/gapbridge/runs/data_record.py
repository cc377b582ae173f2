"""`data.json`: what a run was trained and evaluated on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..data.example import ExampleSet
from ..files import write_json_atomic


logger = logging.getLogger(__name__)


def write_data_record(directory: Path, examples: dict[str, ExampleSet]) -> None:
    """`data.json`: where the data came from, how many examples, every bad row, and what is held out and trained."""
    record: dict[str, dict[str, Any]] = {
        name: {
            "source": part.source,
            "examples": len(part),
            "truncated": part.truncated,
            "dropped_overlong": part.left_out,
            "prompt_boundary_retokenized": part.num_boundary_merges,
            "invalid_examples": [{"row": bad.row, "id": bad.id, "reason": bad.reason} for bad in part.bad_rows],
        }
        for name, part in examples.items()
    }
    if "eval" in examples:
        hashes = {
            name: [
                hash(tuple(prompt))
                for rows in part.table.select_columns(["prompt", "has_prompt"]).iter(batch_size=1000)
                for prompt, has_prompt in zip(rows["prompt"], rows["has_prompt"], strict=True)
                if has_prompt is not False
            ]
            for name, part in examples.items()
        }
        known = set(hashes["train"])
        shared = sum(prompt in known for prompt in hashes["eval"])
        record["eval"]["num_eval_prompts_in_train"] = shared
        if shared:
            held_out = examples["eval"]
            logger.warning(
                "%s: %d of %d held-out prompts are also in the training data, so their scores show little",
                held_out.source, shared, len(held_out),
            )  # fmt: skip
    write_json_atomic(directory / "data.json", record)
