"""Files of ready answers: every error with its line, several answers to one problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapbridge.errors import DataError
from gapbridge.generation.completion_files import read_answers


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_faults_of_an_answer_file_are_listed_at_once(tmp_path: Path) -> None:
    good = {"id": 1, "prompt": "p", "reference": "#### 1", "answer": "#### 1"}
    rows = [good, "{", "[]", {"id": 2}, {**good, "answer": None}, {**good, "reference": ""}]
    path = _write(tmp_path / "completions.jsonl", rows)
    with pytest.raises(DataError) as error:
        read_answers(path)
    assert len(error.value.errors) == 5
    for line, part in (("line 2", "got no JSON"), ("line 4", "got no 'reference'")):
        assert any(line in message and part in message for message in error.value.errors)
    with pytest.raises(DataError, match="no such file"):
        read_answers(tmp_path / "nothing.jsonl")


def test_several_answers_to_a_problem_are_told_apart(tmp_path: Path) -> None:
    good = {"id": "a", "reference": "#### 1", "answer": "#### 1"}
    samples = read_answers(_write(tmp_path / "completions.jsonl", [good, good, "", {**good, "id": "b"}]))
    assert [sample["id"] for sample in samples] == ["a", "a#2", "b"]


def test_a_made_up_id_is_no_id_of_the_file(tmp_path: Path) -> None:
    good = {"reference": "#### 1", "answer": "#### 1"}
    ids: list[str | int] = ["a", "a", "a#2", "a", "b#2", "b", "b", 1, "1"]
    samples = read_answers(_write(tmp_path / "completions.jsonl", [{**good, "id": key} for key in ids]))
    found = [str(sample["id"]) for sample in samples]
    assert len(set(found)) == len(found) and [found[at] for at in (0, 1, 4, 5, 7)] == ["a", "a#2", "b#2", "b", "1"]


@pytest.mark.parametrize(
    "line",
    ['{"id": 1, "reference": "a", "answer": "\\ud800"}', '{"id": "\\ud800", "reference": "a", "answer": "b"}',
     '{"reference": "a", "answer": "b", "prompt": [{"role": "user", "content": "\\udfff"}]}',
     '{"reference": ' + "9" * 5000 + ', "answer": "b"}', '{"reference": NaN, "answer": "b"}',
     '{"reference": 1e999, "answer": "b"}', '{"reference": "a", "answer": "b", "x": ' + "[" * 9999 + "]" * 9999 + "}",
     '{"reference": "a", "answer": "b", "prompt": [1]}', '{"reference": "a", "answer": ["b"]}',
     '{"reference": true, "answer": "b"}', '{"reference": "a", "answer": "b", "id": null}', "7", "null",
     b'{"reference": "a", "answer": "\xff"}'],
)  # fmt: skip
def test_odd_lines_are_named(line: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    encoded = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(b'{"reference": "a", "answer": "b"}\n' + encoded + b"\n")
    with pytest.raises(DataError) as error:
        read_answers(path)
    (message,) = error.value.errors
    assert message.startswith(f"{path}, line 2, ") and len(message) < len(str(path)) + 300
