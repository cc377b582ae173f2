"""A run goes on from what it was started with and from what its own rounds left, or says what is different."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe, refused

from gapbridge import cli


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds that was stopped after its first."""
    folder = tmp_path_factory.mktemp("rounds")
    shutil.copytree(BASE, folder / "base")
    changes = {"model_name_or_path": str(folder / "base"), "mixture_coefficient": 0.5, "num_rounds": 2}
    cli.main(["bash", *recipe(folder, **changes, max_train_examples=4)])
    run = folder / "run"
    shutil.rmtree(run / "round_2")
    for path in run.iterdir():
        if path.is_file() and path.name not in ("run.json", "config.resolved.yaml", "environment.json"):
            path.unlink()
    edit(run, lambda record: record.update(state="running"))
    return folder


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_rounds(record: dict[str, Any]) -> None:
    """As a version left it that recorded less."""
    record["inputs"] = {key: value for key, value in record["inputs"].items() if not key.startswith("round")}


def complete_on_other_rows(folder: Path) -> None:
    edit(folder / "run", lambda record: record.update(state="complete"))
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(reversed(lines)))


def back_to_the_start(folder: Path) -> None:
    shutil.rmtree(folder / "run" / "round_1" / "model")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a weight": (lambda f: flip(f / "run/round_1/model/model.safetensors"), "round_1/model: got"),
    "another file of the model": (lambda f: flip(f / "run/round_1/model/config.json"), "round_1/model: got"),
    "the contexts": (lambda f: flip(f / "run/round_1/_contexts/manifest.json"), "round_1/_contexts: got"),
    "an older version": (lambda f: edit(f / "run", without_rounds), "round_1/model: got nothing, expected"),
    "the first model": (
        lambda f: (back_to_the_start(f), flip(f / "base/model.safetensors")), "inputs, model: got",
    ),
    "the rows of a complete run": (complete_on_other_rows, "inputs, train rows: got"),
    "no record of the first model": (
        lambda f: (back_to_the_start(f), edit(f / "run", lambda record: record["inputs"].pop("model"))),
        "inputs, model: got nothing, expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(stopped: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = CHANGES[name]
    remaining = tmp_path / "kept"
    shutil.copytree(stopped, remaining)
    try:
        change(stopped)
        before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
        said = refused(capsys, "bash", str(stopped / "recipe.yaml"))
        assert words in said and str(stopped / "run" / "run.json") in said
        assert before == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    finally:
        shutil.rmtree(stopped)
        shutil.copytree(remaining, stopped)


def test_the_record_of_a_run(stopped: Path) -> None:
    record = json.loads((stopped / "run" / "run.json").read_text())
    names = {"train examples", "tokenizer", "model", "round_1/model", "round_1/_contexts"}
    assert names <= set(record["inputs"])


def test_validate_says_the_same(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (stopped / "train.jsonl").read_text()
    try:
        (stopped / "train.jsonl").write_text("".join(reversed(rows.splitlines(keepends=True))))
        said = refused(capsys, "validate", str(stopped / "recipe.yaml"))
        assert "run.json, inputs, train rows: got" in said
    finally:
        (stopped / "train.jsonl").write_text(rows)
