"""`gapbridge report`: runs side by side, from runs that were trained and measured."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import BASE

from gapbridge import cli
from gapbridge.errors import ConfigError, RunError
from gapbridge.gap.command import run_gap
from gapbridge.intervals import Interval
from gapbridge.reporting.runs import run_report


RECIPE = "recipes/tiny/bash/config_full.yaml"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of two rounds, and a gap measured beside it."""
    place = tmp_path_factory.mktemp("measured")
    small = ["--max_train_examples", "8", "--max_eval_examples", "4", "--max_steps", "1", "--num_rounds", "2"]
    more = ["--model_name_or_path", str(BASE), "--logging_steps", "1", "--disable_tqdm", "true"]
    cli.main(["bash", "--config", RECIPE, "--output_dir", str(place / "run"), *small, *more])
    options = {"max_examples": 5, "seed": 0, "batch_size": 64, "prefix_lengths": [2, 4], "max_completion_length": 30}
    options |= {"error_positions": [], "error_source": None, "completions_from": None, "vllm_server_base_url": None}
    models = ["recipes/tiny/base", str(place / "run")]  # from the top: a long path would split the tables
    run_gap(Namespace(model=models, config=RECIPE, output_dir=place, temperature=1.0, **options), [])
    return place


def _page(place: Path, *runs: Path, results: tuple[Path, ...] = ()) -> str:
    page = run_report(Namespace(runs=list(runs), extra_results_dir=list(results), output_dir=place, open=False))
    text = page.read_text(encoding="utf-8")
    return text


def test_runs_side_by_side(measured: Path, tmp_path: Path) -> None:
    run = measured / "run"
    other = shutil.copytree(run, tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    record["settings"] |= {"learning_rate": 0.125, "datasets": [{**record["settings"]["datasets"][0], "split": "x"}]}
    (other / "run.json").write_text(json.dumps(record))
    (other / "round_2" / "metrics.jsonl").unlink()
    text = _page(tmp_path / "report", run, other, results=(measured,))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["setting", "run", "other"] in rows and ["learning_rate", "0.0005", "0.125"] in rows
    assert ["datasets.0.split", "train", "x"] in rows and "seed" not in [row[0] for row in rows]
    names = [name for row in rows if row[0] == "" for name in row[1:] if "round" in name]
    assert names == ["run, round 1", "run, round 2", "other, round 1", "other, round 2"]  # fmt: skip
    assert [row[1] for row in rows if row[0] == "truncated completions (%)"] == ["recipes/tiny/base", "run"]
    assert (
        ["measure", "model", "Δ vs recipes/tiny/base", "95 % interval", "n"] in rows
        and "5 held-out examples" in text
        and "temperature 1" in text
    )
    assert "](gap.png)" in text and "gap-2.png" not in text and "## Cost" in text
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.md", "report.html", "loss.png", "gap.png",
    }  # fmt: skip
    assert "no evaluation" in text.lower() and "No completions" in text


def test_gaps_at_other_temperatures_get_a_picture_of_their_own(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "gap").mkdir()
    record = json.loads((measured / "gap" / "gap.json").read_text())
    record["settings"]["temperature"] = 0.5
    (tmp_path / "gap" / "gap.json").write_text(json.dumps(record))
    text = _page(tmp_path / "report", measured / "run", results=(measured, tmp_path))
    assert "temperature 0.5" in text and "temperature 1" in text and "gap-2.png" in text
    assert (tmp_path / "report" / "gap-2.png").exists()


def test_evaluations(measured: Path, tmp_path: Path) -> None:
    run, interval = measured / "run", vars(Interval(0.5, 0.25, 0.75))
    result = {"model": str(run), "count": 8, "accuracy": interval, "exact_match": interval, "math_verify": interval,
              "disagreements": [], "without_final_answer": 0, "unparseable": 0, "timed_out": 0,
              "truncated": 3}  # fmt: skip
    changes = {"wrong_to_right": 1, "right_to_wrong": 2, "right_to_right": 2, "wrong_to_wrong": 3}
    record = {
        "task": "gsm8k",
        "results": [{**result, "decoding_mode": "single_pass"}, {**result, "decoding_mode": "self_correct"}],
        "corrections": [{"model": str(run), "decoding_mode": "self_correct", **changes, "difference": interval}],
        "differences": [],
    }
    scores = [{"model": str(run), "task": "arc", "metric": "acc", "n": 1172, "value": 0.3456789}]
    for place, name, value in (
        (tmp_path / "a", "gsm8k", record),
        (tmp_path / "b", "gsm8k", {**record, "corrections": []}),
        (tmp_path / "b", "lm_eval", {"task": "lm_eval", "results": scores}),
    ):
        (place / "eval").mkdir(parents=True, exist_ok=True)
        (place / "eval" / f"{name}.json").write_text(json.dumps(value))
    text = _page(tmp_path / "report", run, results=(tmp_path / "a", tmp_path / "b"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["accuracy", "run", "single_pass", "50", "[25, 75]", "8"] in rows
    assert ["run", "self_correct", "1", "2", "2", "3", "+50", "[+25, +75]"] in rows, "corrections"
    assert ["arc", "acc", "run", "–", "0.3457", "–", "1,172"] in rows
    assert len({row[0] for row in rows if row[1:2] == ["single_pass"]}) == 2, "the second evaluation is told apart"


def test_what_cannot_be_reported_is_refused(measured: Path, tmp_path: Path) -> None:
    page = tmp_path / "report" / "report.md"
    page.parent.mkdir()
    page.write_text("mine")
    with pytest.raises(ConfigError, match="expected a report of gapbridge"):
        _page(tmp_path / "report", measured / "run")
    assert page.read_text() == "mine"
    with pytest.raises(RunError) as error:
        _page(tmp_path / "other", BASE, tmp_path / "nothing")
    assert len(error.value.errors) == 2 and not (tmp_path / "other").exists()
