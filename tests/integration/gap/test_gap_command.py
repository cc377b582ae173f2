"""`gapbridge gap` as a user runs it: files, table and picture."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BASE, sharpen

from gapbridge.errors import ConfigError
from gapbridge.gap.command import run_gap
from gapbridge.reporting.gap_plot import draw_gaps
from gapbridge.reporting.gaps import caption, gap_tables
from gapbridge.reporting.tables import WIDTH


RECIPE = "recipes/tiny/sft/config_full.yaml"
FITTED = "fitted_temperature"


def _options(output_dir: Path, **changes: Any) -> Namespace:
    options = {
        "model": [str(BASE)], "config": RECIPE, "max_examples": 5, "output_dir": output_dir, "seed": 0,
        "batch_size": 64,
        "prefix_lengths": [2, 4], "max_completion_length": 30, "temperature": 1.0,
        "error_positions": [0.1, 0.2], "error_source": None, "completions_from": None, "vllm_server_base_url": None,
    }  # fmt: skip
    return Namespace(**{**options, **changes})


def test_a_model_and_its_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(BASE, tmp_path / "copy")
    options = _options(tmp_path, model=[str(BASE), str(copy)])
    path = run_gap(options, ["--use_cpu", "true"])
    record = json.loads(path.read_text())
    gap, twin = record["models"]
    assert gap["recovery"]["k"] == [0, 2, 4] and gap["recovery"]["delta"][0]["mean"] == 0
    assert gap["excess_error"]["length"][:2] == [2, 4] and "NaN" not in path.read_text()
    assert {**twin, "model": str(BASE)} == gap
    forced_errors = gap["forced_errors"]
    assert (
        forced_errors["places"] == [0.1, 0.2]
        and forced_errors["examples"] == [5, 5]
        and forced_errors["source"] == str(BASE)
    )
    assert 0 < forced_errors["tokens_recovered"]["mean"]["mean"] < forced_errors["edit_recovered"]["mean"]["mean"] < 1
    assert [row["measure"] for row in record["recovery_differences"]] == [
        "tokens_recovered", "edit_recovered", "final_right", "steps_right",
    ]  # fmt: skip
    assert {row["difference"]["mean"] for row in record["recovery_differences"]} == {0.0}
    difference = record["differences"][0]
    assert difference["examples"] == 5 and set(difference["difference"].values()) == {0.0}
    by_example = gap["recovery"]["by_example"]
    assert len(by_example) == 5 and np.isfinite(list(by_example.values())).all()

    said = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in said.splitlines()]
    pairs = [row for row in rows[rows.index("Paired differences from base") :] if " 0 [0, 0] 5" in row]
    heads = ["Δ, mean over k ≥ 1 (nats/token)", "after forced error: token recovery (pp)"]
    assert all(any(row.startswith(head) for row in pairs) for head in heads)
    assert any(row.startswith("final accuracy | first error at step 1 (%)") for row in rows)
    assert f"truncated completions (%) base {100 * gap['truncated'] / 5:.4g} – 5" in rows
    assert "5 held-out examples" in said
    assert all(len(line) <= WIDTH for line in said.splitlines() if not line.startswith("measures: "))
    assert path.with_name("gap.png").read_bytes().startswith(b"\x89PNG")

    before = path.read_bytes()
    run_gap(options, ["--use_cpu", "true"])
    assert path.read_bytes() == before and "this measurement is complete" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="gap.json, seed: got 0, expected 1"):
        run_gap(Namespace(**{**vars(options), "seed": 1}), ["--use_cpu", "true"])


@pytest.mark.nightly  # three models
def test_forced_errors_of_another_model_or_of_each(
    tmp_path: Path, make_base: Callable[[], Any], tokenizer: Any
) -> None:
    other = tmp_path / "other"
    changed = sharpen(make_base(), 1.1)
    changed.save_pretrained(other)
    tokenizer.save_pretrained(other)
    found = {}
    for source in (None, "self", str(other)):
        place = tmp_path / str(source and Path(source).name)
        options = _options(
            place, model=[str(BASE), str(other)], max_examples=2, prefix_lengths=[2], error_positions=[0.2]
        )
        path = run_gap(Namespace(**{**vars(options), "error_source": source}), ["--use_cpu", "true"])
        found[source] = [gap["forced_errors"] for gap in json.loads(path.read_text())["models"]]
    assert [[forced_errors["source"] for forced_errors in gaps] for gaps in found.values()] == [
        [str(BASE)] * 2, [str(BASE), str(other)], [str(other)] * 2,
    ]  # fmt: skip
    assert found["self"] == [found[None][0], found[str(other)][1]]


def test_flattening_is_told_apart_from_recovery(
    tmp_path: Path, make_base: Callable[[], Any], tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with flatter logits has other losses at temperature 1, and the same ones at the fitted temperature."""
    flat, steps = tmp_path / "flat", 8
    model = make_base()
    model.model.norm.weight.data.mul_(2 ** (-steps / 32))  # the last layer before the logits, which scale with it
    model.save_pretrained(flat)
    tokenizer.save_pretrained(flat)
    models = {"model": [str(BASE), str(flat)], "completions_from": str(BASE)}
    options = _options(tmp_path, max_examples=4, prefix_lengths=[2, 4], error_positions=[], **models)
    path = run_gap(options, ["--use_cpu", "true"])
    record = json.loads(path.read_text())
    base, other = record["models"]
    at_one, at_fit = ([gap["losses"]["overall"][key] for gap in (base, other)] for key in ("temperature_1", FITTED))
    for prefix in ("after_reference", "after_generated"):
        first, second = (losses[prefix] for losses in at_fit)
        assert second["by_example"] == pytest.approx(first["by_example"], rel=1e-4) and first["examples"] == 4
        assert abs(at_one[1][prefix]["mean"]["mean"] - at_one[0][prefix]["mean"]["mean"]) > 1e-2
    shift = [b / a for a, b in zip(*(gap["losses"]["fitted_temperatures"] for gap in (base, other)), strict=True)]
    assert shift == pytest.approx([2 ** (-steps / 32)] * 2)
    assert other["entropy"]["mean"]["mean"] > base["entropy"]["mean"]["mean"]
    assert list(base["losses"]["by_prefix_length"][FITTED]) == ["2", "4"]
    assert base["excess_error"] is None and other["truncated"] == base["truncated"]
    rows = {(row["temperature"], row["prefix"]): row["difference"]["mean"] for row in record["loss_differences"]}
    assert (
        len(rows) == 8 and rows[FITTED, "4"] == pytest.approx(0, abs=1e-4) and abs(rows["temperature_1", "4"]) > 1e-3
    )
    assert record["entropy_differences"][0]["difference"]["mean"] > 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(row.startswith("generated, k = 4 flat ") for row in said)
    assert sum("Loss (nats/token)" in row for row in said) == 2 and not any("…" in row for row in said)
    assert f"completions of {BASE} for all models, of at most 30 tokens" in " ".join(said)
    assert len(list((path.parent / "completions").iterdir())) == 1, "no model but the source has generated"
    with pytest.raises(ConfigError, match="gap.json, completions_from: got .*, expected nothing"):
        run_gap(Namespace(**{**vars(options), "completions_from": None}), ["--use_cpu", "true"])


