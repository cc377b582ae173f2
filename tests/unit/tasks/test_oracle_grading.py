"""`gapbridge eval --task word_problems`: problems made on the spot, and answers with the result first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from conftest import BASE
from helpers.commands import evaluate

from gapbridge.evaluation.aggregate import Group, grade_math
from gapbridge.tasks.word_problems import problems


def test_models_are_graded_on_problems_made_on_the_spot(tmp_path: Path) -> None:
    other = shutil.copytree(BASE, tmp_path / "other")
    options: dict[str, Any] = {"model": [str(BASE), str(other)], "max_examples": 4, "max_completion_length": 12}
    record = json.loads(evaluate("word_problems", **options, decoding_mode=["all"], output_dir=tmp_path).read_text())
    modes = [("single_pass", 4), ("self_correct", 4)]
    assert [(r["decoding_mode"], r["count"]) for r in record["results"]] == modes * 2
    assert record["corrections"][0]["wrong_to_wrong"] == 4
    assert [(r["metric"], r["difference"]["mean"]) for r in record["differences"]] == [("accuracy", 0)] * 2
    rows = [json.loads(line) for line in (tmp_path / "eval" / "word_problems.data.jsonl").read_text().splitlines()]
    assert rows == [problem.row() for problem in problems("test", count=400)]


REFERENCE = "#### 14\nBen: 4+3=<<4+3=7>>7\nAna: 7*2=<<7*2=14>>14"
WORKING = REFERENCE.partition("\n")[2]


GRADED = {
    REFERENCE: True,
    "#### 14": True,
    f"#### 14\n{WORKING.replace('7', '8')}": True,
    f"#### 13\n{WORKING}": False,
    f"#### 13\n{WORKING}\n#### 14": False,
    f"####\n{WORKING}": False,
    f"#### Ana\n{WORKING}": False,
    f"### 14\n{WORKING}": False,
    f"#### 1\n{WORKING}": False,
    WORKING: False,
    "": False,
}


def test_an_answer_first_is_graded_by_its_first_line() -> None:
    samples = [{"id": str(at), "reference": REFERENCE, "answer": answer} for at, answer in enumerate(GRADED)]
    groups = [Group("m", "single_pass", samples)]
    grade_math(groups, timeout=10, workers=1)
    assert dict(zip(GRADED, groups[0].values("correct"), strict=True)) == GRADED
