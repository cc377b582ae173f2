"""`gapbridge answer`: the file, what it refuses, and that nothing is answered twice."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from commands import answer
from conftest import BASE
from helpers import recipe

from gapbridge import cli
from gapbridge.answers.modes import mode_settings, read_modes
from gapbridge.answers.session import output_directory
from gapbridge.errors import ConfigError, RunError
from gapbridge.methods import answer_modes
from gapbridge.reporting.tables import short_name


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_runs_answers(tmp_path: Path) -> None:
    """Training prompts where the recipe has no others; the direct answers are made once, in every mode the same."""
    config = recipe(tmp_path, max_steps=1, method="sft")[1]
    with pytest.raises(RunError, match="holds no finished run"):
        answer(config=config)
    cli.main(["sft", "--config", config])
    options = {"config": config, "max_completion_length": 30}
    first = answer(**options)
    assert first == tmp_path / "run" / "answers" / "answers.jsonl"
    rows = lines_of(first)
    assert [row["id"] for row in rows] == [f"train-0-{at}" for at in range(8)]
    assert set(rows[0]) == {"id", "prompt", "reference", "answer"} and "####" in rows[0]["reference"]
    (shard,) = (tmp_path / "run" / "answers").glob("*/shard-*")
    written = shard.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="is there already"):
        answer(**options)

    both = lines_of(answer(**options, mode=["both"], output=tmp_path / "both.jsonl"))
    assert [{**row, "corrected": ""} for row in rows] == [{**row, "corrected": ""} for row in both]
    assert all(isinstance(row["corrected"], str) for row in both)
    other = answer("--correction_prompt", "Again!", **options, mode=["corrected"], output=tmp_path / "other.jsonl")
    assert [row["corrected"] for row in lines_of(other)] != [row["corrected"] for row in both]
    assert shard.stat().st_mtime_ns == written and len(list((tmp_path / "run" / "answers").glob("*/shard-*"))) == 3


def test_any_model_and_a_limit(tmp_path: Path) -> None:
    config = recipe(tmp_path)[1]
    path = answer(config=config, model=str(BASE), limit=3, max_completion_length=5, output=tmp_path / "a.jsonl")
    assert len(lines_of(path)) == 3 and not (tmp_path / "run").exists()


def test_wrong_options_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        answer(limit=0, batch_size=0)
    assert [fault.split(":")[1].split()[0] for fault in caught.value.faults] == ["--limit", "--batch_size", "name"]


def test_modes_and_what_they_are_told(tmp_path: Path) -> None:
    def read(mode: list[str], *others: str, **more: Any) -> Any:
        return read_modes(Namespace(mode=mode, **more), list(others))

    assert read([]) == ({"direct": {}}, [])
    assert read(["corrected", "direct"], "--dtype", "float32") == (
        {"corrected": {}, "direct": {}},
        ["--dtype", "float32"],
    )
    told = {"direct": {}, "corrected": {"correction_prompt": "Again!"}}
    assert read(["both"], "--correction_prompt=Again!", "--seed", "1") == (told, ["--seed", "1"])
    assert read(["both"], correction_prompt="Again!") == (told, [])
    with pytest.raises(ConfigError, match="--correction_prompt is for --mode corrected"):
        read(["direct"], correction_prompt="Again!")
    with pytest.raises(ConfigError, match="did you mean 'corrected'.*there are direct, .*corrected, both"):
        read(["correct"])
    with pytest.raises(ConfigError, match="expected one argument"):
        read(["both"], "--correction_prompt")
    args: Any = object()
    own = answer_modes()["corrected"].settings(args)
    assert mode_settings({"direct": {}, "corrected": {}}, args) == {"corrected": own}
    assert mode_settings(told, args) == {"corrected": {"correction_prompt": "Again!"}}


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
