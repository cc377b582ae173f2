"""Word problems: what validation is apart from, the order of result and working, and rows that stay as they are."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

from gapbridge.errors import ConfigError
from gapbridge.tasks.__main__ import main
from gapbridge.tasks.word_problems import problems, word_problem_split


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["--split", "train", "--count", "2000"], "train"),
        (["--split", "test", "--count", "400"], "test"),
        (["--order", "answer_first", "--split", "train", "--count", "2000"], "answer_first_train"),
        (["--order", "answer_first", "--split", "test", "--count", "400"], "answer_first_test"),
        (["--form", "preferences", "--seed", "1", "--split", "train", "--count", "384"], "preferences_train"),
        (["--form", "preferences", "--seed", "1", "--split", "test", "--count", "64"], "preferences_test"),
    ],
)
def test_embedded_rows_stay_as_they_are(options: list[str], file: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    main(["word_problems", "--validation", "overlapping", *options, "--output", str(path)])
    shipped = ROOT / "recipes" / "tiny" / "data" / f"{file}.jsonl"
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(shipped.read_bytes()).digest()


def test_validation_is_taken_from_training_alone() -> None:
    assert list(problems("test", count=80, validation_apart=True)) == list(problems("test", count=80))
    plain = list(problems("train", count=300, steps=(1,)))
    apart = list(problems("train", count=300, steps=(1,), validation_apart=True))
    assert {word_problem_split(problem.steps, validation_apart=True) for problem in plain} == {"train", "validation"}
    assert {word_problem_split(problem.steps, validation_apart=True) for problem in apart} == {"train"}
    for old, new in zip(plain, apart, strict=True):  # only what belongs to validation is drawn again
        assert (old == new) == (word_problem_split(old.steps, validation_apart=True) == "train")
    held_out = list(problems("validation", count=300, steps=(1,)))
    assert {word_problem_split(problem.steps, validation_apart=True) for problem in held_out} == {"validation"}


def test_validation_shares_no_computation_with_the_embedded_training_problems() -> None:
    """By chance, not by construction: they are older than the split."""

    def computations(split: str, count: int) -> set[tuple[str, ...]]:
        return {
            tuple(f"{step.left}{step.operator}{step.right}" for step in problem.steps)
            for problem in problems(split, count=count)
        }

    assert not computations("train", 2000) & computations("validation", 400)


def test_the_order_changes_nothing_else() -> None:
    for first, last in zip(problems("test", count=40, order="answer_first"), problems("test", count=40), strict=True):
        lines = first.answer.splitlines()
        assert (first.id, first.prompt, first.steps) == (last.id, last.prompt, last.steps)
        assert lines[0] == f"#### {last.result}" and "\n".join([*lines[1:], lines[0]]) == last.answer
        wrong = first.preference_row()["rejected"][0]["content"].splitlines()
        assert wrong[0] == f"#### {last.wrong_steps()[-1].result}" and len(wrong) == len(lines)


def test_rows_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    asked = ["--split", "validation", "--count", "3", "--steps", "1", "2", "--order", "answer_first"]
    main(["word_problems", *asked, "--output", str(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [p.row() for p in problems("validation", count=3, steps=(1, 2), order="answer_first")]
    with pytest.raises(SystemExit) as stopped:
        main(["word_problems", *asked, "--steps", "9", "--output", str(tmp_path / "none.jsonl")])
    assert stopped.value.code == 2 and "expected numbers from 1 to 6" in capsys.readouterr().err
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(ConfigError, match="4 errors"):
        list(problems("dev", count=-1, steps=(), order="random"))


def test_the_example_in_the_docs_is_what_the_command_makes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "tasks.md").read_text()
    example = r"    python -m gapbridge\.tasks ([^\n]*) --output row\.jsonl\n\n```\n(.*?)\n\n(.*?)\n```"
    ((command, prompt, answer),) = re.findall(example, page, re.S)
    main([*command.split(), "--output", str(tmp_path / "row.jsonl")])
    row = json.loads((tmp_path / "row.jsonl").read_text())
    assert (row["prompt"][0]["content"], row["completion"][0]["content"]) == (prompt, answer)
