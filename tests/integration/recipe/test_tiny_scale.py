"""Every recipe in the tree: parsed strictly, checked without a hub, and trained for two steps on stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl
import yaml
from conftest import BASE, ROOT
from helpers import recipe, refused
from packaging.version import Version
from transformers import AutoConfig, AutoTokenizer

from gapbridge import cli
from gapbridge.compat import TRANSFORMERS
from gapbridge.errors import ConfigError
from gapbridge.methods import display_name
from gapbridge.planning.smoke_test import STEPS, find_base_model, tiny_recipe, validate_offline
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train


RECIPES = [  # those in recipes/eval are lm-eval's
    path for path in sorted((ROOT / "recipes").rglob("*.yaml")) if not path.is_relative_to(ROOT / "recipes" / "eval")
]
# Each method and architecture once, all weights and adapters; the rest are tried at night.
TRIED = {
    "pythia-1b-tldr/sft/config_full.yaml",
    "pythia-1b-tldr/rac/config_full.yaml",
    "pythia-1b-tldr/scheduled_sampling/config_full.yaml",
    "mistral-7b-ultrachat/bash/config_qlora.yaml",
    "mistral-7b-ultrachat/dpo/config_full.yaml",
    "mistral-7b-math/bash/config_full.yaml",
    "mistral-7b-math/sft/config_qlora.yaml",
    "tiny/dpo/config_trl.yaml",
}
# What differs at tiny scale; all other keys stay as they are written.
DIFFERS = {
    "method", "model_name_or_path", "model_revision", "dataset_name", "datasets", "eval_datasets", "dataset_mixture",
    "max_train_examples", "max_eval_examples", "load_in_4bit", "dataset_num_proc", "report_to", "max_steps",
    "output_dir", "use_cpu", "chat_template", "torch_dtype", "dtype",
}  # fmt: skip


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_is_good_without_a_hub(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, method = path.read_text(), path.parent.name
    if "packing: true" in text and Version(trl.__version__) < Version("1.7"):
        pytest.skip("this TRL drops the labels of packed rows, which is refused")
    assert f"gapbridge {method}" in text and f"--config {path.relative_to(ROOT)}" in text, (
        "the head says how to launch"
    )
    validate_offline([str(path.relative_to(ROOT))], [], method=method, steps=False)
    assert f"{path.relative_to(ROOT)}: good. {display_name(method)}" in capsys.readouterr().out


def tried(path: Path) -> Any:
    return pytest.param(path, id=name(path), marks=[] if name(path) in TRIED else pytest.mark.nightly)


@pytest.mark.parametrize("path", map(tried, RECIPES))
def test_every_recipe_trains_at_tiny_scale(path: Path, tmp_path: Path) -> None:
    found, _ = tiny_recipe(str(path.relative_to(ROOT)), [], path.parent.name, tmp_path)
    before, after = yaml.safe_load(path.read_text()), yaml.safe_load(found.read_text())
    if TRANSFORMERS.major < 5:  # it has other words for two keys
        grouped = {"train_sampling_strategy": "group_by_length"} if after.get("group_by_length") else {}
        after = {"warmup_steps": after.get("warmup_ratio"), **grouped, **after}
    assert {key: after[key] for key in before if key not in DIFFERS} == {
        key: value for key, value in before.items() if key not in DIFFERS
    }
    job = read_job(["--config", str(found)])
    run = train(job)
    assert run.is_relative_to(tmp_path) and json.loads((run / "run.json").read_text())["state"] == "complete"
    assert (run / "report.md").exists() and (run / "loss.png").exists()
    rounds = after.get("num_rounds", 1)
    for number in range(1, rounds + 1):
        lines = (run / f"round_{number}" / "metrics.jsonl").read_text().splitlines()
        assert max(json.loads(line).get("step", 0) for line in lines) == STEPS


def test_models_come_from_the_recipes_beside(tmp_path: Path) -> None:
    """BASH starts from what the SFT recipe starts from, with its template, or from what its tiny run has left."""
    bash, sft = "recipes/mistral-7b-math/bash/config_qlora.yaml", "recipes/mistral-7b-math/sft/config_qlora.yaml"
    origin = find_base_model("data/mistral-7b-math-sft-qlora", ROOT / bash)
    template = yaml.safe_load((ROOT / sft).read_text())["chat_template"]
    assert (origin.name, origin.template) == ("mistralai/Mistral-7B-v0.1", {"chat_template": template})
    keys = yaml.safe_load(tiny_recipe(bash, [], None, tmp_path)[0].read_text())
    assert AutoConfig.from_pretrained(keys["model_name_or_path"]).model_type == "mistral"
    assert keys["chat_template"] == template
    run = train(read_job(["--config", str(tiny_recipe(sft, [], None, tmp_path)[0])]))
    keys = yaml.safe_load(tiny_recipe(bash, [], None, tmp_path)[0].read_text())
    assert keys["model_name_or_path"] == str(run) and (run / "adapter_config.json").exists()
    assert "chat_template" not in keys


def test_what_nobody_knows_is_stood_in_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = recipe(
        tmp_path, model_name_or_path="someone/new-9b", datasets=None, use_cpu=None, eos_token="<|im_end|>",
        dataset_mixture={"datasets": [{"id": "someone/chats", "config": "all", "split": "train_x"}]},
        eval_datasets=[{"path": "someone/pairs", "split": "held"}], eval_strategy="epoch", attn_implementation="eager",
        prompt_column="q", completion_column="a", convert_to_chat=True,
    )  # fmt: skip
    found, notes = tiny_recipe(line[1], ["--max_length", "400"], None, tmp_path / "tiny")
    assert [note.partition(": ")[2] for note in notes] == [
        "the columns of someone/chats are not known here: q and a stand in for them",
        "the columns of someone/pairs are not known here: q and a stand in for them",
        "the architecture of someone/new-9b is not known here: a Llama stands in for it",
        "tried with attn_implementation sdpa instead of eager",
    ]
    keys = yaml.safe_load(found.read_text())
    assert keys["max_length"] == 400 and keys["max_steps"] == STEPS
    assert AutoTokenizer.from_pretrained(keys["model_name_or_path"]).eos_token == "<|im_end|>"
    validate_offline([line[1]], [], steps=False)
    assert "good. BASH" in capsys.readouterr().out


def test_a_model_that_is_here_gives_its_shape_and_tokenizer(tmp_path: Path) -> None:
    keys = yaml.safe_load(tiny_recipe(recipe(tmp_path)[1], [], None, tmp_path / "tiny")[0].read_text())
    config, original = (AutoConfig.from_pretrained(place) for place in (keys["model_name_or_path"], BASE))
    assert (config.model_type, config.vocab_size) == (original.model_type, original.vocab_size)
    assert config.num_hidden_layers < original.num_hidden_layers and keys["datasets"][0]["path"] == "json"


def test_of_local_data_the_first_rows_are_read(tmp_path: Path) -> None:
    written = tiny_recipe(str(ROOT / "recipes/tiny/bash/config_full.yaml"), [], None, tmp_path)[0]
    keys = yaml.safe_load(written.read_text())
    assert (keys["max_train_examples"], keys["max_eval_examples"]) == (64, 64)
    line = recipe(tmp_path, per_device_train_batch_size=100, max_eval_examples=3, test_split_size=0.5)
    keys = yaml.safe_load(tiny_recipe(line[1], [], None, tmp_path)[0].read_text())
    assert (keys["max_train_examples"], keys["max_eval_examples"]) == (200, 3)


def test_faults_are_those_of_the_recipe(tmp_path: Path) -> None:
    bad = recipe(tmp_path, load_in_4bit=True, verify_window=0)[1]
    with pytest.raises(ConfigError) as caught:
        validate_offline([bad, "recipes/none.yaml"], ["--learning_rte", "1"], steps=False)
    assert "learning_rte" in str(caught.value) and "recipes/none.yaml: got no such file" in str(caught.value)
    with pytest.raises(ConfigError, match="verify_window"):
        validate_offline([bad], [], steps=False)
    with pytest.raises(ConfigError, match="Set use_peft: true"):
        validate_offline([recipe(tmp_path, load_in_4bit=True)[1]], [], steps=False)
    positions = recipe(tmp_path, model_name_or_path="EleutherAI/pythia-1b", max_length=4096)[1]
    with pytest.raises(ConfigError, match="max_length: got 4096, expected at most 2048"):
        validate_offline([positions], [], steps=False)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = recipe(tmp_path, output_dir="run", max_steps=30)
    monkeypatch.chdir(tmp_path)
    cli.main(["bash", *line, "--smoke_test", "--mixture_coefficient", "0.5"])
    run = tmp_path / "outputs" / "tiny" / "run"
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (settings["max_steps"], settings["mixture_coefficient"]) == (STEPS, 0.5)
    assert f"{line[1]}: smoke test with outputs/tiny/recipes/run.yaml" in capsys.readouterr().out
    cli.main(["validate", *line, "--smoke_test"])
    said = capsys.readouterr().out
    assert said.startswith(f"{line[1]}: good. BASH") and "train_runtime" not in said and "model: " not in said
    assert "2 steps a round in" in said and sorted(path.name for path in tmp_path.iterdir()) == [
        "outputs", "recipe.yaml", "train.jsonl",
    ]  # fmt: skip
    assert "unknown option --scale" in refused(capsys, "bash", *line, "--scale", "small")
    assert "got --smoke_test without a recipe" in refused(capsys, "eval", "--task", "gsm8k", "--smoke_test")
