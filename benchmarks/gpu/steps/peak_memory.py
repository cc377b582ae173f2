"""The most memory that runs take, against what `gapbridge plan` says before them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from common import Setup, digit_pairs, digit_rows, peak_bytes, tokenizer

from gapbridge.planning.command import plan
from gapbridge.planning.workload import workload
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train


OPTIONS: dict[str, dict[str, Any]] = {
    "sft": {}, "bash": {}, "rac": {"max_completion_length": 64}, "dpo": {}, "mtp": {"num_future_tokens": 2},
}  # fmt: skip
TINY = ("bash", "dpo", "mtp")  # one that draws, one of pairs, one with parameters of its own


def run(setup: Setup) -> None:
    for shape in setup.shapes("135m", "1b"):
        with tempfile.TemporaryDirectory() as folder:
            setup.model(shape).save_pretrained(f"{folder}/model")
            tokenizer().save_pretrained(f"{folder}/model")
            for name, options in OPTIONS.items():
                if setup.is_tiny and name not in TINY:
                    continue
                with setup.case(f"{shape}: {name}") as found:
                    found |= planned_and_measured(setup, name, options, Path(folder))


def planned_and_measured(setup: Setup, name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    count, prompt, answer = setup.choose(16, 4), setup.choose(64, 8), setup.choose(192, 24)
    rows = digit_pairs(count, prompt, answer) if name == "dpo" else digit_rows(count, prompt, answer)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "method": name, "model_name_or_path": str(folder / "model"), "output_dir": str(folder / name),
        "datasets": [{"path": "json", "data_files": str(data)}], "use_cpu": setup.device == "cpu", "bf16": False,
        "dtype": "bfloat16" if setup.device == "cuda" else "float32", "max_length": 1024, "max_steps": 2,
        "report_to": "none", "per_device_train_batch_size": setup.choose(8, 2), "gradient_checkpointing": False,
        "save_strategy": "no", **options,
    }  # fmt: skip
    recipe = folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    job = read_job(["--config", str(recipe)])
    on_cpu = setup.device == "cpu"
    said = plan(job, workload(job, 1), gpus=1, usable=2.0**50, on_cpu=on_cpu).memories["single"].peak
    measured = peak_bytes(setup, lambda: train(job))
    return {"planned_bytes": said, "measured_bytes": measured, "planned_to_measured": said / measured}
