"""The script that pools a comparison and the gaps of its seeds, on records made by hand."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gapbridge.evaluation.rouge import ROUGE_METRICS


SCRIPT = ROOT / "benchmarks" / "evidence" / "real" / "findings.py"
EXAMPLES = [str(i) for i in range(12)]


def _loss(mean: float) -> dict[str, Any]:
    """About the mean, with a spread that models share."""
    values = {key: mean + 0.01 * at for at, key in enumerate(EXAMPLES)}
    return {"mean": {"mean": mean, "low": mean, "high": mean}, "examples": 12, "by_example": values}


def _gap(name: str, mean: float) -> dict[str, Any]:
    losses = {"fitted_temperature": {"after_generated": _loss(mean)}}
    by_length = {"fitted_temperature": {"8": _loss(0)}}
    return {"model": name, "recovery": _loss(mean - 2), "losses": {"overall": losses, "by_prefix_length": by_length}}


def _sample(model: str, key: str, value: float, mode: str = "single_pass") -> dict[str, Any]:
    scores = dict.fromkeys(ROUGE_METRICS, value)
    return {
        "model": model,
        "id": key,
        "prompt": "p",
        "reference": "r",
        "answer": "a",
        "decoding_mode": mode,
        **scores,
    }


def test_hypotheses_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = []
    for seed in (21, 22, 23):
        for at, name in enumerate(("sft", "bash_0.2")):
            values = {key: 0.2 + at * (0.001 * seed + 0.0002 * i - 0.05) + 0.01 * i for i, key in enumerate(EXAMPLES)}
            samples += [_sample(f"x/seed_{seed}/{name}", key, value) for key, value in values.items()]
        for kind in ("own", "same"):
            models = [
                _gap("x/base", 3.0),
                _gap(f"x/seed_{seed}/sft", 3.2),
                _gap(f"x/seed_{seed}/bash_0.2", 3.0 + 0.001 * seed * (kind == "own")),
            ]
            place = tmp_path / f"{kind}-{seed}" / "gap"
            place.mkdir(parents=True)
            (place / "gap.json").write_text(json.dumps({"models": models}))
    samples += [_sample("x/base", key, 0.1) for key in EXAMPLES]  # one evaluation of all seeds
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "summarization.samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    output = tmp_path / "found.json"
    words = [str(SCRIPT), "--sampled", str(tmp_path), "--output", str(output)]
    words += ["--own", str(tmp_path / "own-{seed}"), "--same", str(tmp_path / "same-{seed}")]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads(output.read_text())
    assert list(found["hypotheses"]) == ["S1", "S2", "S3", "S4"], "the others lack a model"
    assert found["hypotheses"]["S1"]["difference"]["mean"] == pytest.approx(0.2)
    assert found["hypotheses"]["S4"]["difference"]["by_seed"]["21"] == pytest.approx(-0.0279)
    assert found["hypotheses"]["S4"]["found"] == "as expected"
    # Three equal differences have an interval without width, which shows nothing.
    assert found["hypotheses"]["S3"]["found"] == "not as expected (null)"
    assert found["means_by_seed"]["rouge1, T = 1"]["start"] == pytest.approx({"21": 0.1, "22": 0.1, "23": 0.1})
    assert "same completions: losses.by_prefix_length.fitted_temperature.8" in found["means_by_seed"]
    said = capsys.readouterr().out
    # One measurement of the models of all seeds says the same.
    place = tmp_path / "all" / "gap"
    place.mkdir(parents=True)
    records = [json.loads((tmp_path / f"own-{seed}" / "gap" / "gap.json").read_text()) for seed in (21, 22, 23)]
    models = [records[0]["models"][0], *(model for record in records for model in record["models"][1:])]
    (place / "gap.json").write_text(json.dumps({"models": models}))
    words[words.index("--own") + 1] = str(tmp_path / "all")
    runpy.run_path(str(SCRIPT), run_name="__main__")
    again = json.loads(output.read_text())
    assert [again[key] for key in ("hypotheses", "means_by_seed")] == [
        found[key] for key in ("hypotheses", "means_by_seed")
    ]
    (line,) = (line for line in said.splitlines() if line.startswith("| S4 |"))
    assert line.startswith("| S4 | bash_0.2 − sft | rouge1, T = 1 | -2.69 [-2.7") and line.endswith("as expected |")
    assert "{-2.94, -2.44}" in line, "the interval over seeds"
    words[words.index("--own") + 1] = str(tmp_path / "own-{seed}")
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "24"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stop.value.code == 2 and "own-24/gap/gap.json: got no file" in capsys.readouterr().err


def test_a_corrected_answer_is_another_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, mode, gain in (("greedy", "single_pass", 0.0), ("corrected", "self_correct", 0.001)):
        place = tmp_path / folder / "eval"
        place.mkdir(parents=True)
        samples = [
            _sample(f"x/seed_{seed}/rac", key, 0.2 + 0.01 * at + gain * seed, mode)
            for seed in (21, 22, 23)
            for at, key in enumerate(EXAMPLES)
        ]
        (place / "summarization.samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    output = tmp_path / "found.json"
    words = [str(SCRIPT), "--greedy", str(tmp_path / "greedy"), str(tmp_path / "corrected"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads(output.read_text())["hypotheses"]
    assert list(found) == ["S8"] and found["S8"]["difference"]["mean"] == pytest.approx(0.022)