def test_forced_errors_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_gap(_options(tmp_path, max_examples=2, prefix_lengths=[2], error_positions=[]), ["--use_cpu", "true"])
    record = json.loads(path.read_text())
    assert record["models"][0]["forced_errors"] is None and record["recovery_differences"] == []
    assert "after forced error" not in capsys.readouterr().out


def _interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def _gap(*, oracle: bool) -> dict[str, Any]:
    ks = [0, 1, 2, 4, 32]
    return {
        "model": "runs/with" if oracle else "runs/without",
        "examples": 60,
        "truncated": 3,
        "recovery": {"k": ks, "delta": [_interval(k / 100) for k in ks], "mean": _interval(0.2)},
        "decisions": {
            "start": [0, 8], "end": [8, 16], "teacher_forced": [_interval(0.9)] * 2,
            "free_running": [_interval(0.5)] * 2, "drop": _interval(0.4),
        },
        "excess_error": {"length": [1, 2, 4, 96, 102], "excess": [_interval(300)] * 5} if oracle else None,
        "wrong_steps": {"steps": [1, 2], "hazard": [_interval(0.2)] * 2, "all_right": 20} if oracle else None,
        "final_answers": {
            "steps": [1], "completions": [40], "right": [_interval(0.1)], "num_all_steps_correct": 20,
            "right_if_all_steps_correct": _interval(0.8),
        } if oracle else None,
    }  # fmt: skip


