"""`recipes/launch.slurm` without Slurm: stand-ins for its commands show what would be started on which node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


SCRIPT = ROOT / "recipes" / "launch.slurm"
OPTIONS = ["--model", "mistral-7b-math", "--task", "bash", "--config", "full", "--accelerator", "zero3"]


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment whose `srun` runs a step once, as the second node, and whose programs say what they get."""
    programs = {
        "scontrol": 'printf "node%s\\n" 1 2',
        "srun": 'echo "srun $*" | head -n 1; while [[ $1 == --* ]]; do shift; done; SLURM_NODEID=1 exec "$@"',
        "accelerate": 'echo "accelerate $*"',
        "vllm": 'echo "vllm $*"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "4"}


def submit(environment: dict[str, str], *options: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_one_launcher_a_node(slurm: dict[str, str]) -> None:
    done = submit(slurm, *OPTIONS, "--args", "--max_steps 2 --run_name=a")
    assert done.returncode == 0, done.stderr
    step, started = [line for line in done.stdout.splitlines() if line.startswith(("srun", "accelerate"))]
    assert "--nodes=2 --ntasks=2 --nodelist=node1,node2 --kill-on-bad-exit=1" in step
    assert started == (
        "accelerate launch --config_file accelerate_configs/zero3.yaml --num_machines 2 --num_processes 8 "
        "--main_process_ip node1 --main_process_port 29500 --rdzv_backend c10d --max_restarts 0 --machine_rank 1 "
        "-m gapbridge bash --config recipes/mistral-7b-math/bash/config_full.yaml --max_steps 2 --run_name=a"
    )


def test_the_last_node_serves_vllm(slurm: dict[str, str], tmp_path: Path) -> None:
    for name in ("recipes/m/rac/config_full.yaml", "accelerate_configs/ddp.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("model_name_or_path: data/sft\nuse_vllm: true\nvllm_mode: server\n")
    options = ["--model", "m", "--task", "rac", "--config", "full", "--accelerator", "ddp", "--tp", "4"]
    done = submit(slurm, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--nodes=1 --ntasks=1 --nodelist=node2 vllm serve data/sft" in done.stdout
    assert "--tensor-parallel-size 4 --data-parallel-size 1" in done.stdout
    assert "--num_machines 1 --num_processes 4" in done.stdout and "--vllm_server_host node2" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (OPTIONS[2:], "--model MODEL"),
        ([*OPTIONS, "--nodes", "2"], "unknown option --nodes"),
        ([*OPTIONS, "--args"], "--args needs a value"),
        ([*OPTIONS, "--config", "none"], "config_none.yaml: no such file"),
    ],
)
def test_wrong_options_start_nothing(options: list[str], words: str, slurm: dict[str, str]) -> None:
    done = submit(slurm, *options)
    assert done.returncode == 2 and words in done.stderr and "accelerate launch" not in done.stdout
