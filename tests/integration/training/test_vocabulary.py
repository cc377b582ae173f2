"""Tokens that a tokenizer knows and the model's embedding has no row for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe, refused, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import cli
from gapbridge.errors import ConfigError
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train


def larger(folder: Path, **special: str) -> str:
    """The base model with a tokenizer that has one token more; `special` makes it one of the tokenizer's own."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<tool>"])
    for name, token in special.items():
        setattr(tokenizer, name, token)
    AutoModelForCausalLM.from_pretrained(BASE).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return str(folder / "model")


def rows_of(method: str, word: str) -> list[dict[str, Any]]:
    good = {"prompt": "one\n", "completion": "two"}
    if method == "dpo":
        return [
            {"prompt": "one\n", "chosen": "two", "rejected": word},
            {"prompt": "a\n", "chosen": "b", "rejected": "c"},
        ]
    return [{"prompt": f"say {word} now\n", "completion": "ok"}, good]


SIMILAR = [pytest.param(name, marks=pytest.mark.nightly) for name in ("rac", "spin", "scheduled_sampling")]


@pytest.mark.parametrize("method", ["sft", "bash", "dpo", "pause", "mtp", *SIMILAR])
def test_a_token_without_a_row_is_refused_before_anything_is_written(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [{"path": "json", "data_files": write_rows(tmp_path / "rows.jsonl", rows_of(method, "<tool>"))}]
    options = recipe(tmp_path, method=method, model_name_or_path=larger(tmp_path), datasets=data, max_length=64)
    for command in ("validate", method) if method in ("sft", "pause") else (method,):
        said = refused(capsys, command, *options)
        assert "<tool>" in said, said
        assert "got token 512" in said and "expected one below 512" in said, said
        assert method == "pause" or "rows.jsonl [train], example 0 (id" in said
    assert not (tmp_path / "run").exists()


def test_a_token_without_a_row_that_nothing_uses_does_no_harm(tmp_path: Path) -> None:
    """As in Gemma 3 1B, whose tokenizer has one token more than the embedding."""
    data = [{"path": "json", "data_files": write_rows(tmp_path / "rows.jsonl", rows_of("sft", "it"))}]
    options = recipe(tmp_path, method="sft", model_name_or_path=larger(tmp_path), datasets=data, max_length=64)
    train(read_job(options, "sft"))
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_padding_and_ending_need_a_row(name: str, tmp_path: Path) -> None:
    model = larger(tmp_path, **{name: "<tool>"})
    with pytest.raises(ConfigError, match=rf"model, {name}: got token 512 \('<tool>'\), expected one below 512"):
        train(read_job(recipe(tmp_path, method="sft", model_name_or_path=model), "sft"))
    assert not (tmp_path / "run").exists()


def test_the_number_of_examples_that_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"say {number}\n", "completion": "<tool>"} for number in range(15)]
    data = [{"path": "json", "data_files": write_rows(tmp_path / "rows.jsonl", rows)}]
    options = recipe(tmp_path, method="sft", model_name_or_path=larger(tmp_path), datasets=data, max_length=64)
    with pytest.raises(SystemExit):
        cli.main(["sft", *options])
    said = capsys.readouterr().err
    assert "11 errors" in said and "5 more examples" in said and "example 9 " in said and "example 10 " not in said


def test_references_without_a_row_are_refused_before_the_gap_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "one\n", "completion": "two <tool>"}]
    data = [{"path": "json", "data_files": write_rows(tmp_path / "rows.jsonl", rows)}]
    model = larger(tmp_path)
    options = recipe(tmp_path, method="sft", model_name_or_path=model, datasets=data, max_length=64)
    said = refused(capsys, "gap", *options, "--model", model, "--output_dir", str(tmp_path / "gap"))
    assert "rows.jsonl [train], example 0 (id" in said and "expected one below 512" in said
