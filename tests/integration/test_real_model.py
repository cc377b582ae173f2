"""A pretrained model of real size, in the folder that GAPBRIDGE_REAL_MODEL names; skipped without one.

`recipes/smollm2-135m/make_model.py` makes such a folder. Models of a few thousand parameters hide what a vocabulary of
49,152 tokens, a trained distribution and minutes of computing show.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import cli
from gapbridge.decoding import generate_completions, mix_contexts, mix_contexts_sequential
from gapbridge.tasks.word_problems import problems


pytestmark = [pytest.mark.real_model, pytest.mark.slow]

RECIPES = "recipes/smollm2-135m/word-problems"


@pytest.fixture(scope="module")
def folder() -> str:
    """The model's folder."""
    named = os.environ.get("GAPBRIDGE_REAL_MODEL", "")
    if not (Path(named) / "config.json").is_file():
        pytest.skip(f"GAPBRIDGE_REAL_MODEL is {named!r}: no model's folder")
    return named


@pytest.fixture(scope="module")
def loaded(folder: str) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def test_contexts_are_those_of_the_definition(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    problem = next(problems("train", count=1, steps=(1,)))
    prompts, references = (tokenizer([text])["input_ids"] for text in (problem.prompt, problem.answer))
    given: dict[str, Any] = {"ids": ["a"], "mixture_coefficient": 0.5}
    mixed = mix_contexts(model, prompts, references, **given)
    assert mixed == mix_contexts_sequential(model, prompts, references, **given)
    assert mixed[0].tokens != references[0], "a model that was not trained on them replaces some"


def test_greedy_completions_are_those_of_generate(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
    stops = [tokenizer.eos_token_id]
    (found,) = generate_completions(
        model, [ids], ids=["a"], max_completion_length=12, stop_tokens=stops, temperature=0
    )
    full = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0].tolist()
    assert found.tokens == full[len(ids) :] and found.finished


def test_a_preview_takes_seconds(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.process_time()
    cli.main(["preview", f"{RECIPES}/bash/config_full.yaml", "--model_name_or_path", folder, "--num_rows", "1"])
    assert capsys.readouterr().out.count("\nid ") == 1
    assert time.process_time() - started < 60


def test_a_step_fits_into_a_laptop(folder: str, tmp_path: Path) -> None:
    size = [
        "--max_train_examples",
        "4",
        "--max_eval_examples",
        "2",
        "--max_steps",
        "1",
        "--output_dir",
        f"{tmp_path}/run",
    ]
    cli.main(["sft", f"{RECIPES}/sft/config_full.yaml", "--model_name_or_path", folder, *size])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "complete"
