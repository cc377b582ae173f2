"""`eval` never shows an old record as new: what entered is compared, and what changed is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE
from helpers import recipe, write_rows
from helpers.commands import evaluate

from gapbridge.errors import ConfigError
from gapbridge.tasks.word_problems import problems


ROWS = [problem.row() for problem in problems("test", count=6, steps=(1,))]
FILLER = {"prompt": "x" * 2**20, "completion": "y"}  # behind those that are asked


class Place:
    """A recipe, a model and held-out rows, with one finished evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, folder / "model"
        shutil.copytree(BASE, self.model)
        self.rows([*ROWS[:4], FILLER, FILLER, ROWS[4]])
        recipe(folder, method="sft", eval_datasets=[{"path": "json", "data_files": str(folder / "test.jsonl")}])
        self.keys: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text())
        self.write(max_eval_examples=4)

    def rows(self, rows: list[Any]) -> None:
        write_rows(self.folder / "test.jsonl", rows)

    def write(self, **changes: Any) -> None:
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump({**self.keys, **changes}))

    def evaluate(self) -> Path:
        how: dict[str, Any] = {"model": [str(self.model)], "max_completion_length": 4, "output_dir": self.folder}
        return evaluate("summarization", **how, config=str(self.folder / "recipe.yaml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("identity"))
    place.evaluate()
    return place


def change_weight(place: Place) -> None:
    path = place.model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_config(place: Place) -> None:
    path = place.model / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, 1]}))


def strip_record(place: Place) -> None:
    """As a version left it that recorded less."""
    path = place.folder / "eval" / "summarization.json"
    record = json.loads(path.read_text())
    del record["settings"]["asked"], record["recipe"]
    record["settings"]["contents"] = {str(place.model): "0123"}
    path.write_text(json.dumps(record))


TEMPLATE = "Hello. " + (BASE / "chat_template.jinja").read_text()
CHANGES: dict[str, tuple[Callable[[Place], object], list[str]]] = {
    "a row": (lambda p: p.rows([ROWS[5], *ROWS[1:4]]), ["examples: got 4 rows", "expected 4 rows"]),
    "the number of rows": (
        lambda p: p.write(max_eval_examples=3),
        ["expected 3 rows", f"recipe key MODEL.max_eval_examples: got 4, expected 3. {'Choose'}"],
    ),
    "the template": (
        lambda p: p.write(max_eval_examples=4, chat_template=TEMPLATE),
        ["tokenizer: got", "recipe key MODEL.chat_template: got nothing"],
    ),
    "the dtype": (
        lambda p: p.write(max_eval_examples=4, dtype="bfloat16"),
        ["loading.dtype: got float32, expected bfloat16"],
    ),
    "a weight": (change_weight, ["contents.MODEL: got"]),
    "stop tokens": (change_config, ["stop_tokens"]),
    "an older version": (strip_record, ["examples: got nothing, expected 4 rows", "contents.MODEL: got 0123"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(finished: Place, tmp_path: Path, name: str) -> None:
    change, words = CHANGES[name]
    record = finished.folder / "eval" / "summarization.json"
    before = record.read_bytes()
    files = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    change(finished)
    changed = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    try:
        with pytest.raises(ConfigError) as error:
            finished.evaluate()
        assert changed == {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    finally:
        for path, content in files.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
    said = "\n".join(error.value.errors)
    for word in words:
        assert word.replace("MODEL", str(finished.model)) in said, said
    assert all(message.startswith(f"{record}, ") for message in error.value.errors)
    assert record.read_bytes() == before


def test_what_changes_no_figure_is_not_compared(finished: Place, capsys: pytest.CaptureFixture[str]) -> None:
    record = finished.folder / "eval" / "summarization.json"
    before = record.read_bytes()
    finished.write(max_eval_examples=4, logging_steps=7, learning_rate=0.5, max_steps=9)
    finished.rows([*ROWS[:4], FILLER])  # those that are asked are the same
    (finished.model / "model.safetensors").touch()
    (finished.model / "notes.txt").write_text("a note")
    finished.evaluate()
    assert record.read_bytes() == before and "is complete" in capsys.readouterr().out


def test_other_samples_beside_the_figures(finished: Place) -> None:
    samples = finished.folder / "eval" / "summarization.samples.jsonl"
    before = samples.read_bytes()
    try:
        samples.write_bytes(before.replace(b'"tokens": 4', b'"tokens": 3'))
        with pytest.raises(ConfigError, match="samples.jsonl, content: got other answers"):
            finished.evaluate()
        samples.unlink()
        with pytest.raises(ConfigError, match="samples.jsonl, content: got no file"):
            finished.evaluate()
    finally:
        samples.write_bytes(before)
