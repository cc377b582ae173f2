"""`gapbridge eval` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import contents, gapbridge, kill_when, write_rows
from helpers.commands import evaluate
from helpers.judge_server import Reply, serving

from gapbridge.errors import ConfigError
from gapbridge.evaluation.aggregate import Group, grade_edits, grade_math, grade_rouge, summarize_group
from gapbridge.evaluation.command import print_results


RECIPE = "recipes/tiny/sft/config_full.yaml"


def write(path: Path, rows: list[Any]) -> Path:
    return Path(write_rows(path, rows))


def test_ready_answers_against_published_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Any] = [
        {"id": i, "reference": f"so\n#### {i}", "answer": f"I think\nA: {i + i % 2}"} for i in range(20)
    ]
    path = write(tmp_path / "completions.jsonl", rows)
    options: dict[str, Any] = {"completions_file": [path], "output_dir": tmp_path}
    figures = evaluate("gsm8k", **options)
    record = json.loads(figures.read_text())
    assert record["results"][0]["accuracy"]["mean"] == 0.5
    samples = [json.loads(line) for line in (tmp_path / "eval" / "gsm8k.samples.jsonl").read_text().splitlines()]
    assert [sample["correct"] for sample in samples] == [i % 2 == 0 for i in range(20)]
    before = figures.read_bytes()
    evaluate("gsm8k", **options)
    assert figures.read_bytes() == before and "is complete" in capsys.readouterr().out
    with pytest.raises(
        ConfigError, match=r"gsm8k.json, max_examples: got nothing, expected 5\. Choose another --output_dir"
    ):
        evaluate("gsm8k", **options, max_examples=5)
    write(path, rows[:10])
    with pytest.raises(ConfigError, match=r"contents\..*completions.jsonl: got"):
        evaluate("gsm8k", **options)
    assert figures.read_bytes() == before


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("gsm8", {}, "did you mean 'gsm8k'"),
        ("gsm8k", {}, "--model: got neither it nor --completions_file, expected one of them. Give --model"),
        (
            "gsm8k",
            {"model": ["m"], "completions_file": [Path("a.jsonl")]},
            "--model: got both it and --completions_file",
        ),
        ("math", {"model": ["m"]}, "--task math: got no data, expected a recipe, or completions of a file"),
        ("gsm8k", {"model": ["m"], "decoding_mode": ["sideways"]}, "the unknown mode sideways"),
        ("gsm8k", {"model": ["m"], "correction_prompt": "Again!"}, "expected --decoding_mode self_correct"),
        (
            "gsm8k",
            {"completions_file": [Path("a.jsonl")], "decoding_mode": ["self_correct"]},
            "--decoding_mode: got self_correct with --completions_file, expected --model",
        ),
        ("winrate", {"completions_file": [Path("a.jsonl")]}, "Give one with --judge"),
        ("winrate", {"completions_file": [Path("a.jsonl")], "judge": "m"}, "--judge, --judge_url: got one of the two"),
        ("winrate", {"completions_file": [Path("a.jsonl")], "judge": "m", "judge_url": "ftp://x"}, "base_url: got"),
        (
            "winrate",
            {"completions_file": [Path("a.jsonl")], "judge": "m", "judge_url": "http://x/v1", "judge_prompt": "no"},
            "judge prompt 'no': got no such name or file",
        ),
        (
            "gsm8k",
            {"completions_file": [Path("a.jsonl")], "others": ["--dtype", "float32"]},
            "--completions_file: got a recipe",
        ),
        ("gsm8k", {"model": ["m", "m"]}, "--model, --completions_file: got m twice, expected each once"),
        ("lm_eval", {"model": ["m"]}, "Give --model and --config"),
        ("math", {"config": RECIPE, "model": [str(BASE)], "others": ["--learnin_rate", "1"]}, "learning_rate"),
    ],
)
def test_wrong_options_are_named(task: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    others = options.pop("others", [])
    with pytest.raises(ConfigError) as error:
        evaluate(task, *others, **options, output_dir=tmp_path)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_models_are_compared_over_the_same_problems(tmp_path: Path) -> None:
    """Both answers, the 2 × 2 table, the paired difference; a second start answers nothing again."""
    other = tmp_path / "other"
    other.mkdir()
    for path in BASE.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    options: dict[str, Any] = {"max_examples": 6, "max_completion_length": 40, "model": [str(BASE), str(other)]}
    options |= {"decoding_mode": ["all"], "output_dir": tmp_path}
    record = json.loads(evaluate("word_problems", **options).read_text())
    assert [(r["decoding_mode"], r["count"]) for r in record["results"]] == [
        ("single_pass", 6),
        ("self_correct", 6),
    ] * 2
    assert record["results"][0]["accuracy"] == record["results"][2]["accuracy"]
    table = record["corrections"][0]
    assert table["decoding_mode"] == "self_correct"
    assert sum(table[key] for key in ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")) == 6
    assert [(r["decoding_mode"], r["difference"]["mean"]) for r in record["differences"]] == [
        ("single_pass", 0),
        ("self_correct", 0),
    ]
    samples = [json.loads(line) for line in (tmp_path / "eval/word_problems.samples.jsonl").read_text().splitlines()]
    assert len(samples) == 24 and all(isinstance(sample["correct"], bool) for sample in samples)
    rates = [
        sample["cer"]
        for sample in samples
        if sample["model"] == str(BASE) and sample["decoding_mode"] == "single_pass"
    ]
    assert record["results"][0]["cer"]["mean"] == pytest.approx(sum(rates) / 6) and min(rates) > 0
    assert 0 < record["results"][0]["token_f1"]["mean"] < 1
    assert all(sample["first_answer"] for sample in samples if sample["decoding_mode"] == "self_correct")
    shards = sorted((tmp_path / "eval" / "completions").rglob("*.parquet"))
    assert len(shards) == 2, "one of direct and one of corrected: equal weights, tokenizer, options, the same answers"
    written = [shard.stat().st_mtime_ns for shard in shards]
    (tmp_path / "eval" / "word_problems.json").unlink()
    assert json.loads(evaluate("word_problems", **options).read_text())["results"] == record["results"]
    assert [shard.stat().st_mtime_ns for shard in shards] == written


@pytest.mark.slow
def test_a_killed_evaluation_continues(tmp_path: Path) -> None:
    options = ["eval", "--task", "word_problems", "--model", str(BASE), "--max_examples", "280"]
    options += ["--max_completion_length", "16"]
    answers = tmp_path / "killed" / "eval" / "completions"
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
    cut = {"id": "1", "reference": "#### 18", "answer": "She has 18", "tokens": 3, "truncated": True}
    groups = [
        Group(
            "m", "single_pass", [cut, {**cut, "id": "2", "truncated": False}, {**cut, "id": "3", "answer": "#### 18"}]
        )
    ]
    grade_math(groups, timeout=10, workers=1)
    assert groups[0].values("correct") == [False, True, True] and groups[0].values("verified") == [True] * 3


def test_summaries_and_a_judge_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": i, "prompt": "Post.", "reference": "A short one. It is good.", "answer": "A short one."}
        for i in range(4)
    ]
    path = write(tmp_path / "completions.jsonl", rows)
    with serving(monkeypatch) as serve:
        server = serve(lambda prompt, attempt: Reply("Both."))
        output = gapbridge(
            "eval", "--task", "summarization", "--completions_file", str(path), "--judge", "served",
            "--judge_url", server.base_url, "--output_dir", str(tmp_path),
        ).stdout  # fmt: skip
    record = json.loads((tmp_path / "eval" / "summarization.json").read_text())
    assert record["results"][0]["rouge1"]["mean"] == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert record["win_rates"][0]["unparsable"] == 4 and record["win_rates"][0]["win_rate"] is None
    assert "ROUGE-Lsum" in output and "summarization: win rates" in output


def test_two_files_before_a_served_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that always prefers the answer shown first; a second run asks nothing."""
    prompt = [{"role": "user", "content": "Why?"}]
    files = []
    for name in ("a", "b"):
        rows = [{"id": i, "prompt": prompt, "reference": "Because.", "answer": f"{name} {i}"} for i in range(3)]
        files.append(write(tmp_path / f"{name}.jsonl", rows))
    with serving(monkeypatch) as serve:
        server = serve(lambda prompt, attempt: Reply("So.\nVerdict: A"))
        options = {"completions_file": files, "judge": "served", "judge_url": server.base_url, "output_dir": tmp_path}
        record = json.loads(evaluate("winrate", **options).read_text())
        assert len(server.requests) == 3 * 2 * 3, "a and b against the reference, b against a, each in both orders"
        (tmp_path / "eval" / "winrate.json").unlink()
        evaluate("winrate", **options)
        assert len(server.requests) == 18
    assert server.requests[0]["model"] == "served" and server.requests[0]["temperature"] == 0.01
    assert "Why?" in server.requests[0]["messages"][0]["content"]
    rates = record["win_rates"]
    assert [(r["first"].rsplit("/")[-1], r["flips"], r["win_rate"]) for r in rates] == [
        ("a.jsonl", 3, 0.5), ("b.jsonl", 3, 0.5), ("b.jsonl", 3, 0.5),
    ]  # fmt: skip
    assert rates[2]["second"] == str(files[0])
    assert "winrate: win rates" in capsys.readouterr().out


