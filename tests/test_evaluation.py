"""Final answers, grades, intervals, files of answers, and `gapbridge eval` as a user runs it."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from gapbridge.errors import DataError
from gapbridge.evaluation.grading import grade_answers
from gapbridge.evaluation.math import correction_table, is_correct, marked_answer, number, same_answer
from gapbridge.evaluation.verification import verify_answers


RECIPE = "recipes/tiny/sft/config_full.yaml"


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        ("3+4=7\n#### 7", "7", "7"),
        ("#### 1,234", "1,234", "1234"),
        ("#### $18.50", "$18.50", "37/2"),
        ("#### -3", "-3", "-3"),
        ("#### -$3", "-$3", "-3"),
        ("#### 007", "007", "7"),
        ("#### 5.00", "5.00", "5"),
        ("#### .5", ".5", "1/2"),
        ("#### 3/4", "3/4", "3/4"),
        ("#### 18 eggs a day", "18 eggs a day", "18"),
        ("#### 1\nQuestion: more\n#### 2", "1", "1"),
        ("so she pays\nA: 90,000", "90,000", "90000"),
        ("A: Let us see. She has 2.\nSo\nA: 18", "18", "18"),
        ("Job A: 2000 hours, job B: 30\nA: 8400", "8400", "8400"),
        ("A: Let us see. The answer is 18.", "18.", "18"),
        ("**Answer:** 18", "18", "18"),
        ("Final Answer: The final answer is $18$. I hope so", "$18$. I hope so", "18"),
        ("so the answer is $1,080 dollars.", "$1,080 dollars.", "1080"),
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}", None),
        ("#### five", "five", None),
        ("#### 1/0", "1/0", None),
        ("####", "", None),
        ("she makes 7", None, None),
        (r"\boxed{1", None, None),
        ("", None, None),
    ],
)
def test_marked_answers(text: str, answer: str | None, value: str | None) -> None:
    assert marked_answer(text) == answer
    found = None if answer is None else number(answer)
    assert (None if found is None else str(found)) == value


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1,000", "1000", True),
        ("18.00", "18", True),
        ("$18", "18 dollars", True),
        ("20%", "20", True),
        (r"\frac12", r"\dfrac{1}{2}", True),
        (r"5 \text{ cm}", "5", True),
        (r"\text{east}", "east", True),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        ("x=5", "5", True),
        (r"2\sqrt3", r"2\sqrt{3}", True),
        ("2^3", "2", False),
        (r"2\pi", "2", False),
        ("1.2", "12", False),
        ("-3", "3", False),
        ("", "0", False),
    ],
)
def test_same_answer(first: str, second: str, same: bool) -> None:
    assert same_answer(first, second) is same and same_answer(second, first) is same


def test_an_answer_without_a_mark_is_no_exact_match() -> None:
    assert is_correct("#### 12", "x\n#### 12.0") and not is_correct("12", "#### 12") and not is_correct("", "#### 0")


def test_grades_put_both_judges_side_by_side() -> None:
    rows = [
        ("... so 16\n#### 18", "#### 18", (True, True, True)),
        ("A: 19", "#### 18", (False, False, False)),
        ("She makes $18 a day.", "#### 18", (True, False, True)),  # no mark: math-verify alone
        (r"\boxed{0.5}", r"so \boxed{\frac{1}{2}}", (True, False, True)),
        (r"\boxed{(3, \frac{\pi}{2})}", r"\boxed{\left( 3, \frac{\pi}{2} \right)}", (True, True, True)),
        ("", "#### 18", (False, False, False)),
        ("no idea", "7", (False, False, False)),
        ("#### 7", "7", (True, True, True)),  # a column that holds the final answer alone
    ]
    grades = grade_answers([answer for answer, _, _ in rows], [reference for _, reference, _ in rows])
    assert [(g.correct, g.exact, g.verified) for g in grades] == [expected for _, _, expected in rows]
    assert [g.marked for g in grades] == [True, True, False, True, True, False, False, True]
    assert [g.parsed for g in grades] == [True, True, True, True, True, False, False, True]
    with pytest.raises(DataError, match="row 1: the reference"):
        grade_answers(["1", "2"], ["#### 1", " "])


def test_an_endless_expression_costs_its_timeout_and_no_more() -> None:
    hard = r"\boxed{9^{9^{9^{9}}}}"
    verdicts = verify_answers([hard, "7", hard, "8"], ["3", "7", "3", "8"], timeout=3)
    assert [v.timed_out for v in verdicts] == [True, False, True, False]
    assert [v.correct for v in verdicts] == [False, True, False, True]


def test_correction_table_counts_each_case() -> None:
    table = correction_table([True, True, False, False, False], [True, False, True, False, True])
    assert vars(table) == {"wrong_to_right": 2, "right_to_wrong": 1, "right_to_right": 1, "wrong_to_wrong": 1}


def test_grades_agree_with_published_marks() -> None:
    """Unusual final answers of the model solutions that came with GSM8K (Cobbe et al. 2021), with their marks."""
    rows = [json.loads(line) for line in (ROOT / "tests" / "data" / "gsm8k_marks.jsonl").read_text().splitlines()]
    grades = grade_answers([row["answer"] for row in rows], [row["reference"] for row in rows])
    assert len(rows) > 100
    assert [row for row, grade in zip(rows, grades, strict=True) if grade.correct != row["is_correct"]] == []
