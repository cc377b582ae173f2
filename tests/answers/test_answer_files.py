"""Files of ready answers: every fault with its line, several answers to one problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapbridge.answers.files import read_answers
from gapbridge.errors import DataError


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_faults_of_an_answer_file_are_listed_at_once(tmp_path: Path) -> None:
    good = {"id": 1, "prompt": "p", "reference": "#### 1", "answer": "#### 1"}
    rows = [good, "{", "[]", {"id": 2}, {**good, "answer": None}, {**good, "reference": ""}, {**good, "mark": "yes"}]
    path = _write(tmp_path / "answers.jsonl", rows)
    with pytest.raises(DataError) as error:
        read_answers(path, label="mark")
    assert len(error.value.faults) == 7
    for line, part in (("line 2", "is no JSON"), ("line 4", "has no 'reference'"), ("line 7", "mark is 'yes'")):
        assert any(line in fault and part in fault for fault in error.value.faults)
    with pytest.raises(DataError, match="no such file"):
        read_answers(tmp_path / "nothing.jsonl")


def test_several_answers_to_a_problem_are_told_apart(tmp_path: Path) -> None:
    good = {"id": "a", "reference": "#### 1", "answer": "#### 1"}
    samples = read_answers(_write(tmp_path / "answers.jsonl", [good, good, "", {**good, "id": "b"}]))
    assert [sample["id"] for sample in samples] == ["a", "a#2", "b"]
