"""The context store: atomic shards, a manifest last, and a refusal by name for everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gapbridge import StoreError
from gapbridge.files import atomic_file
from gapbridge.methods.bash.mixed_contexts import CONTEXT_SCHEMA
from gapbridge.store.context_store import ContextStore


IDENTITY = {"method": "bash", "mixture_coefficient": 0.2, "seed": 3, "weights": "abc", "suppress_tokens": [1, 2]}


def make(folder: Path, **changes: Any) -> ContextStore:
    return ContextStore(
        folder / "contexts", {**IDENTITY, **changes}, num_examples=10, shard_size=4, schema=CONTEXT_SCHEMA
    )


def fill(store: ContextStore, shards: list[int] | None = None) -> ContextStore:
    for shard in shards if shards is not None else range(store.num_shards):
        rows = range(*store.shard_ranges[shard])
        columns = {
            "id": [f"e{i}" for i in rows],
            "tokens": [[i, i + 1, 5] for i in rows],
            "sampled": [[True, False, False] for _ in rows],
        }
        store.write_shard(shard, columns)
    return store


def test_write_and_read(tmp_path: Path) -> None:
    store = fill(make(tmp_path))
    assert store.num_shards == 3 and not store.is_complete() and store.missing_shards() == []
    store.finish()
    read = [shard.to_pydict() for shard in make(tmp_path).read()]
    assert [i for shard in read for i in shard["id"]] == [f"e{i}" for i in range(10)]
    assert read[2]["tokens"] == [[8, 9, 5], [9, 10, 5]] and read[0]["sampled"][0] == [True, False, False]
    manifest = json.loads(store.manifest_path.read_text())
    assert manifest["identity"]["format_version"] == 2 and [s["rows"] for s in manifest["shards"]] == [4, 4, 2]


def test_same_contexts_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = fill(make(tmp_path / "a")), fill(make(tmp_path / "b"), [2, 0, 1])
    for shard in range(3):
        assert first.shard_paths[shard].read_bytes() == second.shard_paths[shard].read_bytes()


def test_resume_makes_what_is_missing(tmp_path: Path) -> None:
    fill(make(tmp_path), [1])
    store = make(tmp_path)
    assert store.missing_shards() == [0, 2]
    fill(store, [0, 2]).finish()
    assert len(list(store.read())) == 3


def test_unfinished_store_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="got no manifest.json, since generation did not finish"):
        list(fill(make(tmp_path)).read())
    with pytest.raises(StoreError, match="shard-00002-of-00003.parquet: got no file"):
        fill(make(tmp_path / "b"), [0, 1]).finish()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mixture_coefficient": 0.3}, "mixture_coefficient: got contexts that were made with 0.2, expected 0.3"),
        ({"weights": "xyz"}, "weights: got contexts that were made with 'abc', expected 'xyz'"),
        ({"temperature": 1.0}, "temperature: got contexts that were made with None, expected 1.0"),
    ],
)
def test_changed_options_are_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    store = fill(make(tmp_path), [0])
    with pytest.raises(StoreError, match=words):
        make(tmp_path, **change).missing_shards()
    fill(store, [1, 2]).finish()
    with pytest.raises(StoreError, match=words):
        make(tmp_path, **change).is_complete()
    with pytest.raises(StoreError, match="num_examples: got contexts that were made with 10, expected 7"):
        ContextStore(store.directory, IDENTITY, num_examples=7, shard_size=4, schema=CONTEXT_SCHEMA).missing_shards()


def test_truncated_shard_is_refused(tmp_path: Path) -> None:
    store = fill(make(tmp_path))
    path = store.shard_paths[1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="shard-00001-of-00003.parquet: got a truncated or damaged file"):
        store.missing_shards()
    path.unlink()
    assert store.missing_shards() == [1]


def test_flipped_byte_is_found_before_and_after_the_manifest(tmp_path: Path) -> None:
    store = fill(make(tmp_path))
    path = store.shard_paths[0]
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreError, match="shard-00000-of-00003.parquet"):
        store.missing_shards()
    fill(store, [0]).finish()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="sha256: got another hash"):
        list(make(tmp_path).read())


def test_missing_shard_of_a_complete_store_is_refused(tmp_path: Path) -> None:
    store = fill(make(tmp_path))
    store.finish()
    store.shard_paths[2].unlink()
    with pytest.raises(StoreError, match="shard-00002-of-00003.parquet: got no file"):
        list(make(tmp_path).read())


def test_damaged_manifest_is_refused(tmp_path: Path) -> None:
    store = fill(make(tmp_path))
    store.finish()
    store.manifest_path.write_text(store.manifest_path.read_text()[:50])
    with pytest.raises(StoreError, match="manifest.json: got a damaged file"):
        store.is_complete()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    store = fill(make(tmp_path), [0])
    pq.write_table(pq.read_table(store.shard_paths[0]).replace_schema_metadata({}), store.shard_paths[1])
    with pytest.raises(StoreError, match="expected a shard of a context store"):
        store.missing_shards()


def test_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(StoreError, match="got 1 contexts, expected 4"):
        store.write_shard(0, {"id": ["a"], "tokens": [[1]], "sampled": [[False]]})
