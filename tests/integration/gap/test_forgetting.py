"""The scripts that measure forgetting and train an arm of TRL's SDFT, on the tiny model."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE, ROOT
from helpers import write_rows
from helpers.small_runs import MakeBase

from gapbridge.tasks.word_problems import problems


FORGETTING = ROOT / "benchmarks" / "evidence" / "forgetting.py"
SDFT = ROOT / "benchmarks" / "sdft.py"


def test_a_changed_model_forgets_and_a_copy_does_not(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed"
    model = make_base()
    model.model.norm.weight.data.mul_(0.5)
    model.save_pretrained(changed)
    tokenizer.save_pretrained(changed)
    prompts, output = tmp_path / "prompts.txt", tmp_path / "found.json"
    prompts.write_text("How many pens?\n\nCount the coins.\nWho has most?\n")
    options = ["--start", str(BASE), "--model", str(BASE), "--model", str(changed), "--prompts", str(prompts)]
    options += ["--max_completion_length", "12", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [str(FORGETTING), *options])
    runpy.run_path(str(FORGETTING), run_name="__main__")
    record = json.loads(output.read_text())
    start, copy, other = record["models"]
    assert start["difference"] is None and len(record["answers"]) == 3 == start["loss"]["examples"]
    assert copy["loss"] == start["loss"] and copy["difference"]["mean"] == 0
    assert other["difference"]["mean"] > 0.05
    assert other["loss"]["by_example"].keys() == start["loss"]["by_example"].keys()


@pytest.mark.nightly  # TRL's trainer in a process of its own
def test_an_arm_of_sdft_changes_the_model(tmp_path: Path) -> None:
    pytest.importorskip("trl.experimental.sdft")
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", [p.row() for p in problems("train", count=12, steps=(1,))])
    words = [sys.executable, str(SDFT), "--model", str(BASE), "--data", str(tmp_path / "data"), "--use_cpu"]
    words += ["--max_completion_length", "8", "--output_dir", str(tmp_path / "sdft"), "--gradient_accumulation_steps"]
    done = subprocess.run([*words, "2", "--sft_steps", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 steps of SFT cost 2 of SDFT" in done.stdout
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "sdft", BASE)]
    assert weights[0] != weights[1]
    again = subprocess.run([*words, "2", "--sft_steps", "4"], capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "got a folder with files, expected none" in again.stderr
    few = [*words, "32", "--sft_steps", "4"]
    few[few.index(str(tmp_path / "sdft"))] = str(tmp_path / "other")
    refused = subprocess.run(few, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "rows: got 12, expected at least 64" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_steps_of_equal_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl.experimental.sdft")
    steps = runpy.run_path(str(SDFT))["steps_of_equal_compute"]
    # SFT: 3 · 120. SDFT: 3 · 120 + (100 + 20 + 40 + 20) + 120.
    assert steps(100, 100, 20) == round(100 * 360 / 660) and steps(1, 100, 20) == 1
