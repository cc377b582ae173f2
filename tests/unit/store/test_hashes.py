"""Hashes of whole files and of models: every byte counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapbridge.errors import RunError
from gapbridge.store.file_hashes import hash_file, hash_path


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0, 2**21, 2**22 - 1])
def test_every_byte_counts(tmp_path: Path, at: int) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_bytes(b"a" * 2**22)
    before = hash_path(path)
    flip(path, at)
    assert hash_path(path) != before


def model(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in {"config": "{}", **files}.items():
        (folder / f"{name}.json").write_text(content)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_what_makes_a_model(tmp_path: Path) -> None:
    place = model(tmp_path / "model")
    before = hash_path(place)
    (place / "report.md").write_text("a report")
    (place / "training_args.bin").write_text("how it was trained")
    (place / "model.safetensors").touch()
    assert hash_path(place.rename(tmp_path / "renamed")) == before
    changed = set()
    for name in ("model.safetensors", "config.json", "chat_template.jinja", "modeling_own.py", "tokenizer.json"):
        (tmp_path / "renamed" / name).write_text("other")
        changed.add(hash_path(tmp_path / "renamed"))
    assert len(changed | {before}) == 6


def test_an_adapter_has_a_base(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    adapter = model(tmp_path / "adapter", adapter_config=json.dumps({"base_model_name_or_path": str(base)}))
    before = hash_path(adapter)
    flip(base / "model.safetensors", 0)
    other = hash_path(adapter)
    flip(adapter / "model.safetensors", 0)
    assert len({before, other, hash_path(adapter)}) == 3
    for damaged in ("{", "[]", "{}", '{"base_model_name_or_path": null}'):
        (adapter / "adapter_config.json").write_text(damaged)
        assert hash_path(adapter)


def test_a_model_on_a_hub_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hash_path("owner/name") is None and hash_path("no/name/of/one") is None
    cached = tmp_path / "models--owner--name"
    found = set()
    for commit in ("1" * 40, "2" * 40):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / "main").write_text(commit)
        found.add(hash_path("owner/name"))
    assert len(found) == 2 and None not in found


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone, content: got No such file"):
        hash_file(tmp_path / "gone")