def _slips(*, graded: bool) -> dict[str, Any]:
    score = {"at": [_interval(0.5), None], "mean": _interval(0.5)}
    return {
        "places": [0.25, 0.75], "tokens_recovered": score, "edit_recovered": score,
        "final_right": score if graded else None, "steps_right": None, "answers": 80, "truncated": 2,
    }  # fmt: skip


@pytest.mark.parametrize("graded", [True, False])
def test_forced_errors_in_picture_and_table(graded: bool) -> None:
    settings = {"config": RECIPE, "temperature": 1.0, "max_completion_length": 128}
    models = [{**_gap(oracle=True), "model": name, "forced_errors": _slips(graded=graded)} for name in ("a", "b")]
    row = {"measure": "tokens_recovered", "first": "a", "second": "b", "difference": _interval(0.02)}
    record = {"settings": settings, "models": models, "differences": [], "recovery_differences": [row]}
    figure = draw_gaps({gap["model"]: gap for gap in models}, caption(record))
    last = [axis.get_title() for axis in figure.axes[4:]]
    second = "final answer" if graded else "recovery by edit distance"
    titles = ["token recovery", second]
    assert last == [f"{title} after a forced error: higher is better" for title in titles]
    assert figure.axes[4].lines[0].get_xydata().tolist() == [[25.0, 50.0]], "a place without a score is left out"
    values, differences = gap_tables(record)
    rows = {row[0]: row[1:] for row in values.cells if row[1] == "b"}
    assert rows["after forced error: token recovery (%)"] == ["b", "50", "[40, 60]", "80"]
    assert differences.head[2] == "Δ vs a"
    assert differences.cells == [["after forced error: token recovery (pp)", "b", "+2", "[-8, +12]", "–"]]
    assert ("after forced error: final answer right (%)" in rows) == graded
    assert "after forced error: steps right (%)" not in rows
    assert rows["after forced error: truncated (%)"] == ["b", "2.5", "–", "80"]
    assert rows["final accuracy | first error at step 1 (%)"] == ["b", "10", "[0, 20]", "40"]
    assert rows["final accuracy | no error (%)"] == ["b", "80", "[70, 90]", "20"]


@pytest.mark.parametrize("oracle", [True, False])
def test_the_picture_says_what_it_shows(oracle: bool) -> None:
    settings = {"config": RECIPE, "temperature": 0.5, "max_completion_length": 128}
    record = {"settings": settings, "models": [_gap(oracle=False), _gap(oracle=oracle)], "differences": []}
    title = caption(record)
    assert RECIPE in title and "60 held-out examples" in title and "temperature 0.5" in title
    figure = draw_gaps({str(i): gap for i, gap in enumerate(record["models"])}, title)
    assert figure.get_suptitle() == title and len(figure.axes) == (4 if oracle else 2)
    better = [axis.get_title().rsplit(": ")[1] for axis in figure.axes]
    assert better == ["lower is better", "higher is better", "lower is better", "lower is better"][: len(better)]
    recovery = figure.axes[0]
    assert recovery.get_xscale() == "log" and recovery.xaxis.get_transform().base == 2
    assert [label.get_text() for label in recovery.get_xticklabels()] == ["1", "2", "4", "32"]
    if oracle:
        assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["1", "2", "4", "96"]
    name = record["models"][1]["model"]
    rows = {row[0]: row[2:] for row in gap_tables(record)[0].cells if name.endswith(row[1])}
    assert rows["truncated completions (%)"] == ["5", "–", "60"] and rows["Δ(32) (nats/token)"][0] == "+0.32"
    assert rows.get("all steps correct (%)") == (["33.33", "–", "60"] if oracle else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": []}, "--model: got none, expected at least one model. Give a model with --model"),
        ({"config": None}, "recipe: got none"),
        ({"prefix_lengths": [0]}, "--prefix_lengths"),
        ({"model": ["a", "a"]}, "--model: got a model twice, expected every model once"),
        ({"error_positions": [0.5, 1.0]}, "--error_positions: got [0.5, 1.0]"),
        ({"error_positions": [0.5, 0.5]}, "--error_positions: got a position twice"),
        ({"error_positions": [], "error_source": "a"}, "--error_source: got a value without positions"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_gap(_options(tmp_path, **change), [])
    assert message in str(error.value) and not list(tmp_path.iterdir())
