"""Stores and runs on disk that are damaged, or that another recipe has made: named, and left as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe, write_rows
from test_bad_input import COMMANDS, GOOD, MODELS, PLACES, RECIPES, ROWS, TEXTS, cut, refuse

from gapbridge import cli


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe whose run has its contexts, in two shards, and no model yet."""
    folder = tmp_path_factory.mktemp("made") / "folder"
    folder.mkdir()
    cli.main(["prepare", *recipe(folder, generation_shard_size=4)])
    return folder


@pytest.fixture
def generated(made: Path) -> Iterator[Path]:
    """The same folder, put back as it was after each test: a run is bound to its paths."""
    saved = shutil.copytree(made, made.with_name("saved"))
    yield made
    shutil.rmtree(made)
    saved.rename(made)


def contexts(run: Path) -> Path:
    return run / "round_1" / "_contexts"


def first_shard(run: Path) -> Path:
    return sorted(contexts(run).glob("shard-*"))[0]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def unfinished(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Damage a store whose manifest was not written yet."""

    def both(run: Path) -> None:
        (contexts(run) / "manifest.json").unlink()
        damage(run)

    return both


# name: (what is done to the run, the error, words of its message)
RUNS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated shard": (lambda r: cut(first_shard(r)), "StoreError", "sha256: got another hash"),
    "wrong checksum": (lambda r: flip(first_shard(r), 40), "StoreError", "sha256: got another hash"),
    "missing shard": (lambda r: first_shard(r).unlink(), "StoreError", "got no file, expected the shard"),
    "empty shard": (lambda r: first_shard(r).write_bytes(b""), "StoreError", "sha256: got another hash"),
    "truncated manifest": (lambda r: cut(contexts(r) / "manifest.json"), "StoreError", "got a damaged file"),
    "manifest of something else": (
        lambda r: (contexts(r) / "manifest.json").write_text("[]"), "StoreError",
        "manifest.json: got another file, expected the manifest",
    ),
    "manifest without shards": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m.update(shards=3)), "StoreError", "manifest",
    ),
    "manifest of other shards": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["shards"].pop()), "StoreError", "manifest",
    ),
    "manifest of an old format": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["identity"].update(format_version=0)),
        "StoreError", "format_version: got contexts that were made with 0, expected 2",
    ),
    "other weights": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["identity"].update(weights="abc")),
        "StoreError", "weights: got contexts that were made with 'abc'",
    ),
    "unfinished, truncated shard": (
        unfinished(lambda r: cut(first_shard(r))), "StoreError", "got a truncated or damaged file",
    ),
    "unfinished, flipped byte": (
        unfinished(lambda r: flip(first_shard(r), 40)), "StoreError", "got a truncated or damaged file",
    ),
    "unfinished, no parquet": (
        unfinished(lambda r: first_shard(r).write_text("text")), "StoreError", "got a truncated or damaged file",
    ),
    "unfinished, foreign shard": (
        unfinished(lambda r: shutil.copy(first_shard(r), contexts(r) / "shard-00007-of-00009.parquet")),
        "StoreError", "got a shard of another store",
    ),
    "unfinished, shards exchanged": (
        unfinished(lambda r: shutil.copy(first_shard(r), str(first_shard(r)).replace("shard-00000", "shard-00001"))),
        "StoreError", "shard-00001-of-00002.parquet: got another shard",
    ),
    "truncated run.json": (lambda r: cut(r / "run.json"), "RunError", "run.json: got a damaged file"),
    "run.json of something else": (
        lambda r: (r / "run.json").write_text("[1]"), "RunError",
        "run.json: got a damaged file (it holds a list), expected",
    ),
    "run.json without settings": (
        lambda r: (r / "run.json").write_text('{"state": "running"}'), "RunError",
        "run.json, settings: got no value, expected an object",
    ),
    "run.json of unknown state": (
        lambda r: edit_json(r / "run.json", lambda record: record.update(state="odd")), "RunError",
        "run.json, state: got 'odd', expected running or complete",
    ),
    "other tokenizer": (
        lambda r: edit_json(r / "run.json", lambda record: record["inputs"].update(tokenizer="abc")),
        "RunError", "run.json, inputs, tokenizer: got abc, expected",
    ),
    "other data": (
        lambda r: write_rows(r.parent / "train.jsonl", [GOOD]), "RunError", "run.json, inputs, train examples: got",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "words"), RUNS.values(), ids=RUNS)
def test_store_and_run(
    damage: Callable[[Path], object], error: str, words: str, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(generated / "run")
    refuse(capsys, error, words, generated, "bash", "--config", str(generated / "recipe.yaml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e-3}, "learning_rate: got 0.001, expected None, as in the run there"),
        ({"mixture_coefficient": 0.4}, "mixture_coefficient: got 0.4, expected None, as in the run there"),
        ({"generation_shard_size": 2}, "generation_shard_size: got 2, expected 4, as in the run there"),
        ({"method": "sft", "generation_shard_size": None}, "method: got 'sft', expected 'bash', as in the run there"),
    ],
)
def test_changed_recipe(
    changes: dict[str, Any], words: str, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = recipe(generated, **{"generation_shard_size": 4, **changes})
    refuse(capsys, "RunError", words, generated, changes.get("method", "bash"), *options)


def test_resume_options(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["bash", "--config", str(generated / "recipe.yaml"), "--resume"]
    refuse(capsys, "RunError", "got a run (running) with --resume never", generated, *options, "never")
    new = ["bash", *recipe(tmp_path), "--resume"]
    refuse(capsys, "RunError", "got no run with --resume require", tmp_path, *new, "require")
    cli.main([*new, "never"])
    refuse(capsys, "RunError", "got a run (complete) with --resume never", tmp_path, *new, "never")
    cli.main([*new, "require"])
    assert "this run is complete" in capsys.readouterr().out
    cli.main([*options, "require"])


def test_nothing_to_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "recipe.yaml: got options with which bash generates nothing before training"
    refuse(capsys, "ConfigError", words, tmp_path, "prepare", *recipe(tmp_path, sft_fraction=1.0))


def test_other_weights_under_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT has no store: the run itself remembers what it started from."""
    base = shutil.copytree(BASE, tmp_path / "base")
    options = ["sft", *recipe(tmp_path, method="sft", model_name_or_path=str(base))]
    cli.main(options)
    shutil.rmtree(tmp_path / "run" / "round_1" / "model")
    edit_json(tmp_path / "run" / "run.json", lambda record: record.update(state="running"))
    flip(base / "model.safetensors", -3)
    refuse(capsys, "RunError", "run.json, inputs, model: got", tmp_path, *options)


def test_the_matrix_is_large_enough() -> None:
    tables = (RECIPES, ROWS, MODELS, TEXTS, COMMANDS, RUNS, PLACES)
    assert sum(map(len, tables)) >= 60
