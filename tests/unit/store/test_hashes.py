"""Hashes of whole files: every byte counts, and a file is read once as long as nothing says that it changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gapbridge.errors import RunError
from gapbridge.store import file_hashes
from gapbridge.store.file_hashes import FileHashes


LONG_AGO = 10**18  # nanoseconds


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read, in turn; none counts as young."""
    found: list[Path] = []

    def counted(path: Path) -> str:
        found.append(path)
        return full(path)

    full = file_hashes.sha256
    monkeypatch.setattr(file_hashes, "sha256", counted)
    monkeypatch.setattr(file_hashes, "_YOUNG", -(10**12))
    return found


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0, 2**21, 2**22 - 1])
def test_every_byte_counts(tmp_path: Path, at: int) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_bytes(b"a" * 2**22)
    before = FileHashes().of(path)
    flip(path, at)
    assert FileHashes().of(path) != before


def test_a_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"a" * 100)
    first = FileHashes()
    digest = first.file(path)
    assert first.file(path) == digest and len(reads) == 1
    known = json.loads(json.dumps(first.record()))
    later = FileHashes(known)
    assert later.file(path) == digest and len(reads) == 1 and later.record() == first.record()
    os.utime(path, ns=(LONG_AGO, LONG_AGO))  # the content is the same, and is looked at again
    assert FileHashes(known).file(path) == digest and len(reads) == 2
    flip(path, 50)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))  # put back after a change
    assert FileHashes(known).file(path) != digest


def test_a_young_file_is_read_again(tmp_path: Path) -> None:
    """Between two ticks of the file system's clock a file can change without another time."""
    path = tmp_path / "young"
    path.write_bytes(b"a")
    found = FileHashes()
    assert found.file(path) and found.record() == {}


@pytest.mark.parametrize("known", [None, [1], "files", {"PATH": 3}, {"PATH": ["x", "y"]}, {"PATH": [[1, 2, 3, 4], 5]}])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, known: object) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a")
    named = {str(path): next(iter(known.values()))} if isinstance(known, dict) else known
    assert FileHashes(named).file(path) == FileHashes().file(path)
    (tmp_path / "record.json").write_text(json.dumps({"files": named}))
    assert FileHashes.of_record(tmp_path / "record.json").file(path) == FileHashes().file(path)
    for content in ("", "[]", "{", '{"files": 1}'):
        (tmp_path / "record.json").write_text(content)
        assert FileHashes.of_record(tmp_path / "record.json").record() == {}


def model(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in {"config": "{}", **files}.items():
        (folder / f"{name}.json").write_text(content)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_what_makes_a_model(tmp_path: Path) -> None:
    place = model(tmp_path / "model")
    before = FileHashes().of(place)
    (place / "report.md").write_text("a report")
    (place / "training_args.bin").write_text("how it was trained")
    (place / "model.safetensors").touch()
    assert FileHashes().of(place.rename(tmp_path / "renamed")) == before
    changed = set()
    for name in ("model.safetensors", "config.json", "chat_template.jinja", "modeling_own.py", "tokenizer.json"):
        (tmp_path / "renamed" / name).write_text("other")
        changed.add(FileHashes().of(tmp_path / "renamed"))
    assert len(changed | {before}) == 6


def test_an_adapter_has_a_base(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    adapter = model(tmp_path / "adapter", adapter_config=json.dumps({"base_model_name_or_path": str(base)}))
    before = FileHashes().of(adapter)
    flip(base / "model.safetensors", 0)
    other = FileHashes().of(adapter)
    flip(adapter / "model.safetensors", 0)
    assert len({before, other, FileHashes().of(adapter)}) == 3
    for damaged in ("{", "[]", "{}", '{"base_model_name_or_path": null}'):
        (adapter / "adapter_config.json").write_text(damaged)
        assert FileHashes().of(adapter)


def test_a_model_on_a_hub_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert FileHashes().of("owner/name") is None and FileHashes().of("no/name/of/one") is None
    cached = tmp_path / "models--owner--name"
    found = set()
    for commit in ("1" * 40, "2" * 40):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / "main").write_text(commit)
        found.add(FileHashes().of("owner/name"))
    assert len(found) == 2 and None not in found


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone, content: got No such file"):
        FileHashes().file(tmp_path / "gone")
