"""`run_all.sh` of each experiment: with a stand-in for the interpreter that shows what would be started, and at night
with the real one at tiny scale."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import ENVIRONMENT, recipe_keys

from gapbridge import cli
from gapbridge.methods import list_methods
from gapbridge.recipe.type_checks import read_yaml


SCRIPTS = sorted((ROOT / "recipes").glob("*/run_all.sh"))
VARIANTS = [
    ("pythia-1b-tldr", {}),
    ("pythia-1b-tldr", {"JUDGE": "m", "JUDGE_URL": "http://127.0.0.1:8000/v1"}),
    ("mistral-7b-ultrachat", {}),
    ("mistral-7b-ultrachat", {"VARIANT": "qlora"}),
    ("mistral-7b-math", {}),
    ("mistral-7b-math", {"VARIANT": "math_qlora", "SHARES": "10 100"}),
    ("smollm2-135m", {"MODEL": "outputs/smollm2-135m-instruct"}),
    *((path.parent.name, {"SCALE": "tiny"}) for path in SCRIPTS),
]


def lines(experiment: str, settings: dict[str, str], folder: Path, name: str = "run_all.sh") -> list[list[str]]:
    """What the script starts, one command a line."""
    log = folder / "log"
    python = folder / "python"
    python.write_text(f'#!/bin/bash\nprintf "%q " "$@" >> {log}\necho >> {log}\n')
    python.chmod(0o755)
    script = ROOT / "recipes" / experiment / name
    environment = {**os.environ, **settings, "PYTHON": str(python)}
    subprocess.run([str(script)], env=environment, cwd=folder, check=True, capture_output=True, timeout=60)
    found = [shlex.split(line) for line in log.read_text().splitlines()]
    assert all(words[:2] == ["-m", "gapbridge"] for words in found)
    return [words[2:] for words in found]


@pytest.mark.parametrize(("experiment", "settings"), VARIANTS, ids=str)
def test_the_stages_follow_each_other(experiment: str, settings: dict[str, str], tmp_path: Path) -> None:
    """Every line parses, names recipes that are there, and starts from models that are made before or on a hub."""
    made: set[str] = set()
    reported: set[str] = set()
    found = lines(experiment, settings, tmp_path)
    assert found[0][0] == "preview" and found[-1][0] == "report"
    for words in found:
        call = cli.parse(words)
        assert (call.smoke_test == (settings.get("SCALE") == "tiny")) or call.command == "report"
        prefix = "outputs/tiny/" if "SCALE" in settings else ""
        if call.command in list_methods():
            keys = read_yaml(ROOT / call.options.config)
            given = dict(zip(call.overrides[::2], call.overrides[1::2], strict=True))
            start = given.get("--model_name_or_path", keys["model_name_or_path"])
            assert not start.startswith("data/") or start in made, start
            if "MODEL" in settings:
                assert start in {settings["MODEL"], *made}
            made.add(given.get("--output_dir", keys["output_dir"]))
            one_process = experiment == "smollm2-135m" or "qlora" in call.options.config or prefix
            assert ("accelerate_config" in call.launch) == (not one_process)
        asked = [*map(str, getattr(call.options, "model", None) or []), *map(str, getattr(call.options, "runs", []))]
        assert {name.removeprefix(prefix) for name in asked} <= made
        assert all(name.startswith(prefix) for name in asked)
        if call.command == "report":
            reported |= {name.removeprefix(prefix) for name in asked}
    assert made == reported, "the reports have all runs"


@pytest.mark.parametrize("script", ["shortest.sh", "measure.sh"])
def test_the_short_chains_of_a_real_model_parse(script: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").touch()
    named = {"GAPBRIDGE_REAL_MODEL": str(model), "MODEL": str(model)}
    found = [cli.parse(words) for words in lines("smollm2-135m", named, tmp_path, script)]
    trained = [call for call in found if call.command in list_methods()]
    assert [call.command for call in found][:2] == ["sft", "bash"] and found[-1].command == "report"
    assert str(model) in trained[0].overrides
    for call in trained:
        known = {f"--{key}" for key in recipe_keys(call.command)}
        assert [word for word in call.overrides if word.startswith("--") and word not in known] == []


def test_shares_are_numbers_of_rows(tmp_path: Path) -> None:
    found = lines("mistral-7b-math", {"SHARES": "10 100"}, tmp_path)
    trained = [words for words in found if words[0] in list_methods()]
    assert [words[words.index("--max_train_examples") + 1] for words in trained[:3]] == ["747"] * 3
    assert all("--max_train_examples" not in words for words in trained[3:]) and len(trained) == 6
    assert {words[words.index("--output_dir") + 1] for words in trained[:3]} == {
        f"data/mistral-7b-math-{method}-full-10" for method in ("sft", "bash", "rac")
    }


@pytest.mark.nightly
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_every_stage_runs_at_tiny_scale(script: Path, tmp_path: Path) -> None:
    """From nothing to the report; started again, every stage finds itself done."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    copy = tmp_path / "run_all.sh"
    copy.write_text(script.read_text().replace('cd "$(dirname "$0")/../.."', f"cd {tmp_path}"))
    environment = {**ENVIRONMENT, "PYTHON": sys.executable, "SCALE": "tiny"}
    for _ in range(2):
        done = subprocess.run(["bash", str(copy)], env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "this run is complete, nothing to do" in done.stdout
    reports = list((tmp_path / "outputs" / "tiny" / "data").glob("*/report/report.md"))
    runs = json.loads((next((tmp_path / "outputs/tiny/data").glob("*/run.json"))).read_text())
    assert reports and all(report.stat().st_size > 1000 for report in reports) and runs["state"] == "complete"
