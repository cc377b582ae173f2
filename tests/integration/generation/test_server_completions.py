"""Completions for evaluation through a vLLM server: those of this package's engine, asked once; what is refused."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers.commands import answer, evaluate
from helpers.vllm_server import Served, running
from transformers import PreTrainedModel

from gapbridge.errors import ConfigError, RunError
from gapbridge.gap.command import run_gap


RECIPE = "recipes/tiny/sft/config_full.yaml"


@pytest.fixture
def served(make_base: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "*")
    with running(Served(make_base(), str(BASE), str(BASE))) as value:
        yield value


def test_an_evaluation_is_the_same_through_a_server(served: Served, tmp_path: Path) -> None:
    """Direct and corrected: the same prompts and figures, other stores; a record is asked for once."""
    options: dict[str, Any] = {
        "max_examples": 3,
        "max_completion_length": 24,
        "model": [str(BASE)],
        "decoding_mode": ["all"],
    }
    ours = json.loads(evaluate("word_problems", **options, output_dir=tmp_path / "ours").read_text())
    options |= {"vllm_server_base_url": [served.url], "output_dir": tmp_path / "theirs"}
    path = evaluate("word_problems", **options)
    theirs = json.loads(path.read_text())
    assert theirs["results"] == ours["results"] and theirs["corrections"] == ours["corrections"]
    assert theirs["settings"].pop("engine") == "vllm" and theirs["settings"] == ours["settings"]
    asked = len(served.requests)
    assert asked == 3 + 2 * 3, "the check of the weights, then both answers"
    assert all(body["temperature"] == 0 for body in served.requests[3:])

    served.root = served.name = "elsewhere"  # a finished evaluation, and finished completions, ask nobody
    assert evaluate("word_problems", **options) == path
    with pytest.raises(ConfigError, match=r"word_problems.json, engine: got vllm, expected nothing"):
        evaluate("word_problems", **{**options, "vllm_server_base_url": None})
    path.unlink()
    with pytest.raises(RunError, match="model: got elsewhere, expected"):
        evaluate("word_problems", **options)
    assert len(served.requests) == asked


@pytest.mark.nightly  # the evaluation above goes the same way; this one takes seconds more
def test_generate_and_gap(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`generate` writes what it writes without a server; so does `gap`, forced errors included."""
    monkeypatch.setattr("gapbridge.generation.command.OUTPUTS", tmp_path)  # no completions of an earlier test run
    options: dict[str, Any] = {"config": RECIPE, "model": str(BASE), "max_examples": 2, "max_completion_length": 12}
    ours = answer(**options, output=tmp_path / "ours.jsonl").read_text()
    theirs = answer(**options, vllm_server_base_url=[served.url], output=tmp_path / "theirs.jsonl").read_text()
    assert ours == theirs and len(served.requests) == 4

    options |= {"model": [str(BASE)], "max_completion_length": 16, "output_dir": tmp_path, "prefix_lengths": [2]}
    options |= {
        "error_positions": [0.2],
        "error_source": None,
        "completions_from": None,
        "temperature": 0.0,
        "batch_size": 8,
        "seed": 0,
    }
    options |= {"vllm_server_timeout": 0.0}
    records = []
    for name, url in (("ours", None), ("theirs", [served.url])):
        options |= {"output_dir": tmp_path / name, "vllm_server_base_url": url}
        records.append(json.loads(run_gap(Namespace(**options), ["--use_cpu", "true"]).read_text()))
    assert records[0]["models"] == records[1]["models"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"decoding_mode": ["speculative"]},
            "--decoding_mode speculative: got a vLLM server, expected this package's engine",
        ),
        ({"model": [str(BASE), "b"]}, "got 1 servers, expected one for each of 2 models"),
        ({"model": [], "answers": [Path("a.jsonl")]}, "expected one for each of 0 models"),
        ({"vllm_server_base_url": ["host:8000"]}, "got host:8000, expected http://HOST:PORT"),
        ({"vllm_server_timeout": -1.0}, "--vllm_server_timeout: got -1.0"),
        ({"temperature": 0.001}, "temperature: got 0.001, expected 0 .greedy. or 0.01 to 2"),
    ],
)
def test_what_a_server_cannot_do_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {"model": [str(BASE)], "vllm_server_base_url": ["http://127.0.0.1:1"], **options}
    with pytest.raises(ConfigError, match=words):
        evaluate("word_problems", **given, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_server_is_asked_for_lm_eval(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got one of .*--vllm_server_base_url"):
        evaluate("lm_eval", model=["m"], config="c.yaml", vllm_server_base_url=["http://a"], output_dir=tmp_path)


def test_prompts_that_do_not_fit_are_refused_before_a_token(served: Served, tmp_path: Path) -> None:
    served.max_length = 100
    options: dict[str, Any] = {"max_examples": 2, "max_completion_length": 90, "model": [str(BASE)]}
    with pytest.raises(RunError, match="tokens of a prompt and its completion: got .* expected at most 100"):
        evaluate("word_problems", **options, vllm_server_base_url=[served.url], output_dir=tmp_path)
