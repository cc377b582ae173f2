"""The check before training on small recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import recipe, write_rows

from gapbridge import cli
from gapbridge.tasks.word_problems import problems


def _previewed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["preview", *arguments, "--num_rows", "1"])
    return capsys.readouterr().out


def test_a_recipe_that_mixes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    said = _previewed(capsys, *recipe(tmp_path, mixture_coefficient=1.0), "--num_probe_examples", "4")
    assert said.count("\nid ") == 1 and "on the first 4 training examples" in said
    assert "of the answer tokens sampled, " in said and "follow a forced error" in said
    interval = r"\d+\.\d % \[\d+\.\d, \d+\.\d\]"
    assert re.search(
        f"forced error: {interval}\n.*final answer right {interval}, token F1 {interval},", said, re.DOTALL
    )
    assert {path.name for path in tmp_path.iterdir()} - before == {"recipe.yaml", "train.jsonl"}, "nothing is written"
    said = _previewed(capsys, *recipe(tmp_path, mixture_coefficient=0.0), "--num_probe_examples", "4")
    assert "0 % replaced" in said


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
    assert said.index("\nid ") < said.index("starting model"), "the rows stand first"
    assert "starting model" not in _previewed(capsys, *recipe(tmp_path, **changes)), "estimates are asked for"


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
