"""Files of a run that were damaged between two starts, and two starts at once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import recipe, refused

from gapbridge import cli, files
from gapbridge.data.example import ExampleSet
from gapbridge.data.serialization import load_saved_examples
from gapbridge.errors import RunError, StoreError
from gapbridge.reporting.runs import write_report
from gapbridge.store.records import add_seconds, read_record, read_seconds
from gapbridge.training.artifact_cache import examples_cache
from gapbridge.training.checkpoints import COMPLETE_FILE, last_complete_checkpoint, missing_files
from gapbridge.training.run_files import read_run


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def holding(text: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(text)

    return damage


DAMAGES = {
    "cut": cut, "zeros": zeros, "empty": holding(""), "a list": holding("[1]"), "a number": holding("7"),
    "other keys": holding('{"a": 1}'), "null": holding("null"), "deep": holding("[" * 100_000),
    "no number": holding('{"seconds": "long", "tokens": [1]}'), "NaN": holding('{"seconds": NaN}'),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its finished run of two steps, with a checkpoint each."""
    folder = tmp_path_factory.mktemp("made")
    cli.main(["bash", *recipe(folder, max_steps=2, save_steps=1)])
    return folder


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Path:
    """The run as if it had been stopped before its model was saved."""
    run = shutil.copytree(made / "run", tmp_path / "run")
    shutil.rmtree(run / "round_1" / "model")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "state": "running"}))
    return run


def again(made: Path, run: Path) -> list[str]:
    return ["--config", str(made / "recipe.yaml"), "--output_dir", str(run)]


def test_every_file_of_a_checkpoint_is_compared(made: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(made / "run" / "round_1" / "checkpoint-2", tmp_path / "checkpoint-2")
    names = [path.name for path in checkpoint.iterdir() if path.name != COMPLETE_FILE]
    assert {"optimizer.pt", "rng_state.pth", "scheduler.pt", "model.safetensors", "trainer_state.json"} <= set(names)
    assert missing_files(checkpoint) is None
    for name in names:
        saved = (checkpoint / name).read_bytes()
        flipped(checkpoint / name)
        assert missing_files(checkpoint) == f"{name} is damaged: its sha256 differs from the recorded one"
        (checkpoint / name).write_bytes(saved)
    saved = (checkpoint / COMPLETE_FILE).read_bytes()
    for name, damage in DAMAGES.items():
        damage(checkpoint / COMPLETE_FILE)
        assert f"its {COMPLETE_FILE} is damaged" in str(missing_files(checkpoint)), name
        (checkpoint / COMPLETE_FILE).write_bytes(saved)
    older = json.loads(saved)
    del older["sha256"]
    (checkpoint / COMPLETE_FILE).write_text(json.dumps(older))
    assert missing_files(checkpoint) is None, "marks of older versions have sizes alone"


FILES = [pytest.param(name, marks=pytest.mark.nightly) for name in ("trainer_state.json", "config.json")]


@pytest.mark.parametrize("name", ["optimizer.pt", *FILES])
def test_the_older_whole_checkpoint_is_used(
    name: str, made: Path, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zeros(stopped / "round_1" / "checkpoint-2" / name)
    with caplog.at_level(logging.WARNING):
        cli.main(["bash", *again(made, stopped)])
    assert f"checkpoint-2: {name} is damaged" in caplog.text
    assert (stopped / "model.safetensors").read_bytes() == (made / "run" / "model.safetensors").read_bytes()
    assert last_complete_checkpoint(stopped / "round_1") == stopped / "round_1" / "checkpoint-2", "it was made again"


NOTES = ("round_1/timing.json", "round_1/_contexts/timing.json", "round_1/generation_stats.json", "data.json")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_report_leaves_damaged_notes_out(
    damage: Callable[[Path], None], stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*NOTES, "round_1/metrics.jsonl"):
        damage(stopped / name)
    write_report(stopped)
    assert "## Rounds" in (stopped / "report.md").read_text()
    for name in NOTES[:2]:
        assert read_seconds(stopped / name) is None and name in caplog.text
        add_seconds(stopped / name, 1.5)
        assert read_record(stopped / name) == {"seconds": 1.5}
    assert read_record(stopped / "none.json", is_needed=False) == {} == read_record(stopped / "none.json")


def test_a_run_with_damaged_notes_goes_on(made: Path, stopped: Path) -> None:
    for name in NOTES:
        cut(stopped / name)
    cli.main(["bash", *again(made, stopped)])
    assert all(read_record(stopped / name) for name in NOTES if "_contexts" not in name), "made again"
    assert read_run(stopped)["state"] == "complete"


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_records_are_named(name: str, made: Path, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = again(made, stopped)
    remaining = next(examples_cache().glob("train-*.json"))
    examples = stopped / remaining.name
    for suffix in (".json", ".arrow"):
        shutil.copy(remaining.with_suffix(suffix), examples.with_suffix(suffix))
    DAMAGES[name](examples)
    with pytest.raises(
        StoreError, match=rf"{examples.name}: got a damaged file \(.*\), .* Delete .*, which are made again"
    ):
        load_saved_examples(examples.with_suffix(".arrow"), ExampleSet)
    DAMAGES[name](stopped / "run.json")
    words = "run.json: got a damaged file ("
    if name in ("other keys", "no number", "NaN"):
        words = "run.json, settings: got no value, expected an object. Restore the file, or "
    assert words in refused(capsys, "bash", *options)
    assert words in refused(capsys, "report", str(stopped), "--output_dir", str(stopped / "page"))


@pytest.mark.parametrize("changes", [{"inputs": []}, {"date": "[]"}, {"state": "done"}, {"settings": 3}])
def test_records_of_another_shape_are_named(changes: dict[str, Any], stopped: Path) -> None:
    record = {**json.loads((stopped / "run.json").read_text()), **changes}
    (stopped / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        RunError, match=rf"run.json, {next(iter(changes))}: got .*, expected .*\. Restore the file, or "
    ):
        read_run(stopped)


def test_one_run_at_a_time(
    made: Path, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "_LOCK_LOOKS", 2)
    options = again(made, stopped)
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    with files.sole_user(stopped):
        for command in ("bash", "prepare"):
            assert "that another process is using, expected a free one" in refused(capsys, command, *options)
    assert before == {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    with pytest.raises(KeyError), files.sole_user(tmp_path / "a" / "b"):
        raise KeyError
    assert not (tmp_path / "a").exists()
    cli.main(["bash", *options])
