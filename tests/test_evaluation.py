"""Intervals, files of answers, and `gapbridge eval` as a user runs it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BASE
from helpers import contents, gapbridge, kill_when

from gapbridge.answers.files import read_answers
from gapbridge.answers.intervals import column_intervals, mean_interval, paired_difference
from gapbridge.errors import ConfigError, DataError
from gapbridge.evaluation.command import run_eval
from gapbridge.evaluation.summaries import Group, grade_math


RECIPE = "recipes/tiny/sft/config_full.yaml"


def test_intervals_cover_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = {"share": 0, "skewed": 0, "difference": 0, "weighted": 0}
    trials = 400
    for trial in range(trials):
        share = mean_interval(rng.random(200) < 0.6, resamples=500, seed=trial)
        covered["share"] += share.low <= 0.6 <= share.high
        skewed = mean_interval(rng.exponential(size=200), resamples=500, seed=trial)
        covered["skewed"] += skewed.low <= 1 <= skewed.high
        easy = rng.random(200)
        first, second = easy < 0.4, easy + rng.normal(0, 0.1, 200) < 0.5
        difference = paired_difference(first, second, resamples=500, seed=trial)
        covered["difference"] += difference.low <= 0.1 + 0.0015 <= difference.high  # the truth, by a long simulation
        weights = rng.integers(1, 20, (200, 1)).astype(float)
        weighted = column_intervals(rng.normal(2, 1, (200, 1)), weights, resamples=500, seed=trial)[0]
        covered["weighted"] += weighted.low <= 2 <= weighted.high
    assert all(0.915 < count / trials < 0.98 for count in covered.values()), covered


def test_pairing_tells_apart_what_two_intervals_cannot() -> None:
    easy = np.random.default_rng(0).random(400)
    first, second = easy < 0.5, easy < 0.53
    assert mean_interval(first).high > mean_interval(second).low
    assert paired_difference(first, second).low > 0
    with pytest.raises(ValueError, match="same examples"):
        paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="one value an example"):
        mean_interval([])


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


def test_ready_answers_against_published_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Any] = [
        {"id": i, "reference": f"so\n#### {i}", "answer": f"I think\nA: {i + i % 2}", "is_correct": i % 2 == 0}
        for i in range(20)
    ]
    rows[3]["is_correct"] = True  # a wrong mark: 3 answered with 4
    path = _write(tmp_path / "answers.jsonl", rows)
    options = ["--task", "gsm8k", "--answers", str(path), "--labels", "is_correct", "--output_dir", str(tmp_path)]
    figures = run_eval(options)
    record = json.loads(figures.read_text())
    assert record["results"][0]["accuracy"]["mean"] == 0.5
    assert record["labels"][0]["agreement"] == 0.95
    assert [row["id"] for row in record["labels"][0]["disagreements"]] == [3]
    assert "3: marked True, graded False" in capsys.readouterr().out
    samples = [json.loads(line) for line in (tmp_path / "eval" / "gsm8k.samples.jsonl").read_text().splitlines()]
    assert [sample["correct"] for sample in samples] == [i % 2 == 0 for i in range(20)]
    before = figures.read_bytes()
    run_eval(options)
    assert figures.read_bytes() == before and "is complete" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds another evaluation") as error:
        run_eval([*options, "--limit", "5"])
    assert "limit: there None, now 5" in error.value.faults
    _write(path, rows[:10])
    with pytest.raises(ConfigError, match="contents: there"):
        run_eval(options)
    assert figures.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "gsm8"], "did you mean 'gsm8k'"),
        (["--task", "gsm8k"], "either --model"),
        (["--task", "math", "--model", "m"], "brings no data"),
        (["--task", "gsm8k", "--model", "m", "--limit", "0"], "--limit is 0"),
        (["--task", "gsm8k", "--model", "m", "--labels", "x"], "--labels needs --answers"),
        (["--task", "tldr", "--model", "m", "--mode", "both"], "--mode both"),
        (["--task", "winrate", "--answers", "a.jsonl"], "needs --judge"),
        (["--task", "gsm8k", "--answers", "a.jsonl", "--dtype", "float32"], "--answers needs no recipe"),
        (["--task", "gsm8k", "--model", "m", "--model", "m"], "given twice"),
        (["--task", "lm_eval", "--model", "m"], "needs --config"),
        (["--mode", "sideways", "--task", "gsm8k"], "invalid choice"),
        (["--task", "math", "--config", RECIPE, "--model", str(BASE), "--learnin_rate", "1"], "learning_rate"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_eval([*options, "--output_dir", str(tmp_path)])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_models_are_compared_over_the_same_problems(tmp_path: Path) -> None:
    """Both answers, the 2 × 2 table, the paired difference; a second start answers nothing again."""
    other = tmp_path / "other"
    other.mkdir()
    for path in BASE.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    options = ["--task", "word_problems", "--mode", "both", "--limit", "6", "--max_completion_length", "40"]
    options += ["--model", str(BASE), "--model", str(other), "--output_dir", str(tmp_path)]
    record = json.loads(run_eval(options).read_text())
    assert [(r["mode"], r["count"]) for r in record["results"]] == [("direct", 6), ("corrected", 6)] * 2
    assert record["results"][0]["accuracy"] == record["results"][2]["accuracy"]
    table = record["corrections"][0]
    assert sum(table[key] for key in ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")) == 6
    assert [(r["mode"], r["difference"]["mean"]) for r in record["differences"]] == [("direct", 0), ("corrected", 0)]
    samples = [json.loads(line) for line in (tmp_path / "eval/word_problems.samples.jsonl").read_text().splitlines()]
    assert len(samples) == 24 and all(isinstance(sample["correct"], bool) for sample in samples)
    assert all(sample["first_answer"] for sample in samples if sample["mode"] == "corrected")
    shards = sorted((tmp_path / "eval" / "answers").rglob("*.parquet"))
    assert len(shards) == 1, "equal weights, tokenizer and options: the same answers"
    written = shards[0].stat().st_mtime_ns
    (tmp_path / "eval" / "word_problems.json").unlink()
    assert json.loads(run_eval(options).read_text())["results"] == record["results"]
    assert shards[0].stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_killed_evaluation_continues(tmp_path: Path) -> None:
    options = ["eval", "--task", "word_problems", "--model", str(BASE), "--max_completion_length", "24"]
    answers = tmp_path / "killed" / "eval" / "answers"
    kill_when(lambda: len(list(answers.rglob("shard-*"))) == 1, *options, "--output_dir", str(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "eval" / "word_problems.json").exists()
    first = next(answers.rglob("shard-*"))
    written = first.stat().st_mtime_ns
    for name in ("killed", "whole"):
        gapbridge(*options, "--output_dir", str(tmp_path / name))
    assert first.stat().st_mtime_ns == written, "what was answered is not answered again"
    assert contents(tmp_path / "killed", "eval/*.samples.jsonl") == contents(
        tmp_path / "whole", "eval/*.samples.jsonl"
    )
    assert contents(tmp_path / "killed", "**/shard-*") == contents(tmp_path / "whole", "**/shard-*")


def test_an_answer_cut_before_its_mark_is_wrong() -> None:
    cut = {"id": "1", "reference": "#### 18", "answer": "She has 18", "tokens": 3, "capped": True}
    groups = [
        Group("m", "direct", [cut, {**cut, "id": "2", "capped": False}, {**cut, "id": "3", "answer": "#### 18"}])
    ]
    grade_math(groups, timeout=10, workers=1)
    assert groups[0].values("correct") == [False, True, True] and groups[0].values("verified") == [True] * 3


def test_summaries_and_a_judge_on_the_command_line(tmp_path: Path) -> None:
    rows = [
        {"id": i, "prompt": "Post.", "reference": "A short one. It is good.", "answer": "A short one."}
        for i in range(4)
    ]
    path = _write(tmp_path / "answers.jsonl", rows)
    output = gapbridge(
        "eval", "--task", "summarization", "--answers", str(path), "--judge", str(BASE), "--judge_max_tokens", "8",
        "--output_dir", str(tmp_path),
    ).stdout  # fmt: skip
    record = json.loads((tmp_path / "eval" / "summarization.json").read_text())
    assert record["results"][0]["rouge1"]["mean"] == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert record["win_rates"][0]["unparsable"] == 4 and record["win_rates"][0]["win_rate"] is None
    assert "ROUGE-Lsum" in output and "4 unparsable" in output


class _PrefersA(BaseHTTPRequestHandler):
    """A server that speaks OpenAI's protocol and always prefers the answer shown first."""

    def do_POST(self) -> None:
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "So.\nVerdict: A"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return


