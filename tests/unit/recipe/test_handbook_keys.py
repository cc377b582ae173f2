"""The keys of the alignment-handbook's recipes: what becomes of each, and the same rules on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import yaml
from helpers import recipe_keys

from gapbridge.errors import ConfigError
from gapbridge.recipe.deprecated_keys import DROPPED, NO_EFFECT, RENAMED
from gapbridge.runs.run_config import RunConfig, read_job


# What becomes of each key of its recipes (0.4.0.dev0, commit 925acdf: 22 recipes, 70 keys).
KeySupport = Literal["taken", "translated", "no effect", "refused"]


class HandbookKey(NamedTuple):
    """`detail` is the key that it becomes, or why it has no effect or is refused; `preferences`: what becomes of it in
    methods that learn from preferences, where that is another fate."""

    fate: KeySupport
    detail: str = ""
    preferences: KeySupport | None = None


_TAKEN = """
    attn_implementation average_tokens_across_devices bf16 chat_template dataset_config dataset_mixture dataset_name
    dataset_num_proc dataset_test_split dataset_train_split ddp_timeout eos_token eval_steps eval_strategy
    gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs hub_model_id hub_private_repo
    learning_rate load_in_4bit log_level logging_steps logging_strategy lora_alpha lora_dropout lora_r
    lora_target_modules lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_length max_steps model_name_or_path
    model_revision num_train_epochs optim output_dir packing padding_free per_device_eval_batch_size
    per_device_train_batch_size push_to_hub remove_unused_columns report_to run_name save_steps save_strategy
    save_total_limit seed trust_remote_code use_liger_kernel use_peft warmup_steps