def test_tables_fit_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two modes, figures as wide as they get; answers cut at the limit are counted, and no figure is cut."""
    sample = {"id": "1", "reference": "#### 18 It is.", "answer": "#### 18", "tokens": 3, "truncated": True}
    graded = {"correct": True, "exact": True, "verified": False, "marked": True, "parsed": False, "timed_out": False}
    for grader in ("math", "rouge"):
        groups = [
            Group("outputs/tiny-sft", mode, [{**sample, **graded}] * 1000) for mode in ("single_pass", "self_correct")
        ]
        if grader == "rouge":
            grade_rouge(groups)
        grade_edits(groups)
        results = [summarize_group(group, grader) for group in groups]
        print_results({"task": grader, "results": results, "corrections": [], "differences": []})
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, printed)) <= 100
    warning = "outputs/tiny-sft (single_pass): 1000 of 1000 completions reach --max_completion_length: raise it"
    assert printed.count(warning) == 2
    rows = [line.split() for line in printed]
    assert ["accuracy", "tiny-sft", "(self_correct)", "100"] not in rows and "math: scores" in printed
    assert ["accuracy", "tiny-sft", "self_correct", "100", "[99.62,", "100]", "1,000"] in rows
    assert ["token", "F1", "tiny-sft", "single_pass", "76.92", "[76.92,", "76.92]", "1,000"] in rows
    assert sum(row[:3] == ["tiny-sft", "self_correct", "100"] for row in rows) == 1, "graders disagree on all"
