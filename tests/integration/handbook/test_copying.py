"""`gapbridge copy-into` on a miniature fork: new files only, made from its own SFT recipe."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import refused
from helpers.handbook_fork import make_fork

from gapbridge import ConfigError, cli
from gapbridge.handbook.export import run_copy_into
from gapbridge.handbook.recipe_edit import render_method_recipe, stage_name


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    return make_fork(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_files_only(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(fork)
    cli.main(["copy-into", str(fork)])
    new = files(fork)
    assert before.items() <= new.items()
    assert sorted(new.keys() - before.keys()) == [
        "recipes/tiny/bash/config_full.yaml", "recipes/tiny/rac/config_full.yaml", "scripts/bash.py", "scripts/rac.py",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert all(f"wrote {fork / path}" in said for path in new.keys() - before.keys())
    assert "scripts/bash.py --config recipes/tiny/bash/config_full.yaml" in said
    assert "sbatch recipes/launch.slurm --model tiny --task bash --config full --accelerator zero3" in said
    assert len(new["scripts/bash.py"].splitlines()) == 6


def test_the_recipe_is_the_forks_own(fork: Path) -> None:
    run_copy_into(fork, "tiny")
    sft = (fork / "recipes/tiny/sft/config_full.yaml").read_text()
    for task in ("bash", "rac"):
        text = (fork / f"recipes/tiny/{task}/config_full.yaml").read_text()
        changes = {
            "method": task, "truncate_overlong": True, "model_name_or_path": "data/tiny-sft-full",
            "output_dir": f"data/tiny-{task}-full", "hub_model_id": f"tiny-{task}-full",
        }  # fmt: skip
        assert yaml.safe_load(text) == {**yaml.safe_load(sft), **changes}
        comments = [line[line.index("#") :] for line in sft.splitlines() if "#" in line]
        assert comments and all(comment in text for comment in comments), "comments are kept"
        assert set(sft.splitlines()) - set(text.splitlines()) == {
            line for line in sft.splitlines() if line.startswith(("model_name", "output_dir", "hub_model_id"))
        }
        # The fork's launch.slurm reads the file with grep, and must find each key once.
        for key in ("gradient_accumulation_steps", "model_name_or_path:", "model_revision:"):
            assert text.count(key) == 1
        assert ("# vllm_mode: server" in text) == (task == "rac")


def test_nothing_is_overwritten_and_all_is_listed(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = [fork / "scripts/rac.py", fork / "recipes/tiny/bash/config_full.yaml"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("# mine\n")
    before = files(fork)
    said = refused(capsys, "copy-into", str(fork))
    assert said.startswith("ConfigError: 2 errors") and all(str(path) in said for path in mine)
    assert files(fork) == before
    for path in mine:
        path.unlink()
    assert len(run_copy_into(fork)) == 4
    assert run_copy_into(fork) == [], "what it made itself is left alone"


def test_what_is_no_fork_is_refused(fork: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'tiny'?" in refused(capsys, "copy-into", str(fork), "--recipe", "tinny")
    assert "got no directory recipes" in refused(capsys, "copy-into", str(tmp_path / "rows"))
    (fork / "recipes/tiny/sft/config.yaml").write_text("model_name_or_path: m\noutput_dir: o\n")
    assert "which another recipe also makes" in refused(capsys, "copy-into", str(fork))
    (fork / "recipes/tiny/sft/config.yaml").write_text("model_name_or_path: m\n")
    assert "neither output_dir nor hub_model_id" in refused(capsys, "copy-into", str(fork))
    assert not (fork / "scripts/bash.py").exists()


def test_the_launch_script_finds_them(fork: Path) -> None:
    run_copy_into(fork)
    options = ["--model", "tiny", "--task", "rac", "--config", "full", "--accelerator", "zero3", "--args", "--seed 1"]
    command = ["bash", "-c", f"srun() {{ echo start $*; }}; set -- {' '.join(options[:-1])} '{options[-1]}'; "
               ". recipes/launch.slurm"]  # fmt: skip
    done = subprocess.run(command, cwd=fork, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == (
        "start --config_file recipes/accelerate_configs/zero3.yaml --gradient_accumulation_steps 1 --num_processes 2 "
        "--main_process_port 0 scripts/rac.py --config recipes/tiny/rac/config_full.yaml --seed 1"
    )
    recipe = fork / "recipes/tiny/rac/config_full.yaml"
    recipe.write_text(recipe.read_text().replace("# use_vllm", "use_vllm").replace("# vllm_mode", "vllm_mode"))
    done = subprocess.run(command, cwd=fork, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("serves data/tiny-sft-full\n") and "--vllm_server_host=node2" in done.stdout
    assert yaml.safe_load(recipe.read_text())["vllm_mode"] == "server"


def test_names_of_stages() -> None:
    names = {
        "data/zephyr-7b-sft-full": "data/zephyr-7b-bash-full", "data/SmolLM3-SFT/": "data/SmolLM3-bash",
        "starchat2-15b-v0.1": "starchat2-15b-v0.1-bash", "sft/m": "sft/m-bash", "softsft": "softsft-bash",
    }  # fmt: skip
    assert {name: stage_name(name, "bash") for name in names} == names
    text = "model_name_or_path: m\noutput_dir: >-\n  a\nbf16: true"
    with pytest.raises(ConfigError, match="cannot be changed line by line.*set .*model_name_or_path: a"):
        render_method_recipe(text, "sft.yaml", "bash", [])
