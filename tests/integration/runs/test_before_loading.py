"""What shows before a run loads its model is refused there: missing packages, and data that make no batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import recipe, refused


PACKAGES = {
    "flash-attention": ({"attn_implementation": "flash_attention_2"}, "attn_implementation", "flash_attn or kernels"),
    "a hub's kernel": ({"attn_implementation": "kernels-community/flash-attn3"}, "attn_implementation", "kernels"),
    "in the model's arguments": ({"model_init_kwargs": {"attn_implementation": "flash_attention_3"}},
                                 "attn_implementation", "flash_attn_interface or flash_attn_3 or kernels"),
    "4 bit": ({"load_in_4bit": True, "use_peft": True}, "load_in_4bit", "bitsandbytes"),
    "8 bit": ({"load_in_8bit": True, "use_peft": True}, "load_in_8bit", "bitsandbytes"),
    "a tracker": ({"report_to": ["trackio"]}, "report_to", "trackio"),
}  # fmt: skip


@pytest.mark.parametrize("case", PACKAGES)
def test_missing_packages(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapbridge.runs.packages.find_spec", lambda name: None)  # wherever the tests run
    keys, key, packages = PACKAGES[case]
    arguments = recipe(tmp_path, method="sft", **keys)
    for command in ("sft", "validate"):
        said = refused(capsys, command, *arguments)
        assert f"{key}: got " in said and f" without the package {packages}, expected" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keys", [{}, {"attn_implementation": "sdpa"}, {"attn_implementation": "eager"}])
def test_nothing_else_is_needed(
    keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapbridge.runs.packages.find_spec", lambda name: None)
    arguments = recipe(tmp_path, method="sft", max_length=1, **keys)  # another error, so that nothing is loaded
    assert "package" not in refused(capsys, "validate", *arguments)


@pytest.mark.parametrize("method", ["bash", "sft"])
def test_fewer_rows_than_one_batch(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"method": method, "per_device_train_batch_size": 9, "dataloader_drop_last": True}
    arguments = recipe(tmp_path, **keys)
    for command in (method, "validate"):
        assert "train: got 8 rows with dataloader_drop_last, expected at least 9" in refused(
            capsys, command, *arguments
        )
    assert not (tmp_path / "run" / "run.json").exists() and not list(tmp_path.glob("run/round_1/_contexts"))


def test_validate_counts_all_rows(tmp_path: Path) -> None:
    """It reads the first ones alone."""
    from gapbridge.runs import validate
    from gapbridge.runs.run_config import read_job

    job = read_job(recipe(tmp_path, method="sft", per_device_train_batch_size=8, dataloader_drop_last=True))
    before, validate.DRY_ROWS = validate.DRY_ROWS, 4
    try:
        assert validate.validate(job)[0] == []
    finally:
        validate.DRY_ROWS = before


def test_too_few_held_out_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"test_split_size": 2, "eval_strategy": "steps", "per_device_eval_batch_size": 3}
    arguments = recipe(tmp_path, method="sft", dataloader_drop_last=True, **keys)
    for command in ("sft", "validate"):
        assert "eval: got 2 rows with dataloader_drop_last, expected at least 3" in refused(
            capsys, command, *arguments
        )
