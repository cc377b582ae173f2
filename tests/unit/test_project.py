"""The project as a whole: modules import, nothing forbidden is used, the embedded data are what they should be."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import socket

import pytest
import torch
from conftest import BASE, ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

import gapbridge
from gapbridge.tasks.word_problems import MAX_STEPS, MAX_VALUE, problems, word_problem_split


MODULES = sorted(module.name for module in pkgutil.walk_packages(gapbridge.__path__, "gapbridge."))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


def test_public_names() -> None:
    for name in gapbridge.__all__:
        assert getattr(gapbridge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gapbridge.nothing  # noqa: B018


def test_only_the_stable_parts_of_trl_are_used() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"trl\.(experimental|cli)|from alignment|import alignment", path.read_text()), path


def test_files_stay_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 450} == {}


def test_the_network_is_blocked() -> None:
    with pytest.raises(OSError, match="must not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


@pytest.mark.parametrize("steps", range(1, MAX_STEPS + 1))
def test_word_problems_are_solved_right(steps: int) -> None:
    for problem in problems("train", count=60, steps=(steps,)):
        assert len(problem.steps) == steps
        for step, line in zip(problem.steps, problem.answer.splitlines(), strict=False):
            left, right = int(step.left), int(step.right)
            value = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[step.operator]
            assert step.result == value and 1 <= value <= MAX_VALUE
            assert (
                line == f"{step.subject}: {left}{step.operator}{right}=<<{left}{step.operator}{right}={value}>>{value}"
            )
            assert step.subject in problem.prompt and (right == 1 or str(right) in problem.prompt)
        assert all(a.result == b.left for a, b in zip(problem.steps, problem.steps[1:], strict=False))
        assert problem.answer.endswith(f"\n#### {problem.result}")


def test_word_problems_are_deterministic_and_splits_disjoint() -> None:
    assert list(problems("test", count=30, seed=4)) == list(problems("test", count=30, seed=4))
    assert list(problems("test", count=30, seed=4)) != list(problems("test", count=30, seed=5))
    computations = {}
    for split in ("train", "test"):
        sampled = list(problems(split, count=800, steps=(1, 2)))
        assert all(word_problem_split(problem.steps) == split for problem in sampled)
        computations[split] = {tuple((s.left, s.operator, s.right) for s in p.steps) for p in sampled}
    assert not computations["train"] & computations["test"]
    with pytest.raises(gapbridge.ConfigError, match="3 errors"):
        list(problems("dev", count=-1, steps=(9,)))


def test_word_problems_vary() -> None:
    texts = [problem.prompt for problem in problems("train", count=400)]
    assert len(set(texts)) == 400
    assert len({text.split(". ")[-1].split()[0] for text in texts}) >= 2, "several ways to ask"
    assert any("days until" in text for text in texts), "distractors"


def test_embedded_base() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 8e6
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE)
    assert 0.5e6 < model.num_parameters() < 1.5e6 and model.dtype == torch.float32
    text = "Zoë pays 1,250 € for 37 “ΔΩ” things.\n\tDone? 日本 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("407")["input_ids"]) == ["4", "0", "7"]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|user|>a<|end|><|assistant|>b<|end|>"
    mask = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
    assert mask == [0, 0, 0, 0, 1, 1]


def test_accelerate_configs_have_the_handbooks_names() -> None:
    names = {path.stem for path in (ROOT / "accelerate_configs").glob("*.yaml")}
    assert names == {"single", "ddp", "fsdp", "zero2", "zero3"}


def test_benchmark_results_name_their_machine() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = json.loads(path.read_text())
        assert record["versions"] and record["machine"] and record["settings"], path
