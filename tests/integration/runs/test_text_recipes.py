"""Recipes that train on plain text: what looks at them before, a run that is stopped and goes on, and who asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import BASE, ROOT

from gapbridge import cli


SMALL = [
    "--max_train_examples", "24", "--max_eval_examples", "4", "--max_length", "384", "--max_steps", "2",
    "--per_device_train_batch_size", "2", "--save_steps", "1", "--logging_steps", "1",
]  # fmt: skip
TEXT_ONLY = {"eval_datasets": [{"path": "json", "data_files": "recipes/tiny/data/text_train.jsonl"}]}


def recipe(name: str) -> str:
    return str(ROOT / "recipes" / "tiny" / name / "config_text.yaml")


# Contexts are drawn again for the preview and for the run: too long for every run of the tests.
@pytest.mark.parametrize("name", [pytest.param("bash", marks=pytest.mark.nightly), "pause"])
def test_a_recipe_trains_on_plain_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [*SMALL, "--output_dir", str(tmp_path / "run")]
    cli.main(["validate", "--config", recipe(name), *own])
    assert "train: loss on every token of a row" in capsys.readouterr().out
    cli.main(["preview", "--num_rows", "1", "--config", recipe(name), *own])
    assert "1 tokens" not in capsys.readouterr().out and not (tmp_path / "run").exists()
    cli.main([name, "--config", recipe(name), *own])
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert record["train"]["examples"] == 24 and not record["train"]["truncated"], "wrapped rows lose nothing"
    assert record["eval"]["num_eval_prompts_in_train"] == 0


def test_who_asks_refuses_a_recipe_of_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out text: nothing is asked with its first token, and nothing is written."""
    path = tmp_path / "text.yaml"
    lines = Path(recipe("bash")).read_text().replace("data/test.jsonl", "data/text_train.jsonl")
    path.write_text(lines)
    output = ["--output_dir", str(tmp_path / "out")]
    for command in (["eval", "--task", "word_problems"], ["gap"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*command, "--config", str(path), "--model", str(BASE), "--max_examples", "2", *output])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert (
            "text_train.jsonl [train], row 0: got no prompt" in said and "an evaluation completes each prompt" in said
        )
    assert not (tmp_path / "out").exists()
