"""`gapbridge eval` of procedural tasks: the oracle grades models and ready answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import write_rows
from helpers.commands import evaluate

from gapbridge.evaluation.aggregate import Group, grade_math, summarize_group
from gapbridge.evaluation.command import print_results
from gapbridge.tasks.procedural import Problem
from gapbridge.tasks.task import PROCEDURAL, TASKS


def ready(tmp_path: Path, problems: list[Problem], answers: list[str], *, prompts: bool = True) -> Path:
    rows: list[Any] = []
    for problem, answer in zip(problems, answers, strict=True):
        row = problem.row()
        rows.append({"id": problem.id, "reference": problem.answer, "answer": answer})
        rows[-1] |= {"prompt": row["prompt"]} if prompts else {}
    return Path(write_rows(tmp_path / "completions.jsonl", rows))


@pytest.mark.parametrize("name", sorted(set(PROCEDURAL) - {"word_problems"}))
def test_the_oracle_grades_ready_answers(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = list(PROCEDURAL[name].problems("test", count=6))
    wrong = ["", "Nothing."]
    path = ready(tmp_path, problems, [problem.answer for problem in problems[:4]] + wrong)
    record = json.loads(evaluate(name, completions_file=[path], output_dir=tmp_path).read_text())
    result = record["results"][0]
    assert result["accuracy"]["mean"] == pytest.approx(4 / 6)
    for measure in set(PROCEDURAL[name].measures) - {"correct"}:
        assert 0 <= result[measure]["low"] <= result[measure]["high"] <= 1
    samples = [json.loads(line) for line in (tmp_path / "eval" / f"{name}.samples.jsonl").read_text().splitlines()]
    assert [sample["correct"] for sample in samples] == [True] * 4 + [False] * 2
    said = capsys.readouterr().out

    assert all(word in said for word in ("accuracy", "95 % interval", "66.67"))


def test_a_page_in_the_prompt_tells_needless_from_false(tmp_path: Path) -> None:
    """Prompts as messages or text; and page summaries have ROUGE beside the facts."""
    prompt = "Sum up the home, work and deeds of Ana in one sentence.\nAna has a dog. Ana met Ben."
    problem = Problem("1", prompt, "Ana met Ben.")
    answer = ["Ana met Ben and has a dog."]
    path = ready(tmp_path, [problem], answer)
    record = json.loads(evaluate("page_summaries", completions_file=[path], output_dir=tmp_path / "a").read_text())
    assert record["results"][0]["false_facts"]["mean"] == 0
    assert record["results"][0]["rouge1"]["mean"] == pytest.approx(2 * 3 / (3 + 7))
    path = ready(tmp_path, [problem], answer, prompts=False)
    record = json.loads(evaluate("page_summaries", completions_file=[path], output_dir=tmp_path / "b").read_text())
    assert record["results"][0]["false_facts"]["mean"] == 0.5 and record["results"][0]["facts_kept"]["mean"] == 1


def test_models_are_graded_on_problems_made_on_the_spot(tmp_path: Path) -> None:
    other = shutil.copytree(BASE, tmp_path / "other")
    options: dict[str, Any] = {"model": [str(BASE), str(other)], "max_examples": 4, "max_completion_length": 12}
    record = json.loads(evaluate("page_summaries", **options, decoding_mode=["all"], output_dir=tmp_path).read_text())
    assert [(r["decoding_mode"], r["count"]) for r in record["results"]] == [
        ("single_pass", 4),
        ("self_correct", 4),
    ] * 2
    assert record["corrections"][0]["wrong_to_wrong"] == 4
    assert [(r["metric"], r["difference"]["mean"]) for r in record["differences"]] == [("accuracy", 0)] * 2
    rows = [json.loads(line) for line in (tmp_path / "eval" / "page_summaries.data.jsonl").read_text().splitlines()]
    assert rows == [problem.row() for problem in PROCEDURAL["page_summaries"].problems("test", count=400)]


def test_every_procedural_task_can_be_evaluated() -> None:
    assert set(PROCEDURAL) <= set(TASKS)
    assert all(TASKS[name].has_data and TASKS[name].grader in ("math", name) for name in PROCEDURAL)


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


def test_tables_of_oracles_fit_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    for name, task in PROCEDURAL.items():
        sample = {"id": "1", "tokens": 3, "truncated": True, "rouge1": 1.0, "rougeL": 1.0}
        sample |= dict.fromkeys(task.measures, 1.0)
        groups = [Group("outputs/tiny-sft", mode, [sample] * 1000) for mode in ("single_pass", "self_correct")]
        print_results(
            {
                "task": name,
                "results": [summarize_group(g, name) for g in groups],
                "corrections": [],
                "differences": [],
            }
        )
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, printed)) <= 100 and sum("tiny-sft (self_correct)" in line for line in printed) == len(
        PROCEDURAL
    )
    assert not any("…" in line for line in printed)
