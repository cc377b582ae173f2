"""DeepSpeed ZeRO-2 and ZeRO-3, and FSDP2, in one process: two steps and a saved model. QLoRA where it can run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from common import BASE, ROOT, Setup, digit_rows


def run(setup: Setup) -> None:
    for config in ("zero2", "zero3", "fsdp") if not setup.is_tiny else ("fsdp",):  # DeepSpeed compiles for a minute
        if config.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
            setup.cases[config] = {"left out": "deepspeed is not installed"}
            continue
        with setup.case(config) as found:
            found |= launched(setup, config, {})
    if setup.device == "cuda" and importlib.util.find_spec("bitsandbytes"):
        with setup.case("QLoRA") as found:
            found |= launched(setup, "single", {"load_in_4bit": True, "use_peft": True, "dtype": "bfloat16"})
    else:
        setup.cases["QLoRA"] = {"left out": "bitsandbytes is not installed, or there is no GPU"}


def launched(setup: Setup, config: str, keys: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data, recipe = Path(folder) / "rows.jsonl", Path(folder) / "recipe.yaml"
        data.write_text("".join(json.dumps(row) + "\n" for row in digit_rows(8, 12, 24)))
        accelerate = Path(folder) / "accelerate.yaml"
        text = (ROOT / "accelerate_configs" / f"{config}.yaml").read_text()
        on_cpu = setup.device == "cpu"
        accelerate.write_text(text.replace("mixed_precision: bf16", "mixed_precision: 'no'") if on_cpu else text)
        settings = {
            "method": "bash", "model_name_or_path": str(BASE), "output_dir": f"{folder}/run",
            "datasets": [{"path": "json", "data_files": str(data)}], "use_cpu": on_cpu, "bf16": not on_cpu,
            "max_length": 256, "max_steps": 2, "logging_steps": 1, "report_to": "none",
            "per_device_train_batch_size": 4, **keys,
        }  # fmt: skip
        recipe.write_text(yaml.safe_dump(settings))
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate),
            "--num_processes", "1", "--main_process_port", "0", "-m", "gapbridge", "bash", "--config", str(recipe),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
        saved = sorted(path.name for path in (Path(folder) / "run").glob("*.safetensors"))
        if done.returncode or not saved:
            raise RuntimeError(f"exit code {done.returncode}, saved {saved}: {done.stderr[-1500:]}")
        lines = [json.loads(line) for path in Path(folder).rglob("metrics.jsonl") for line in path.open()]
        return {"saved": saved, "losses": [line["loss"] for line in lines if "loss" in line]}
