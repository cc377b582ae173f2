"""Answers by the heads through the package: `generate`, and the answer mode of the commands."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from gapbridge import ConfigError, cli
from gapbridge.decoding import generate_completions
from gapbridge.decoding.mtp_heads import HEADS_FILE, add_heads, find_heads, save_heads
from gapbridge.generation import command
from gapbridge.methods.mtp.checkpoint import load
from gapbridge.methods.mtp.speculative import generate


RECIPE = "recipes/tiny/mtp/config_full.yaml"


@pytest.fixture(scope="module")
def with_heads(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """The base with three new heads beside it."""
    folder = tmp_path_factory.mktemp("model")
    model = AutoModelForCausalLM.from_pretrained(BASE)
    heads = add_heads(model, 3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_heads(folder, heads)
    return folder


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generate(temperature: float, with_heads: Path, tokenizer: Any) -> None:
    model = load(with_heads)
    prompts = [tokenizer(text)["input_ids"] for text in ("Ann has 4 apples", "Bob", "12 + 7 = ")]
    options = {"temperature": temperature, "max_completion_length": 12}
    completions, done = generate(model, prompts, tokenizer=tokenizer, **options)
    assert completions == generate_completions(
        model, prompts, ids=[0, 1, 2], stop_tokens=[tokenizer.eos_token_id], **options
    )
    assert (
        done.tokens == sum(len(completion.tokens) for completion in completions) and 0.25 <= done.passes_per_token <= 1
    )


def test_answer_mode(
    with_heads: Path, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers; the model that is asked has no heads on it afterwards, so it is the one that was asked."""
    monkeypatch.setattr(command, "OUTPUTS", tmp_path)
    output = tmp_path / "completions.jsonl"
    line = ["generate", RECIPE, "--model", str(with_heads), "--output", str(output), "--max_examples", "4"]
    with caplog.at_level(logging.INFO, logger="gapbridge"):
        cli.run(
            [
                *line,
                "--decoding_mode",
                "single_pass",
                "--decoding_mode",
                "speculative",
                "--max_completion_length",
                "20",
            ]
        )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 4 and all(row["speculative"] == row["answer"] for row in rows)
    assert "passes a token, 4 of them equal to the direct ones" in caplog.text
    with pytest.raises(ConfigError, match=r"base: got no future_heads\.safetensors.*Restore the file"):
        generate(AutoModelForCausalLM.from_pretrained(BASE), [[5]], tokenizer=tokenizer)
    assert find_heads(AutoModelForCausalLM.from_pretrained(with_heads)) is None


def test_answer_mode_of_an_adapter(
    with_heads: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heads lie beside the adapter, not beside the base that it names."""
    monkeypatch.setattr(command, "OUTPUTS", tmp_path)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), lora).save_pretrained(tmp_path / "adapter")
    shutil.copy(with_heads / HEADS_FILE, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    output = tmp_path / "completions.jsonl"
    line = ["generate", RECIPE, "--model", str(tmp_path / "adapter"), "--output", str(output), "--max_examples", "4"]
    line += ["--decoding_mode", "single_pass", "--decoding_mode", "speculative", "--max_completion_length", "20"]
    cli.run(line)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 4 and all(row["speculative"] == row["answer"] for row in rows)
