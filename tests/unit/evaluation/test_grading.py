"""The grade of a worked answer: a table of verdicts as a careful teacher gives them, GSM8K's own answers, timeouts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from gapbridge.errors import DataError
from gapbridge.evaluation.answer_extraction import marked_answer
from gapbridge.evaluation.grading import Grade, grade_answers
from gapbridge.evaluation.math import is_correct
from gapbridge.evaluation.math_verify_pool import verify, verify_answers
from gapbridge.evaluation.units import quantity


GSM8K = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
Row = tuple[str, str, bool]


def _text(text: str | list[tuple[str, int]]) -> str:
    """A text; of a long one the file holds pieces, each with how often it stands there."""
    return text if isinstance(text, str) else "".join(piece * times for piece, times in text)


def _rows(*, limits: bool) -> list[Row]:
    """Of the file: a line has `group`, `answer`, `reference`, `correct` as a teacher says, and sometimes a `note`. In
    the group `limits` the grader's verdict is not the teacher's."""
    lines = map(json.loads, (ROOT / "tests" / "data" / "grades.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        (_text(line["answer"]), _text(line["reference"]), line["correct"])
        for line in lines
        if (line["group"] == "limits") == limits
    ]


TABLE, LIMITS = _rows(limits=False), _rows(limits=True)


def _grades(rows: list[Row]) -> list[Grade]:
    return grade_answers([answer for answer, _, _ in rows], [reference for _, reference, _ in rows])


def test_verdicts_are_a_careful_teachers() -> None:
    assert len(set(TABLE)) == len(TABLE) > 600
    grades = _grades([*TABLE, *LIMITS])
    wrong = [row for row, grade in zip(TABLE, grades, strict=False) if grade.correct is not row[2]]
    assert wrong == []
    assert not any(grade.timed_out for grade in grades)
    mended = [row for row, grade in zip(LIMITS, grades[len(TABLE) :], strict=True) if grade.correct is row[2]]
    assert mended == [], "known limits that are none any more: move them into the table"


def test_grades_put_both_judges_side_by_side() -> None:
    rows: list[tuple[str, str, tuple[bool, bool, bool]]] = [
        ("... so 16\n#### 18", "#### 18", (True, True, True)),
        ("A: 19", "#### 18", (False, False, False)),
        ("She makes $18 a day.", "#### 18", (True, False, True)),  # no mark: math-verify alone
        ("9 + 9 = 18", "#### 18", (True, False, True)),  # no mark, but an answer and nothing else
        (r"\boxed{0.5}", r"so \boxed{\frac{1}{2}}", (True, True, True)),
        (r"\boxed{x+1}", r"\boxed{1+x}", (True, False, True)),
        (r"\boxed{2516}", r"\boxed{2516_8}", (False, False, True)),  # math-verify knows no bases
        (r"\boxed{(3, \frac{\pi}{2})}", r"\boxed{\left( 3, \frac{\pi}{2} \right)}", (True, True, True)),
        ("", "#### 18", (False, False, False)),
        ("no idea", "7", (False, False, False)),
        ("#### 7", "7", (True, True, True)),  # a column that holds the final answer alone
    ]
    grades = grade_answers([answer for answer, _, _ in rows], [reference for _, reference, _ in rows])
    assert [(g.correct, g.exact, g.verified) for g in grades] == [expected for _, _, expected in rows]
    assert [g.marked for g in grades] == [answer[:1] in ("\\", "#", ".", "A") for answer, _, _ in rows]
    with pytest.raises(DataError, match="row 1: got the empty reference ' ', expected an answer"):
        grade_answers(["1", "2"], ["#### 1", " "])


def test_an_endless_expression_costs_its_timeout_and_no_more() -> None:
    hard = r"\boxed{9^{9^{9^{9}}}}"
    verdicts = verify_answers([hard, "7", hard, "8"], ["3", "7", "3", "8"], timeout=3)
    assert [v.timed_out for v in verdicts] == [True, False, True, False]
    assert [v.correct for v in verdicts] == [False, True, False, True]


ENDLESS = """
from gapbridge.evaluation.math_verify_pool import verify_answers
if __name__ == "__main__":
    verify_answers([r"\\boxed{9^{9^{9^{9}}}}", "1"], ["3", "1"], timeout=30)
"""


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Also one in a power that lets no other thread run."""
    script = tmp_path / "grade.py"
    script.write_text(ENDLESS)
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    workers: list[psutil.Process] = []
    while not any(worker.cpu_times().user > 1.5 for worker in workers if worker.is_running()):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
        workers = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=40)
    assert alive == []


@pytest.mark.parametrize(
    ("answer", "reference"), [("1/0", "2/0"), (r"$\frac{1}{0}$", r"$\frac{2}{0}$"), ("6:00", "7:00")]
)
def test_divisions_by_zero_are_equal_to_nothing(answer: str, reference: str) -> None:
    assert not verify(answer, reference).correct


def test_grades_agree_with_published_marks() -> None:
    """Unusual final answers of the model solutions that came with GSM8K (Cobbe et al. 2021), with their marks."""
    rows = [json.loads(line) for line in (ROOT / "tests" / "data" / "gsm8k_marks.jsonl").read_text().splitlines()]
    grades = grade_answers([row["answer"] for row in rows], [row["reference"] for row in rows])
    assert len(rows) > 100
    assert [row for row, grade in zip(rows, grades, strict=True) if grade.correct != row["is_correct"]] == []


@pytest.mark.nightly  # 8,000 gradings
@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K's files are not beside the repository")
def test_gsm8k_references_are_right_for_themselves_and_wrong_for_others() -> None:
    references = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]
    assert len(references) == 1319
    values = [quantity(marked_answer(reference) or "") for reference in references]
    numbers = [value.value for value in values if value is not None]
    assert len(numbers) == len(references)
    others = [references[-1], *references[:-1]]
    grades = grade_answers(references + others, references * 2)
    same = [True] * len(references) + [a == b for a, b in zip(numbers, [numbers[-1], *numbers[:-1]], strict=True)]
    assert [grade.correct for grade in grades] == same
    for form in ("**Answer:**\n{}", "#### Solution\nWe add.\nThe answer is {} + 0 = {}.", "so $\\boxed{{{}}}$"):
        for shift in (0, 1):
            answers = [form.format(*[value + shift] * 2) for value in numbers if value is not None]
            right = [is_correct(answer, reference) for answer, reference in zip(answers, references, strict=True)]
            assert right == [not shift] * len(references)
