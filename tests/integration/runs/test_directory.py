"""What a run notes of itself: its recipe, which runs again as it is, and no secret."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import recipe

from gapbridge import cli
from gapbridge.recipe.secrets import redacted_command
from gapbridge.runs.run_config import RunConfig, read_job
from gapbridge.runs.run_directory import environment, resolved_recipe


TOKEN, KEY, INNER = "hf_abcdefghijklmnop", "key-0123456789", "inner-token-987"

# Old keys, mappings, numbers that YAML reads as text, and surroundings of the process.
KEYS: dict[str, Any] = {
    "dtype": None,
    "torch_dtype": "float32",
    "datasets": None,
    "dataset_mixture": {
        "datasets": [{"id": "json", "config": "c", "split": "train[:90%]", "weight": 1.0, "columns": ["prompt"]}],
        "test_split_size": 2,
    },
    "eval_strategy": "epoch",
    "chat_template_kwargs": {"enable_thinking": False, "nested": {"a": [1, 2]}},
    "model_init_kwargs": {"attn_implementation": "eager", "token": INNER},
    "lr_scheduler_kwargs": {"num_cycles": 0.5},
    "accelerator_config": {"split_batches": False},
    "learning_rate": "1e-3",
    "warmup_ratio": 0.1,
    "num_epochs_per_round": 2,
    "report_to": "none",
    "env": {"GAPBRIDGE_TEST": 3, "TOKENIZERS_PARALLELISM": "false", "WANDB_API_KEY": KEY, "PLAIN": True},
    "wandb_project": "gap",
    "hub_token": TOKEN,
}


def parsed(path: Path, *options: str) -> RunConfig:
    return read_job(["--config", str(path), *options])


def values(job: RunConfig) -> str:
    return repr((job.data, job.script, job.model, {**vars(job.args), "hub_token": None, "model_init_kwargs": None}))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAPBRIDGE_TEST", "TOKENIZERS_PARALLELISM", "WANDB_API_KEY", "WANDB_PROJECT", "PLAIN"):
        monkeypatch.setenv(name, "before")


def test_the_resolved_recipe_is_the_same_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = recipe(tmp_path, **KEYS)
    overrides = ["--max_seq_length", "128", "--mixture_coefficient=0.5", "--lr_scheduler_type", "cosine"]
    job = parsed(Path(first), *overrides)
    copy = tmp_path / "config.resolved.yaml"
    copy.write_text(resolved_recipe("bash", job.recipe))
    written = yaml.safe_load(copy.read_text())
    assert written["env"] == {"GAPBRIDGE_TEST": 3, "TOKENIZERS_PARALLELISM": "false", "PLAIN": True}
    assert written["wandb_project"] == "gap" and written["dataset_mixture"] == KEYS["dataset_mixture"]
    assert (written["max_length"], written["mixture_coefficient"]) == (128, 0.5)
    monkeypatch.setenv("WANDB_PROJECT", "before")
    again = parsed(copy)
    assert values(again) == values(job)
    assert again.run_directory().settings == job.run_directory().settings
    assert again.recipe.notes == [f"{copy}: wandb_project sets the environment variable WANDB_PROJECT"]
    environ = [os.environ[name] for name in ("WANDB_PROJECT", "GAPBRIDGE_TEST", "PLAIN")]
    assert environ == ["gap", "3", "True"]
    assert yaml.safe_load(resolved_recipe("bash", again.recipe)) == written


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        "env": {"SOME_SECRET": KEY, "PLAIN": "kept"},
        "model_init_kwargs": {"token": INNER},
        "hub_token": TOKEN,
        "wandb_project": "gap",
        "chat_template_kwargs": {"enable_thinking": False},
        "save_strategy": "steps",
        "save_steps": 1,
    }
    arguments = ["bash", *recipe(tmp_path, **keys), f"--hub-token={TOKEN}"]
    monkeypatch.setattr(sys, "argv", ["gapbridge", *arguments])
    cli.main(arguments)
    run = tmp_path / "run"
    holding = [
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in (TOKEN, KEY, INNER))
    ]
    assert holding == []
    saved = torch.load(run / "round_1" / "checkpoint-1" / "training_args.bin", weights_only=False)
    assert (saved.hub_token, saved.model_init_kwargs, saved.max_steps) == (None, None, 1)
    text = (run / "config.resolved.yaml").read_text()
    assert text.startswith("# Left out, for they are secrets: env.SOME_SECRET, hub_token, model_init_kwargs.token\n")
    assert "--hub-token=<redacted>" in json.loads((run / "environment.json").read_text())["command"]
    cli.main(["bash", str(run / "config.resolved.yaml")])  # the same run: there is nothing to do
    other = tmp_path / "other"
    cli.main(["bash", str(run / "config.resolved.yaml"), "--output_dir", str(other)])
    assert (other / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    settings = [json.loads((folder / "run.json").read_text())["settings"] for folder in (run, other)]
    assert settings[0] == settings[1]
    said = yaml.safe_load((other / "config.resolved.yaml").read_text())
    assert said == {**yaml.safe_load(text), "output_dir": str(other)}


@pytest.mark.parametrize(
    ("words", "redacted"),
    [
        (["bash", "--hub_token", TOKEN], ["bash", "--hub_token", "<redacted>"]),
        (["bash", f"--hub-token={TOKEN}", "--seed", "1"], ["bash", "--hub-token=<redacted>", "--seed", "1"]),
        (["--model_init_kwargs", json.dumps({"token": INNER})], ["--model_init_kwargs", '{"token": "<redacted>"}']),
        (["--eos_token", "</s>", "--suppress_tokens", "12"], ["--eos_token", "</s>", "--suppress_tokens", "12"]),
        (["eval", "--judge_api_key_env", "MY_KEY"], ["eval", "--judge_api_key_env", "MY_KEY"]),
    ],
)
def test_command_lines(words: list[str], redacted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted_command(words) == redacted
    monkeypatch.setattr(sys, "argv", ["gapbridge", *words])
    assert environment()["command"] == ["gapbridge", *redacted]