""".split()
_PREFERENCES = "preferences' own: `start from the SFT recipe`"

HANDBOOK_KEYS: dict[str, HandbookKey] = {
    **{key: HandbookKey("taken") for key in _TAKEN},
    **{key: HandbookKey("translated", RENAMED[key]) for key in (
        "hub_model_revision", "max_seq_length", "torch_dtype", "warmup_ratio"
    )},
    "dataset_mixer": HandbookKey("translated", "datasets"),
    "dataset_splits": HandbookKey("translated", "eval_datasets"),
    "packing_strategy": HandbookKey("translated", "packing_strategy"),
    "assistant_only_loss": HandbookKey("taken"),
    **{key: HandbookKey("no effect", why) for key, why in NO_EFFECT.items()},
    "beta": HandbookKey("refused", _PREFERENCES, preferences="taken"),
    "loss_type": HandbookKey("refused", _PREFERENCES, preferences="taken"),
    "max_prompt_length": HandbookKey("no effect", DROPPED["max_prompt_length"]),
}  # fmt: skip


# A value as the handbook's recipes have it, for the keys whose value says what becomes of them; others have none.
VALUES: dict[str, Any] = {
    "beta": 0.05,
    "dataset_kwargs": {"add_special_tokens": False, "append_concat_token": False},
    "dataset_mixer": {"owner/name": 1.0},
    "dataset_splits": ["train_prefs", "test_prefs"],
    "do_eval": True,
    "do_train": True,
    "hub_model_revision": "v1.0",
    "hub_strategy": "every_save",
    "loss_type": "apo_zero",
    "max_prompt_length": 512,
    "max_seq_length": 2048,
    "overwrite_output_dir": True,
    "packing_strategy": "ffd",
    "torch_dtype": None,
    "warmup_ratio": 0.1,
}
TODAY: dict[str, Any] = {
    "hub_model_revision": "v1.0",
    "max_seq_length": 2048,
    "packing_strategy": "bfd",
    "torch_dtype": None,
    "warmup_ratio": 0.1,
}


def parse(folder: Path, method: str, *options: str, **keys: Any) -> RunConfig:
    path = folder / "recipe.yaml"
    base = {"model_name_or_path": "m", "output_dir": "o", "use_cpu": True, "bf16": False}
    path.write_text(yaml.safe_dump({**base, **keys}))
    return read_job(["--config", str(path), *options], method)


def setting(job: RunConfig, name: str) -> Any:
    return next(vars(part)[name] for part in job.recipe.parts.values() if name in vars(part))


def test_the_table_holds_the_seventy_keys() -> None:
    assert len(HANDBOOK_KEYS) == 70
    fates = {fate: [key for key, entry in HANDBOOK_KEYS.items() if entry.fate == fate] for fate in FATES}
    assert {fate: len(keys) for fate, keys in fates.items()} == {
        "taken": 55, "translated": 7, "no effect": 6, "refused": 2,
    }  # fmt: skip
    assert set(VALUES) == {key for key, entry in HANDBOOK_KEYS.items() if entry.fate != "taken"}


FATES = ("taken", "translated", "no effect", "refused")


@pytest.mark.parametrize("method", ["bash", "dpo"])
def test_what_is_taken_is_a_key_of_today(method: str) -> None:
    known = recipe_keys(method)
    taken = {
        key
        for key, entry in HANDBOOK_KEYS.items()
        if (entry.preferences if method == "dpo" and entry.preferences else entry.fate) == "taken"
    }
    # These are supervised fine-tuning's; the handbook's preference recipes have none of them.
    assert taken - known == ({"packing", "assistant_only_loss"} if method == "dpo" else set())


@pytest.mark.parametrize("key", [key for key, entry in HANDBOOK_KEYS.items() if entry.fate == "translated"])
def test_a_translated_key_arrives(key: str, tmp_path: Path) -> None:
    if key in ("dataset_mixer", "dataset_splits"):
        job = parse(tmp_path, "bash", dataset_mixer=VALUES["dataset_mixer"], dataset_splits=VALUES["dataset_splits"])
        assert [(entry.path, entry.split) for entry in setting(job, "datasets")] == [("owner/name", "train_prefs")]
        assert [(entry.path, entry.split) for entry in setting(job, "eval_datasets")] == [("owner/name", "test_prefs")]
        return
    packed = {"packing": True, "max_length": 64} if key == "packing_strategy" else {}
    job = parse(tmp_path, "bash", **packed, **{key: VALUES[key]})
    today = HANDBOOK_KEYS[key].detail
    assert job.recipe.settings[today] == setting(job, today) == TODAY[key]
    assert any(today in note and "is now" in note for note in job.recipe.notes)


@pytest.mark.parametrize("key", [key for key, entry in HANDBOOK_KEYS.items() if entry.fate == "no effect"])
def test_a_key_without_effect_says_so(key: str, tmp_path: Path) -> None:
    job = parse(tmp_path, "bash", **{key: VALUES[key]})
    assert [note for note in job.recipe.notes if f": {key} " in note and HANDBOOK_KEYS[key].detail in note]


@pytest.mark.parametrize("key", [key for key, entry in HANDBOOK_KEYS.items() if entry.fate == "refused"])
def test_a_refused_key_is_preferences_own(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        parse(tmp_path, "bash", **{key: VALUES[key]})
    job = parse(tmp_path, "dpo", **{key: VALUES[key]})
    assert key in job.recipe.settings


def test_old_options_are_translated_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "before")
    job = parse(
        tmp_path, "bash", "--max-seq-length", "77", "--warmup_ratio=0.1", "--overwrite_output_dir",
        "--logging_dir", "logs", "--use_flash_attention_2", "true", "--packing_strategy", "ffd",
        "--wandb_project", "gap", "--learning-rate", "1e-4",
    )  # fmt: skip
    assert (setting(job, "max_length"), setting(job, "warmup_steps"), job.args.learning_rate) == (77, 0.1, 1e-4)
    assert setting(job, "attn_implementation") == "flash_attention_2" and setting(job, "packing_strategy") == "bfd"
    assert os.environ["WANDB_PROJECT"] == "gap" == job.recipe.keys["wandb_project"]
    told = [note for note in job.recipe.notes if note.startswith("command line: ")]
    assert len(told) == 7 and any("logging_dir is ignored" in note for note in told)
    off = parse(tmp_path, "bash", "--use_flash_attention_2", "false")
    assert setting(off, "attn_implementation") is None


def test_old_and_new_option_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="command line: got both max_seq_length and max_length, which are one setting"
    ):
        parse(tmp_path, "bash", "--max_seq_length", "77", "--max_length", "78")
    with pytest.raises(ConfigError, match=r"unknown option --max-seq-lenth"):
        parse(tmp_path, "bash", "--max-seq-lenth", "77")
