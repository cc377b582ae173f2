"""`gapbridge generate`: the file, what it refuses, and that nothing is answered twice."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe
from helpers.commands import answer

from gapbridge import cli
from gapbridge.errors import ConfigError, RunError
from gapbridge.generation.common import output_directory
from gapbridge.generation.decoding_modes import mode_settings, read_modes
from gapbridge.methods import answer_modes
from gapbridge.reporting.tables import short_name


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_runs_answers(tmp_path: Path) -> None:
    """Training prompts where the recipe has no others; the single-pass answers are made once, in every mode the
    same."""
    config = recipe(tmp_path, max_steps=1, method="sft")[1]
    with pytest.raises(
        RunError, match="got no finished run, expected one. Train it first, or name a model with --model"
    ):
        answer(config=config)
    cli.main(["sft", "--config", config])
    options = {"config": config, "max_completion_length": 30}
    first = answer(**options)
    assert first == tmp_path / "run" / "completions" / "completions.jsonl"
    rows = lines_of(first)
    assert [row["id"] for row in rows] == [f"train-0-{at}" for at in range(8)]
    assert set(rows[0]) == {"id", "prompt", "reference", "answer"} and "####" in rows[0]["reference"]
    (shard,) = (tmp_path / "run" / "completions").glob("*/shard-*")
    written = shard.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="got an existing file"):
        answer(**options)

    both = lines_of(answer(**options, decoding_mode=["all"], output=tmp_path / "both.jsonl"))
    assert [{**row, "self_correct": ""} for row in rows] == [{**row, "self_correct": ""} for row in both]
    assert all(isinstance(row["self_correct"], str) for row in both)
    other = answer(
        "--correction_prompt", "Again!", **options, decoding_mode=["self_correct"], output=tmp_path / "other.jsonl"
    )
    assert [row["self_correct"] for row in lines_of(other)] != [row["self_correct"] for row in both]
    assert shard.stat().st_mtime_ns == written and len(list((tmp_path / "run" / "completions").glob("*/shard-*"))) == 3


def test_any_model_and_a_limit(tmp_path: Path) -> None:
    config = recipe(tmp_path)[1]
    path = answer(config=config, model=str(BASE), max_examples=3, max_completion_length=5, output=tmp_path / "a.jsonl")
    assert len(lines_of(path)) == 3 and not (tmp_path / "run").exists()


def test_wrong_options_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        cli.run(["generate", "--max_examples", "0", "--batch_size", "0"])
    assert [error.split(". ")[0] for error in caught.value.errors] == [
        "command line, --max_examples: got '0', expected an integer of at least 1",
        "command line, --batch_size: got '0', expected an integer of at least 1",
        "command line: got no recipe, expected one",
    ]
    with pytest.raises(ConfigError, match="command line, recipe: got none, expected the recipe whose prompts"):
        answer()


def test_modes_and_what_they_are_told(tmp_path: Path) -> None:
    def read(mode: list[str], *others: str, **more: Any) -> Any:
        return read_modes(Namespace(decoding_mode=mode, **more), list(others))

    assert read([]) == ({"single_pass": {}}, [])
    assert read(["self_correct", "single_pass"], "--dtype", "float32") == (
        {"self_correct": {}, "single_pass": {}},
        ["--dtype", "float32"],
    )
    told = {"single_pass": {}, "self_correct": {"correction_prompt": "Again!"}}
    assert read(["all"], "--correction_prompt=Again!", "--seed", "1") == (told, ["--seed", "1"])
    assert read(["all"], correction_prompt="Again!") == (told, [])
    with pytest.raises(
        ConfigError, match="--correction_prompt: got a value without its mode, expected --decoding_mode self_correct"
    ):
        read(["single_pass"], correction_prompt="Again!")
    with pytest.raises(
        ConfigError, match="did you mean 'self_correct'.*expected one of single_pass, .*self_correct, all"
    ):
        read(["self_corect"])
    with pytest.raises(ConfigError, match="expected one argument"):
        read(["all"], "--correction_prompt")
    args: Any = object()
    own = answer_modes()["self_correct"].settings(args)
    assert mode_settings({"single_pass": {}, "self_correct": {}}, args) == {"self_correct": own}
    assert mode_settings(told, args) == {"self_correct": {"correction_prompt": "Again!"}}


def test_places_and_names(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    for given, model, place in (
        (None, [str(tmp_path)], tmp_path),
        (None, [str(BASE)], Path("outputs")),
        (None, [str(tmp_path)] * 2, Path("outputs")),
        (tmp_path / "there", [str(tmp_path)], tmp_path / "there"),
    ):
        assert output_directory(Namespace(output_dir=given, model=model)) == place
    names = ["outputs/sft", "other/sft", "outputs/rac"]
    assert [short_name(name, names) for name in names] == ["outputs/sft", "other/sft", "rac"]
