"""Edit distance, character error rate and token F1, by hand and against the definition."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gapbridge.evaluation.text_metrics import character_error_rate, edit_distance, score_edits, token_f1


def _by_definition(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        _by_definition(a[1:], b) + 1, _by_definition(a, b[1:]) + 1, _by_definition(a[1:], b[1:]) + (a[0] != b[0])
    )


def _by_rows(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row = row, [i]
        for j, y in enumerate(b):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (x != y)))
    return row[-1]


def test_long_texts_take_bounded_work() -> None:
    start = time.perf_counter()
    assert character_error_rate("ab" * 500_000, "ba" * 500) == pytest.approx(999)
    assert character_error_rate("漢字" * 40_000, "字漢x" * 10_000) > 1
    assert edit_distance([1] * 50_010, [1] * 50_000) == 10
    assert time.perf_counter() - start < 20


def test_distances() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = (rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == edit_distance(b, a) == _by_definition(a, b)
    for _ in range(20):  # more entries than a machine word has bits
        a, b = (rng.integers(0, 4, rng.integers(60, 200)).tolist() for _ in range(2))
        assert edit_distance(a, b) == _by_rows(a, b)
    assert edit_distance([*map(ord, "kitten")], [*map(ord, "sitting")]) == 3


@pytest.mark.parametrize(
    ("answer", "reference", "rate"),
    [
        ("abcd", "abcd", 0),
        ("abxd", "abcd", 0.25),
        ("", "abcd", 1),
        ("abcdabcd", "abcd", 1),
        ("é", "e", 1),
        ("", "", 0),
    ],
)
def test_character_error_rates(answer: str, reference: str, rate: float) -> None:
    assert character_error_rate(answer, reference) == rate


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("sat the cat", "the cat sat", 1.0),
        ("the the", "the", 2 / 3),
        ("The", "the", 0.0),
        ("4+3=7", "4 + 3 = 8", 0.8),  # signs are tokens, too
        ("", "the", 0.0),
        ("", "", 1.0),
    ],
)
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)


def test_scores_of_answers() -> None:
    scores = [score_edits("#### 14\n", "#### 15"), score_edits("b", "a")]
    assert [(s.cer, s.token_f1) for s in scores] == [(pytest.approx(1 / 7), pytest.approx(0.8)), (1.0, 0.0)]
