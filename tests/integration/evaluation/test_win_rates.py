"""Win rates: what a reply says, every outcome counted, length controlled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.judge_server import Reply, Serve, answers, better, counts, endpoint, serving, some_pairs
from scipy.optimize import minimize

from gapbridge.errors import ConfigError
from gapbridge.evaluation.judge.prompt_templates import Template, load_template, read_verdict
from gapbridge.evaluation.judge.winrate import (
    Pair,
    PairVerdict,
    judge_pairs,
    length_controlled_rate,
    summarize_verdicts,
)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with serving(monkeypatch) as start:
        yield start


# What a reply says


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "A"),
        ("A is fine.\n\n**Verdict:** B.", "B"),
        ("verdict: [[Tie]]", "tie"),
        ("Verdict:\n“A”\n", "A"),
        ("Verdict: Answer B", "B"),
        ("Verdict: A\nOn second thought.\nVerdict: B", "B"),
        ("<think>Verdict: A?</think> Verdict : A", "A"),
        ("Verdict: A\nVerdict: both", None),
        ("Verdict: <A, B or tie>", None),
        ("Verdict: A or B", None),
        ("Verdict: A is better", None),
        ("The verdict is A", None),
        ("My preverdict: A", None),
        ("Verdict:", None),
        ("A", None),
        ("", None),
    ],
)
def test_verdicts_are_read(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


def test_the_summary_prompt_has_the_layout_of_the_literature() -> None:
    assert "Preferred:" in load_template("tldr").text
    assert read_verdict('Comparison: A is vague. Preferred: "B"') == "B"
    assert read_verdict('Comparison: Both are fine.\nPreferred: "A" or "B"') is None


def test_braces_in_texts_stay() -> None:
    for name in ("tldr", "general_qa"):
        filled = load_template(name).fill("{second} {x}", "{prompt}{{}}", r"\1 {first}")
        assert all(f"\n{text}\n" in filled for text in ("{second} {x}", "{prompt}{{}}", r"\1 {first}"))
        assert "#!" not in filled
    assert Template("own", 'say {"v": 1} {first}|{second}|{prompt}').fill("p", "f", "s") == 'say {"v": 1} f|s|p'


def test_templates_are_files_and_their_faults_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("#! mine\n{prompt}|{first}|{second}\nVerdict: A or B\n")
    assert load_template(path).text == "{prompt}|{first}|{second}\nVerdict: A or B"
    path.write_text("{prompt} {answer} {reference}")
    with pytest.raises(ConfigError, match="3 errors") as caught:
        load_template(path)
    assert "got no {first}, but {answer}, {reference}, expected all placeholders" in caught.value.errors[0]
    assert "got no word before the verdict, expected `Verdict:` or `Preferred:`" in caught.value.errors[2]
    path.write_bytes(b"\xff{prompt}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_template(path)
    with pytest.raises(ConfigError, match="expected one of general_qa, tldr, or a file"):
        load_template("tdlr")


# What is counted


def test_both_orders_are_asked_once_and_a_second_run_asks_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    pairs = [*some_pairs(), Pair("same", "Q?", "good", "good")]
    result = judge_pairs(pairs, endpoint(server), cache=tmp_path / "cache")
    assert counts(result) == (6, 3, 4, 0, 1, 0)
    assert result.win_rate == pytest.approx(8 / 13) and result.low is not None and result.high is not None
    assert result.low < 8 / 13 < result.high
    assert set(server.asked().values()) == {1} and len(server.requests) == 24
    assert {(b["model"], b["temperature"], b["max_tokens"]) for b in server.requests} == {("judge-1", 0.01, 512)}
    assert server.most_busy <= 4
    assert (result.flips, result.identical, result.unparsable) == (0, 1, 0)

    assert judge_pairs(pairs, endpoint(server), cache=tmp_path / "cache") == result
    assert len(server.requests) == 24
    moved = serve(better)
    assert judge_pairs(pairs, endpoint(moved), cache=tmp_path / "cache") == result
    assert not moved.requests, "the address is no part of a judgement"
    judge_pairs(pairs, endpoint(server, temperature=0.5), cache=tmp_path / "cache")
    assert len(server.requests) == 48, "another temperature is another judge"


def test_equal_prompts_are_asked_once(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    result = judge_pairs(
        [Pair("x", "Q", "good", "poor"), Pair("y", "Q", "good", "poor"), Pair("z", "Q", "poor", "good")],
        endpoint(server), cache=tmp_path,
    )  # fmt: skip
    assert counts(result) == (2, 1, 0, 0, 0, 0) and len(server.requests) == 2


def test_a_judge_of_positions_gives_flips(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda prompt, attempt: Reply("Verdict: A"))
    result = judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert counts(result) == (0, 0, 12, 12, 0, 0)
    assert (result.win_rate, result.low, result.high) == (0.5, 0.5, 0.5)
    assert all(judgement.flipped for judgement in result.judgements)


def test_a_verdict_in_one_order_and_a_tie_in_the_other_is_a_flip(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda prompt, attempt: Reply("Verdict: A" if "good" in answers(prompt)[0] else "Verdict: tie"))
    result = judge_pairs([Pair("x", "Q", "good", "poor")], endpoint(server), cache=tmp_path)
    assert counts(result) == (0, 0, 1, 1, 0, 0) and result.judgements[0].verdicts == ("A", "tie")


def test_garbage_is_counted_apart(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def respond(prompt: str, attempt: int) -> Reply:
        if "Question 0?" in prompt:
            return Reply("I cannot choose {}")
        if "Question 1?" in prompt and "poor 1" in answers(prompt)[0]:
            return Reply(None)  # one order only, and no text at all
        return better(prompt)

    server = serve(respond)
    with caplog.at_level(logging.WARNING):
        result = judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert counts(result) == (5, 2, 3, 0, 0, 2) and result.win_rate == pytest.approx(6.5 / 10)
    assert "2 of 12 pairs have an unreadable verdict" in caplog.text
    assert result.judgements[0].replies == ("I cannot choose {}",) * 2
    judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert len(server.requests) == 24, "a garbage reply is a reply"


def test_no_readable_verdict_gives_no_rate(serve: Serve, tmp_path: Path) -> None:
    result = judge_pairs(some_pairs(), endpoint(serve(lambda p, a: Reply("?"))), cache=tmp_path)
    assert counts(result) == (0, 0, 0, 0, 0, 12)
    assert (result.win_rate, result.low, result.high, result.length_controlled) == (None,) * 4


# Figures


def judged(scores: Any, first: Any, second: Any) -> list[PairVerdict]:
    outcome = {1.0: "win", 0.5: "tie", 0.0: "loss"}
    verdicts = {1.0: ("A", "B"), 0.5: ("tie", "tie"), 0.0: ("B", "A")}
    return [
        PairVerdict(str(i), outcome[s], verdicts[s], ("", ""), int(a), int(b))  # type: ignore[arg-type]
        for i, (s, a, b) in enumerate(zip(scores, first, second, strict=True))
    ]


def test_length_control_takes_out_a_judge_of_length(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda p, a: Reply(f"Verdict: {'A' if len(answers(p)[0]) > len(answers(p)[1]) else 'B'}"))
    # Longer by 1 to 48 words, or shorter by 1 to 12.
    pairs = [Pair(str(d), f"Q{d}", "w " * (60 + d), "w " * 60) for d in range(-12, 49) if d]
    result = judge_pairs(pairs, endpoint(server), cache=tmp_path)
    assert result.win_rate == 0.8 and result.first_words > result.second_words
    assert result.length_controlled == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("quality", [-1.0, 0.0, 0.8])
def test_length_control_finds_what_is_left(quality: float) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(50, 150, 4000), rng.integers(20, 120, 4000)
    d = (first - second).astype(float)
    chance = 1 / (1 + np.exp(-(quality + 2 * np.tanh(d / d.std()))))
    result = summarize_verdicts(
        judged((rng.random(4000) < chance).astype(float), first, second), judge="j", template="t"
    )
    expected = 1 / (1 + np.exp(-quality))
    assert result.length_controlled == pytest.approx(expected, abs=0.03)
    assert result.win_rate is not None and result.win_rate > expected + 0.05


def test_the_regression_is_the_likelihoods_maximum() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        d = rng.integers(-30, 40, 25).astype(float)
        y = rng.choice([0, 0.5, 1], 25, p=[0.2, 0.1, 0.7])
        x = np.tanh(d / d.std())

        def loss(w: Any, x: Any = x, y: Any = y) -> float:
            z = w[0] + w[1] * x
            return float(np.sum(np.logaddexp(0, z) - y * z) + 0.005 * (w**2).sum())

        fitted = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
        assert length_controlled_rate(y, d) == pytest.approx(1 / (1 + np.exp(-fitted.x[0])), abs=1e-4)


def test_length_control_is_silent_where_it_knows_nothing() -> None:
    assert length_controlled_rate([], []) is None
    assert length_controlled_rate([1.0] * 9, range(9)) is None
    assert length_controlled_rate([1.0, 0.0] * 10, [3] * 20) is None
    always = length_controlled_rate([1.0] * 20, range(-10, 10))
    separable = length_controlled_rate([0.0] * 10 + [1.0] * 10, [*range(-1010, -1000), *range(1000, 1010)])
    assert always is not None and 0.97 < always < 1
    assert separable == pytest.approx(0.5, abs=0.01)