asked: list[dict[str, Any]] = []


def test_two_files_before_a_served_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _PrefersA)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prompt = [{"role": "user", "content": "Why?"}]
    files = []
    for name in ("a", "b"):
        rows = [{"id": i, "prompt": prompt, "reference": "Because.", "answer": f"{name} {i}"} for i in range(3)]
        files += ["--answers", str(_write(tmp_path / f"{name}.jsonl", rows))]
    options = ["--task", "winrate", *files, "--judge", "served", "--output_dir", str(tmp_path)]
    options += ["--judge_url", f"http://127.0.0.1:{server.server_port}/v1"]
    try:
        record = json.loads(run_eval(options).read_text())
        assert len(asked) == 3 * 2 * 3, "a and b against the reference, b against a, each in both orders"
        (tmp_path / "eval" / "winrate.json").unlink()
        run_eval(options)
        assert len(asked) == 18, "a second run asks nothing"
    finally:
        server.shutdown()
        server.server_close()
    assert asked[0]["model"] == "served" and asked[0]["temperature"] == 0.01
    assert "Why?" in asked[0]["messages"][0]["content"]
    rates = record["win_rates"]
    assert [(r["first"].rsplit("/")[-1], r["flips"], r["win_rate"]) for r in rates] == [
        ("a.jsonl", 3, 0.5), ("b.jsonl", 3, 0.5), ("b.jsonl", 3, 0.5),
    ]  # fmt: skip
    assert rates[2]["second"] == files[1]
    assert "3 flips" in capsys.readouterr().out


def test_help_names_every_option() -> None:
    output = gapbridge("eval", "--help").stdout
    assert "--mode" in output and "--judge_url" in output and "--labels" in output
