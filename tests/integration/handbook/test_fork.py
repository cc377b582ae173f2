"""A miniature fork goes all the way: its own SFT, the copied scripts through its own launcher, three names, DPO."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from helpers import ENVIRONMENT, contents
from helpers.handbook_fork import make_fork, three_names
from transformers import AutoModelForCausalLM

from gapbridge.compat import pair_support_errors
from gapbridge.handbook.export import run_copy_into
from gapbridge.training.checkpoints import last_complete_checkpoint


pytestmark = pytest.mark.slow

RUNNER = ROOT / "tests" / "helpers" / "script_on_cpu.py"
LAUNCHER = f"{sys.executable} -m accelerate.commands.launch"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fork whose own SFT script has trained."""
    fork = make_fork(tmp_path_factory.mktemp("handbook"))
    run(fork, [sys.executable, "scripts/sft.py", "--config", "recipes/tiny/sft/config_full.yaml"])
    assert json.loads((fork / "data/tiny-sft-full/config.json").read_text())["use_cache"] is True
    return fork


@pytest.fixture
def fork(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "fork")
    return tmp_path / "fork"


def run(fork: Path, command: list[str], *, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{fork / 'src'}:{ROOT / 'src'}"
    environment = {**ENVIRONMENT, "PYTHONPATH": path, "LAUNCHER": LAUNCHER, "RUNNER": str(RUNNER), **variables}
    done = subprocess.run(command, cwd=fork, env=environment, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, (done.stdout[-1500:], done.stderr[-4000:])
    return done


def submit(fork: Path, task: str, config: str, accelerator: str, args: str = "", **kwargs: Any) -> Any:
    """`sbatch recipes/launch.slurm …` in two processes of this machine."""
    options = f"--model tiny --task {task} --config {config} --accelerator {accelerator}"
    script = f'srun() {{ "$@"; }}; set -- {options} --args "{args}"; . recipes/launch.slurm'
    return run(fork, ["bash", "-e", "-c", script], **kwargs)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def moved(fork: Path, model: str) -> bool:
    before, after = weights(fork / "data/tiny-sft-full"), weights(fork / model)
    return before.keys() == after.keys() and any(not torch.equal(after[name], before[name]) for name in before)


def test_copied_into_the_fork(fork: Path) -> None:
    """The fork's unchanged launcher starts both scripts, under ZeRO-3 and DDP; its DPO script goes on from there."""
    run_copy_into(fork, "tiny")
    submit(fork, "bash", "full", "zero3")
    submit(fork, "rac", "full", "ddp", "--max_completion_length 8")
    for task in ("bash", "rac"):
        model = fork / f"data/tiny-{task}-full"
        assert moved(fork, str(model)) and (model / "report.md").is_file()
        assert json.loads((model / "config.json").read_text())["use_cache"] is True
    options = ["--model_name_or_path", "data/tiny-bash-full", "--output_dir", "data/tiny-bash-dpo"]
    dpo = ["--config", "recipes/tiny/dpo/config_full.yaml", *options]
    run(fork, [sys.executable, "scripts/dpo.py", *dpo])
    assert (fork / "data/tiny-bash-dpo/model.safetensors").is_file()
    done = run(
        fork,
        [sys.executable, "-m", "gapbridge", "dpo", *dpo[:-1], "data/tiny-bash-dpo-here"],
        check=not pair_support_errors(),
    )
    if pair_support_errors():
        assert "trains on pairs of completions" in done.stderr
        return
    assert (fork / "data/tiny-bash-dpo-here/report.md").is_file()


@pytest.mark.nightly  # half a minute each; `test_copied_into_the_fork` trains in the fork
def test_three_names_in_its_script(fork: Path) -> None:
    """Under ddp.yaml and zero3.yaml the same contexts and losses, a card, an evaluation; fsdp.yaml needs one line."""
    three_names(fork)
    changes = "--model_name_or_path data/tiny-sft-full --save_strategy steps --save_steps 2"
    results = {}
    for name in ("ddp", "zero3"):
        submit(fork, "sft", "full", name, f"--output_dir data/{name} {changes}")
        out = fork / "data" / name
        results[name] = json.loads((out / "train_results.json").read_text())["train_loss"]
        assert json.loads((out / "eval_results.json").read_text())["eval_generated_loss"] > 0
        assert json.loads((out / "config.json").read_text())["use_cache"] is True
        assert "mixture_coefficient" in (out / "README.md").read_text()
        assert moved(fork, f"data/{name}") and last_complete_checkpoint(out) is not None
    assert results["ddp"] == pytest.approx(results["zero3"], rel=1e-5)
    shards = [contents(fork / "data" / name / "_contexts", "shard-*") for name in results]
    assert shards[0] == shards[1] != {}
    done = submit(fork, "sft", "full", "fsdp", "--output_dir data/fsdp", check=False)
    assert done.returncode != 0 and "Set it to false in the accelerate configuration" in done.stderr + done.stdout
    assert not (fork / "data/fsdp").exists()


@pytest.mark.nightly
def test_without_the_third_name_it_says_which(fork: Path) -> None:
    three_names(fork)
    script = fork / "scripts/sft.py"
    text = script.read_text().replace("from gapbridge.handbook import get_model", "from alignment import get_model")
    script.write_text(text)
    done = submit(fork, "sft", "full", "zero3", "--output_dir data/zero3", check=False)
    assert done.returncode != 0 and "load it with gapbridge.handbook.get_model" in done.stderr
