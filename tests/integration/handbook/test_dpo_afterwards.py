"""DPO on what BASH and RAC have saved: one recipe for `gapbridge dpo` and for TRL's own command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from helpers import ENVIRONMENT, recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import cli


pytestmark = pytest.mark.slow

RECIPE = ROOT / "recipes" / "tiny" / "dpo" / "config_trl.yaml"
ADAPTER = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "save_merged_model": True}


@pytest.mark.nightly  # test_fork.py trains DPO from a model of BASH
@pytest.mark.parametrize(
    ("method", "options"),
    [pytest.param("bash", {"gradient_checkpointing": True}, marks=pytest.mark.nightly), ("rac", ADAPTER)],
)
def test_both_commands_train_from_it(method: str, options: dict[str, object], tmp_path: Path) -> None:
    more = {"max_completion_length": 8} if method == "rac" else {}
    cli.main([method, *recipe(tmp_path, method=method, **options, **more)])
    pairs = (ROOT / "recipes/tiny/data/preferences_train.jsonl").read_text().splitlines()[:24]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs))
    keys = yaml.safe_load(RECIPE.read_text())
    keys["datasets"][0]["data_files"] = str(tmp_path / "pairs.jsonl")
    keys |= {"model_name_or_path": str(tmp_path / "run"), "max_steps": 2, "per_device_train_batch_size": 4}
    (tmp_path / "dpo.yaml").write_text(yaml.safe_dump(keys))

    line = ["--config", str(tmp_path / "dpo.yaml"), "--logging_steps", "1", "--output_dir"]
    cli.main(["dpo", *line, str(tmp_path / "here")])
    command = [str(Path(sys.executable).with_name("trl")), "dpo", *line, str(tmp_path / "there")]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    start, here, there = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("run", "here", "there"))
    weights = [model.state_dict() for model in (start, here, there)]
    assert weights[0].keys() == weights[1].keys() == weights[2].keys()
    for trained in weights[1:]:
        assert any(not torch.equal(trained[name], weights[0][name]) for name in trained)
    templates = {AutoTokenizer.from_pretrained(tmp_path / name).chat_template for name in ("run", "here", "there")}
    assert len(templates) == 1
    log = json.loads((tmp_path / "here/round_1/metrics.jsonl").read_text().splitlines()[0])
    assert "loss" in log or "eval_loss" in log
