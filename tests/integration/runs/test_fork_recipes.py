"""A fork's own recipe, unmodified: `gapbridge METHOD FORK-RECIPE` trains it, or says in one line what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from conftest import BASE
from helpers import ENVIRONMENT, refused, write_rows
from packaging.version import Version
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import cli, compat
from gapbridge.tasks.word_problems import problems


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Old keys, fractional weights, a kind of packing of before, a test split that is mixed in: as forks have them.
SFT = {
    "model_name_or_path": "owner/model",
    "model_revision": "main",
    "torch_dtype": "bfloat16",
    "chat_template": CHATML,
    "eos_token": "<|im_end|>",
    "dataset_mixture": {
        "datasets": [
            {"id": "owner/chats", "config": "default", "split": "train_sft", "columns": ["messages"], "weight": 0.7},
            {"id": "owner/chats", "config": "default", "split": "test_sft", "columns": ["messages"], "weight": 1.0},
        ],
        "test_split_size": 4,
        "seed": 0,
    },
    "dataset_num_proc": 1,
    "assistant_only_loss": True,
    "bf16": True,
    "dataset_kwargs": {"add_special_tokens": False, "append_concat_token": False},
    "do_eval": True,
    "do_train": True,
    "eval_strategy": "epoch",
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "hub_model_id": "mine",
    "hub_strategy": "every_save",
    "learning_rate": 2.0e-05,
    "log_level": "info",
    "logging_steps": 1,
    "logging_strategy": "steps",
    "lr_scheduler_type": "cosine",
    "max_seq_length": 512,
    "max_steps": -1,
    "num_train_epochs": 1,
    "output_dir": "data/mine",
    "overwrite_output_dir": True,
    "packing": True,
    "packing_strategy": "ffd",
    "per_device_eval_batch_size": 2,
    "per_device_train_batch_size": 2,
    "push_to_hub": True,
    "remove_unused_columns": True,
    "report_to": ["tensorboard"],
    "save_strategy": "steps",
    "save_steps": 100,
    "save_total_limit": 1,
    "seed": 42,
    "warmup_ratio": 0.1,
}
HERE = ["--use_cpu", "true", "--push_to_hub", "false", "--report_to", "none", "--max_steps", "1"]
PACKS = Version("1.7") <= compat.TRL
if not PACKS:
    HERE += ["--packing", "false"]


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fork's directory in which local stand-ins have the names of the hub's models and data sets."""
    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    model = AutoModelForCausalLM.from_pretrained(BASE)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "owner" / "model")
    chats = tmp_path / "owner" / "chats"
    chats.mkdir()
    for split in ("train", "test"):
        rows = []
        for problem in problems(split, count=8, steps=(2,)):
            row = problem.row()
            # UltraChat's columns: the prompt repeats the first turn.
            rows.append({"prompt": problem.prompt, "messages": [*row["prompt"], *row["completion"]]})
        write_rows(chats / f"{split}_sft.jsonl", rows)
    splits = [{"split": f"{split}_sft", "path": f"{split}_sft.jsonl"} for split in ("train", "test")]
    card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": splits}]})
    (chats / "README.md").write_text(f"---\n{card}---\n")
    # `datasets` does not see that the files behind a card have changed.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, **changes: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**SFT, **changes}.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("method", ["bash", "rac"])
def test_a_forks_sft_recipe_trains(method: str, fork: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main([method, written(fork), *HERE])
    run = json.loads((fork / "data" / "mine" / "run.json").read_text())
    assert run["state"] == "complete"
    said = capfd.readouterr().err
    assert "packing_strategy: ffd is now bfd" in said and "do_eval has no effect here" in said
    data = json.loads((fork / "data" / "mine" / "data.json").read_text())
    assert (data["train"]["examples"], data["eval"]["examples"]) == (9, 4)  # int(8 · 0.7) + 8, less 4 held out


def test_a_forks_long_rows_are_cut_as_the_handbook_cuts_them(fork: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = written(fork, max_seq_length=90)
    said = refused(capfd, "sft", recipe, *HERE, "--truncate_overlong", "false")
    assert "over-length" in said and not (fork / "data").exists()
    cli.main(["sft", recipe, *HERE])
    assert "which cuts long rows: truncate_overlong: true" in capfd.readouterr().err
    assert json.loads((fork / "data" / "mine" / "data.json").read_text())["train"]["truncated"] > 0


@pytest.mark.skipif(PACKS, reason="this TRL keeps the labels of packed rows")
def test_packing_is_refused_where_labels_are_dropped(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "bash", written(fork), *HERE[: HERE.index("--packing")])
    words = (
        f"packing: got True with TRL {compat.TRL}, which would train on the tokens of the contexts, expected TRL 1.7"
    )
    assert words in said and not (fork / "data").exists()


def test_columns_may_be_left_to_the_data_set(fork: Path) -> None:
    """`prompt` beside `messages`, and a data set by its name."""
    recipe = written(
        fork, dataset_mixture=None, dataset_name="owner/chats", dataset_train_split="train_sft",
        dataset_test_split="test_sft",
    )  # fmt: skip
    cli.main(["sft", recipe, *HERE])
    assert (fork / "data" / "mine" / "report.md").is_file()


def test_accelerate_starts_it_as_the_fork_starts_its_scripts(fork: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]
    precision = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launch, *precision, "-m", "gapbridge", "sft", "--config", written(fork), *HERE]
    surroundings = {"PYTHONPATH": os.pathsep.join(sys.path), "HF_DATASETS_CACHE": str(fork / "cache")}
    process = subprocess.run(
        [sys.executable, *command], cwd=fork, env={**ENVIRONMENT, **surroundings},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    assert (fork / "data" / "mine" / "report.md").is_file()


def test_a_missing_eos_is_one_line_before_anything_is_loaded(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fork / "owner" / "model" / "model.safetensors").unlink()
    recipe = written(fork, eos_token=None, dataset_mixture={"datasets": [{"id": "owner/nowhere"}]})
    (said,) = refused(capsys, "bash", recipe, *HERE).splitlines()
    assert "recipe.yaml, chat_template: got '<|im_end|>\\n' at the end of an answer, expected a stop token" in said
    assert said.endswith("Add `eos_token: <|im_end|>`.")


def test_validate_takes_the_method_for_a_recipe_without_one(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(fork)
    cli.main(["validate", "--method", "bash", recipe, *HERE])
    said = capsys.readouterr().out
    assert f"{recipe}: good." in said and "train: the first 9 rows" in said
    assert "eos_token: <|im_end|>" in refused(
        capsys, "validate", "--method", "rac", written(fork, eos_token=None), *HERE
    )
    assert "recipe.yaml, method: got no value, expected one of bash, dpo" in refused(capsys, "validate", recipe)


def test_a_preference_recipe_is_refused_by_its_keys(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(fork, beta=0.01, max_prompt_length=512)
    for command in (["bash", recipe], ["validate", "--method", "rac", recipe]):
        assert "unknown key 'beta' (a key of dpo and spin)" in refused(capsys, *command)
