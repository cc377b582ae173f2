"""Edit distance, character error rate and token F1, by hand and against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from gapbridge.evaluation.edits import character_error_rate, edit_distance, score_edits, token_f1


def _by_definition(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        _by_definition(a[1:], b) + 1, _by_definition(a, b[1:]) + 1, _by_definition(a[1:], b[1:]) + (a[0] != b[0])
    )


def test_distances() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = (rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == edit_distance(b, a) == _by_definition(a, b)
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
    scores = score_edits(["#### 14\n", "b"], ["#### 15", "a"])
    assert [(s.cer, s.token_f1) for s in scores] == [(pytest.approx(1 / 7), pytest.approx(0.8)), (1.0, 0.0)]
