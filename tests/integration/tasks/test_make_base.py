"""The script that makes bases: the shipped one's text is as before, and another task's base is trained and checked."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge.tasks.word_problems import problems


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_base", ROOT / "recipes" / "tiny" / "make_base.py")
    assert spec and spec.loader
    module = sys.modules["make_base"] = importlib.util.module_from_spec(spec)  # its dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def test_the_shipped_bases_text_is_plain_word_problems(script: ModuleType, tokenizer: Any) -> None:
    text = script.Text({}, mixed=True, chat=False, seed=0)
    for step, batch in enumerate(script.batches(tokenizer, text, 3, 4)):
        steps = (step * 5 % 6 + 1,)
        lines = [
            f"{problem.prompt}\n{problem.answer}<|end|>"
            for problem in problems("train", count=4, steps=steps, seed=1_000_001 + step)
        ]
        assert tokenizer.batch_decode(batch["input_ids"]) == tokenizer.batch_decode(
            tokenizer(lines, padding=True)["input_ids"]
        )
        assert torch.equal(batch["labels"] == -100, batch["attention_mask"] == 0)


def test_in_the_chat_format_loss_falls_on_answers(script: ModuleType, tokenizer: Any) -> None:
    text = script.Text({}, mixed=False, chat=True, seed=3)
    (batch,) = script.batches(tokenizer, text, 1, 5)
    sampled = problems("train", count=5, seed=4_000_001)
    for ids, labels, problem in zip(batch["input_ids"], batch["labels"], sampled, strict=True):
        row = f"<|user|>{problem.prompt}<|end|><|assistant|>{problem.answer}<|end|>"
        assert tokenizer.decode(ids).removesuffix("<|pad|>" * int((ids == tokenizer.pad_token_id).sum())) == row
        assert tokenizer.decode(labels[labels != -100]) == f"{problem.answer}<|end|>"


def test_a_small_base_learns_and_is_checked(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss falls in sixty steps, and the figures of the check are those that are printed."""
    options = [
        "--task",
        "word_problems",
        "--options",
        "steps=1",
        "--chat",
        "--check",
        "16",
    ]
    size = [
        "--hidden_size",
        "32",
        "--layers",
        "1",
        "--vocab_size",
        "280",
        "--batch_size",
        "16",
        "--steps",
        "60",
        "--learning_rate",
        "0.02",
    ]
    threads = torch.get_num_threads()
    script.main([*options, *size, "--output", str(tmp_path)])
    torch.set_num_threads(threads)
    figures = json.loads((tmp_path / "check.json").read_text())
    assert figures["problems"] == 16 and 0 <= figures["correct"] <= 1
    assert figures["loss"] < 2.5, "from ln 280 = 5.6"
    assert f"correct {100 * figures['correct']:.1f} %" in capsys.readouterr().out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.hidden_size == 32 and model.config.num_hidden_layers == 1 and len(tokenizer) <= 280
    for wrong in (
        ["--hidden_size", "48"],
        ["--options", "steps=3"],
        ["--task", "word_problems", "--options", "facts=3"],
    ):
        with pytest.raises(SystemExit):
            script.main([*wrong, "--output", str(tmp_path / "none")])


def test_a_wrong_first_line_is_not_mended_by_the_working(script: ModuleType) -> None:
    is_right = script.has_right_result
    (problem,) = problems("train", count=1, order="answer_first")
    first, _, working = problem.answer.partition("\n")
    wrong = f"#### {problem.result + 1}\n{working}"
    assert is_right(problem, problem.answer)
    for answer in (wrong, f"{wrong}\n{first}", f"{working}\n{first}"):
        assert not is_right(problem, answer)
    for nothing in ("", " ", "#### ", "I do not know.", problem.prompt, working):
        assert not is_right(problem, nothing)
    (other,) = problems("train", count=1)
    assert other.answer == f"{working}\n{first}" and is_right(other, other.answer)
