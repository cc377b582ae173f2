"""Final answers, accuracy with its interval, and what a correction did."""

from __future__ import annotations

import numpy as np
import pytest

from gapbridge.evaluation.math import accuracy, correction_table, final_answer, is_correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3+4=7\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("#### $18.50", "18.5"),
        ("#### -3", "-3"),
        ("#### 007", "7"),
        ("#### 0", "0"),
        ("#### 5.00", "5"),
        ("#### 1 and then #### 2", "2"),
        ("the answer is 7", None),
        ("####", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_an_answer_without_a_number_is_wrong() -> None:
    assert is_correct("#### 12", "x\n#### 12.0") and not is_correct("12", "#### 12") and not is_correct("", "")


def test_accuracy_counts() -> None:
    result = accuracy(["#### 1", "#### 2", "none", "#### 4"], ["#### 1", "#### 2", "#### 3", "#### 5"])
    assert (result.mean, result.count, result.unparsed) == (0.5, 4, 1)
    assert result.low < 0.5 < result.high


def test_interval_covers_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        right = rng.random(200) < 0.6
        result = accuracy([f"#### {int(r)}" for r in right], ["#### 1"] * 200, resamples=500, seed=trial)
        covered += result.low <= 0.6 <= result.high
    assert 0.91 < covered / 300 < 0.985


def test_correction_table_counts_each_case() -> None:
    right, wrong = "#### 1", "#### 2"
    table = correction_table([right, right, wrong, wrong, wrong], [right, wrong, right, wrong, right], [right] * 5)
    assert vars(table) == {"wrong_to_right": 2, "right_to_wrong": 1, "right_to_right": 1, "wrong_to_wrong": 1}
