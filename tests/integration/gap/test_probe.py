"""The check before training: its advice by table, and the whole of it on small recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import recipe, write_rows

from gapbridge import cli
from gapbridge.gap.method_advice import ProbeResult, advice
from gapbridge.gap.starting_model_check import answers_first
from gapbridge.tasks.word_problems import problems


USUAL = ProbeResult(replaced=0.02, recovered=0.4, right=0.7, token_f1=0.9, truncated=0.0, answer_first=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["BASH may help", "40 % of the following reference tokens", "random tokens"]),
        ({"replaced": None}, ["If 0.1 % of the tokens or more are replaced, BASH may help"]),
        ({"replaced": 0.001}, ["BASH may help"]),
        ({"replaced": 0.0003}, ["BASH would change almost nothing: 0.03 % of the tokens are replaced"]),
        ({"answer_first": True, "right": 0.05}, ["RAC may help", "5 % of the generated completions are right"]),
        ({"answer_first": True, "right": 0.05, "replaced": 0.0}, ["RAC may help"]),
        ({"answer_first": True, "right": 0.5}, ["BASH may help"]),
        ({"answer_first": False, "right": 0.05}, ["BASH may help"]),
        ({"recovered": 0.96}, ["Little to gain", "96 %"]),
        ({"recovered": 0.997}, ["Little to gain", "100 %"]),
        ({"recovered": 0.04}, ["Expect little of BASH", "4 %"]),
        ({"recovered": None}, ["No advice", "too short"]),
        ({"token_f1": 0.2, "answer_first": True, "right": 0.0}, ["Train with SFT first", "token F1 20 %"]),
        (
            {"truncated": 0.6, "token_f1": 0.2},
            ["Train with SFT first: 60 % of the generated completions reach the limit"],
        ),
    ],
)
def test_advice(changes: dict[str, float | None], words: list[str]) -> None:
    said = advice(replace(USUAL, **changes))
    assert all(word in said for word in words), said
    assert said.endswith(".") and said.count(". ") == 0, "one sentence"


def test_where_the_answer_stands() -> None:
    assert answers_first("#### 18\nBen: 9+9=18\n") and not answers_first("#### 18\n")
    assert not answers_first("Ben: 9+9=<<9+9=18>>18\n#### 18") and not answers_first("no mark\nat all")


def _previewed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["preview", *arguments, "--num_rows", "1"])
    return capsys.readouterr().out


def test_a_recipe_that_mixes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    said = _previewed(capsys, *recipe(tmp_path, mixture_coefficient=1.0), "--num_probe_examples", "4")
    assert said.count("\nid ") == 1 and "on the first 4 training examples" in said
    assert "of the answer tokens sampled, " in said and "follow a forced error" in said
    assert "greedy: final answer right" in said and "\nadvice: " in said
    assert {path.name for path in tmp_path.iterdir()} - before == {"recipe.yaml", "train.jsonl"}, "nothing is written"
    said = _previewed(capsys, *recipe(tmp_path, mixture_coefficient=0.0), "--num_probe_examples", "4")
    assert "advice: BASH would change almost nothing: 0 % of the tokens are replaced" in said


def test_a_recipe_that_draws_nothing_with_the_answer_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [problem.row() for problem in problems("train", count=5, steps=(2,))]
    for row in rows:
        *working, result = row["completion"][0]["content"].split("\n")
        row["completion"][0]["content"] = "\n".join([result, *working])
    data = write_rows(tmp_path / "first.jsonl", rows)
    changes = {"method": "sft", "datasets": [{"path": "json", "data_files": data}]}
    said = _previewed(capsys, *recipe(tmp_path, **changes), "--num_probe_examples", "5")
    assert "contexts" not in said.partition("training examples")[2], "there are none"
    assert "token F1" in said
    assert said.index("\nid ") < said.index("examples, which takes at most"), (
        "the rows stand first, then how long the rest takes"
    )
    assert "advice" not in _previewed(capsys, *recipe(tmp_path, **changes)), "estimates are asked for"


@pytest.mark.parametrize("method", ["sft", "bash"])
def test_a_preview_costs_its_rows(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A real model takes seconds for a row: none beyond those that are shown goes through the model."""
    sizes: list[int] = []

    def count(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            sizes.append(len(arguments[0]))

    line = recipe(tmp_path, method=method, **({"mixture_coefficient": 0.5} if method == "bash" else {}))
    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        cli.main(["preview", *line, "--num_rows", "2"])
    finally:
        handle.remove()
    assert capsys.readouterr().out.count("\nid ") == 2
    assert max(sizes, default=0) == (2 if method == "bash" else 0)
