"""Tables on disk: whole or not there, mapped rather than held, and named by all that determines them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value

from gapbridge import DataError, StoreError, build_examples, build_preferences
from gapbridge.data.arrow_files import (
    ROWS_PER_CHUNK,
    chunk_rows,
    content_fingerprint,
    in_memory,
    new_table,
    open_table,
    record_path,
    write_parts,
)
from gapbridge.data.example import ExampleSet, as_columns
from gapbridge.data.preferences import PreferenceSet
from gapbridge.data.serialization import load_saved_examples, save_examples
from gapbridge.tasks.word_problems import problems


FEATURES = Features({"id": Value("string"), "ids": List(Value("int32"))})
ROWS = [{"id": f"r{i}", "ids": list(range(i % 7))} for i in range(3 * ROWS_PER_CHUNK + 5)]


def write_rows(path: Path, error: Exception | None = None, **beside: Any) -> None:
    with new_table(path) as (file, record):
        write_parts(file, chunk_rows(ROWS, FEATURES), FEATURES.arrow_schema)
        record |= beside
        if error:
            raise error


def test_a_table_is_mapped_and_gives_back_its_rows_and_record(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "train-0.arrow"
    write_rows(path, seen=len(ROWS))
    table, record = open_table(path, check=True)
    assert list(table) == ROWS == list(in_memory(chunk_rows(ROWS, FEATURES), FEATURES))
    assert record["seen"] == len(ROWS)
    assert table.features == FEATURES and [file["filename"] for file in table.cache_files] == [str(path)]
    assert list(in_memory([], FEATURES)) == [] and in_memory([], FEATURES).features == FEATURES


def test_what_is_not_whole_is_not_there_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-0.arrow"
    with pytest.raises(DataError):
        write_rows(path, DataError("a bad row"))
    assert not record_path(path).exists(), "without its record the table is not there"
    write_rows(path)
    full = path.read_bytes()
    path.write_bytes(full[:-8])
    with pytest.raises(
        StoreError, match=r"train-0\.arrow: got a changed file.* Delete .*train-0\.arrow and train-0\.json"
    ):
        open_table(path)
    path.write_bytes(full[:-40] + bytes([full[-40] ^ 1]) + full[-39:])
    assert len(open_table(path)[0]) == len(ROWS), "a byte is not looked at by every process"
    with pytest.raises(StoreError, match="got a changed file, expected the one that was written"):
        open_table(path, check=True)
    record_path(path).write_text("{")
    with pytest.raises(StoreError, match=r"train-0\.json: got a damaged file"):
        open_table(path)


def test_data_have_a_fingerprint_of_their_values(tmp_path: Path) -> None:
    rows = [{"a": f"x{i}", "b": [i, None]} for i in range(1003)]
    data = Dataset.from_list(rows)
    told = content_fingerprint(data)
    assert told == content_fingerprint(Dataset.from_list(rows[::-1]).select(range(len(rows) - 1, -1, -1)))
    data.to_parquet(tmp_path / "data.parquet")
    assert told == content_fingerprint(Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path)))
    changed = [*rows[:-1], {"a": rows[-1]["a"], "b": [1002, 0]}]
    others = [Dataset.from_list(changed), data.rename_column("a", "c"), data.select(range(1000)), data.shuffle(seed=0)]
    assert len({told, *map(content_fingerprint, others)}) == len(others) + 1


def two_turns(tokenizer: Any) -> ExampleSet:
    a, b, c, d = (p.row() for p in problems("train", count=4, steps=(1,)))
    rows = [
        {"messages": a["prompt"] + a["completion"] + b["prompt"] + b["completion"]},
        {"messages": []},
        {"messages": c["prompt"] + c["completion"]},
        {"messages": d["prompt"] + d["completion"] + a["prompt"] + a["completion"]},
    ]
    stops = [tokenizer.eos_token_id]
    return build_examples(Dataset.from_list(rows), tokenizer, stops=stops, max_length=None, on_invalid_example="skip")


def preferences(tokenizer: Any) -> ExampleSet:
    data = Dataset.from_list([p.preference_row() for p in problems("train", count=4, steps=(1,))])
    return build_preferences(data, tokenizer, stops=[tokenizer.eos_token_id], max_length=None, date="2026-01-02")


def merging(tokenizer: Any) -> ExampleSet:
    data = Dataset.from_list([{"prompt": "the sky has ", "completion": "blue stones"}])
    return build_examples(data, tokenizer, stops=[tokenizer.eos_token_id], max_length=None)


@pytest.mark.parametrize("make", [two_turns, preferences, merging])
def test_examples_come_back_as_they_were(make: Any, tokenizer: Any, tmp_path: Path) -> None:
    examples, path = make(tokenizer), tmp_path / "train-0.arrow"
    save_examples(examples, path)
    opened = load_saved_examples(path, type(examples), check=True)
    assert list(opened) == list(examples) and opened.fingerprint() == examples.fingerprint()
    for entry in fields(examples):
        if entry.name != "table":
            assert vars(opened)[entry.name] == vars(examples)[entry.name]
    assert opened.table.features["prompt"] == List(Value("int32"))
    fewer = replace(opened, table=opened.table.select(range(len(opened) - 1)))
    assert fewer.fingerprint() != opened.fingerprint(), "a set that is made from it has its own"


@pytest.mark.parametrize("make", [two_turns, preferences, merging])
def test_the_fingerprint_is_that_of_earlier_versions(make: Any, tokenizer: Any) -> None:
    """Stores that are there name it; it is the hash of what `json.dumps` writes of each example."""
    examples = make(tokenizer)
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        more = as_columns(example)
        parts = [example.id, example.prompt, example.completion_ids, example.template_suffix_ids]
        parts += [value for value in (more["loss_mask"], more["generation_prompt_ids"]) if value]
        digest.update(json.dumps(parts).encode())
    if isinstance(examples, PreferenceSet):
        digest = hashlib.blake2b(digest.hexdigest().encode(), digest_size=16)
        digest.update(json.dumps(examples.table["rejected"][:]).encode())
    assert examples.fingerprint() == digest.hexdigest()
