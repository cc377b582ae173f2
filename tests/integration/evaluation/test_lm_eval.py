"""The bridge to lm-evaluation-harness: recipes, commands, results, a stand-in for the harness, and the real one."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE, ROOT
from helpers.commands import evaluate

from gapbridge.errors import ConfigError, RunError
from gapbridge.evaluation.lm_eval.harness import harness_model_args, harness_options, metric_row, run_harness
from gapbridge.evaluation.lm_eval.harness_recipe import HarnessTask, LmEvalRecipe, read_lm_eval_recipe
from gapbridge.files import write_json_atomic


GENERAL_QA = ROOT / "recipes" / "eval" / "general_qa.yaml"
DATA = Path("tests/data/lm_eval")
RESULTS = ROOT / DATA / "results.json"  # lm-eval 0.4.13's own, without the parts about the machine
ACC = HarnessTask("tiny_choice", 0, "acc")


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"tasks": [vars(ACC)], **keys}))
    return path


# --- recipes


def test_general_qa_is_the_leaderboards_list() -> None:
    recipe = read_lm_eval_recipe(GENERAL_QA)
    assert [(task.name, task.num_fewshot) for task in recipe.tasks] == [
        ("arc_challenge", 25),
        ("truthfulqa_mc2", 0),
        ("winogrande", 5),
        ("gsm8k", 5),
        ("hellaswag", 10),
        ("mmlu", 5),
    ]
    assert (recipe.limit, recipe.apply_chat_template, recipe.model_args) == (None, False, {"dtype": "auto"})
    command = "gapbridge eval --task lm_eval --config recipes/eval/general_qa.yaml --model MODEL"
    assert command in GENERAL_QA.read_text()


def test_faults_are_listed_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        tasks=[
            {"name": "arc_easy", "num_fewshots": 5, "metric": "acc"},
            {"name": "a,b", "num_fewshot": -1, "metric": 3},
            vars(ACC),
        ],
        batchsize=4,
        batch_size=0,
        apply_chat_template="",
        include_path="nowhere",
        limit=1.5,
        log_samples="yes",
        model_args={"device": "cpu", "pretrained": "m"},
    )
    with pytest.raises(ConfigError) as caught:
        read_lm_eval_recipe(path)
    words = [
        "tasks, entry 1 (arc_easy), num_fewshot: got no value",
        "tasks, entry 1 (arc_easy), num_fewshots: got the unknown key 'num_fewshots' (did you mean 'num_fewshot'?)",
        "tasks, entry 2 (a,b), name: got 'a,b'",
        "tasks, entry 2 (a,b), num_fewshot: got -1, expected an integer of at least 0",
        "tasks, entry 2 (a,b), metric: got 3, expected a string",
        "batch_size: got 0",
        "apply_chat_template: got '', expected true or false",
        "include_path: got 'nowhere', which is no directory",
        "limit: got 1.5",
        "model_args: got pretrained, which is given with --model; device, which is given with the environment",
        "log_samples: got 'yes'",
        "batchsize: got the unknown key 'batchsize' (did you mean 'batch_size'?)",
    ]
    assert len(caught.value.errors) == len(words)
    for word in words:
        assert any(error.startswith(f"{path}, {word}") for error in caught.value.errors), word


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"tasks": []}, "tasks: got [], expected entries with name"),
        ({"tasks": None}, "tasks: got no value"),
        ({"tasks": ["mmlu"]}, "tasks, entry 1: got 'mmlu'"),
        ({"tasks": [{1: "mmlu"}]}, "unknown key 1"),
        ({"batch_size": "auto:0"}, "batch_size: got 'auto:0'"),
        ({"batch_size": True}, "batch_size: got True"),
        ({"limit": 0}, "limit: got 0"),
        ({"model_args": ["dtype"]}, "model_args: got ['dtype']"),
    ],
)
def test_single_faults(tmp_path: Path, keys: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_lm_eval_recipe(write(tmp_path, **keys))
    assert word in str(caught.value)


def test_the_callers_limit_wins(tmp_path: Path) -> None:
    assert read_lm_eval_recipe(write(tmp_path, limit=5)).limit == 5
    assert read_lm_eval_recipe(write(tmp_path, limit=5), limit=0.1).limit == 0.1
    with pytest.raises(ConfigError, match="limit: got -1"):
        read_lm_eval_recipe(write(tmp_path), limit=-1)


# --- commands


def test_options(tmp_path: Path) -> None:
    args = {"pretrained": "a,b=c"}
    options = harness_options(LmEvalRecipe([ACC]), ["tiny_choice", "tiny_number"], 5, args)
    assert options == [
        "--model", "hf",
        "--model_args", '{"pretrained": "a,b=c"}',
        "--tasks", "tiny_choice,tiny_number",
        "--num_fewshot", "5",
    ]  # fmt: skip
    full = LmEvalRecipe([ACC], apply_chat_template=True, include_path=str(tmp_path), limit=0.5, log_samples=True)
    assert harness_options(full, ["tiny_choice", "tiny_number"], 5, args)[len(options) :] == [
        "--limit", "0.5", "--include_path", str(tmp_path), "--log_samples", "--apply_chat_template",
    ]  # fmt: skip


def test_model_arguments(tmp_path: Path) -> None:
    assert harness_model_args("owner/name", {"dtype": "auto"}) == {"pretrained": "owner/name", "dtype": "auto"}
    assert harness_model_args(str(BASE), {}) == {"pretrained": str(BASE)}
    adapter = tmp_path / "adapter"
    write_json_atomic(adapter / "adapter_config.json", {"base_model_name_or_path": "owner/base"})
    assert harness_model_args(str(adapter), {}) == {"pretrained": "owner/base", "peft": str(adapter)}
    write_json_atomic(adapter / "tokenizer_config.json", {})
    assert harness_model_args(str(adapter), {})["tokenizer"] == str(adapter)
    assert harness_model_args(str(adapter), {"tokenizer": "mine"})["tokenizer"] == "mine"


def test_model_faults(tmp_path: Path) -> None:
    for missing in (str(tmp_path / "none"), "./none", "outputs/run/none"):
        with pytest.raises(ConfigError, match="no such directory"):
            harness_model_args(missing, {})
    write_json_atomic(tmp_path / "adapter_config.json", {})
    with pytest.raises(ConfigError, match="got no base model"):
        harness_model_args(str(tmp_path), {})
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(
        ConfigError, match="adapter_config.json: got no base model, or a damaged file .*JSONDecodeError"
    ):
        harness_model_args(str(tmp_path), {})


# --- results


def test_results_become_rows() -> None:
    tasks = [HarnessTask("tiny_number", 0, "exact_match,strict-match"), ACC, HarnessTask("tiny_group", 0, "acc")]
    rows: Any = [metric_row(task, RESULTS) for task in tasks]
    assert [(row["task"], row["metric"], row["value"], row["n"]) for row in rows] == [
        ("tiny_number", "exact_match,strict-match", 5 / 12, 12),
        ("tiny_choice", "acc,none", 0.5, 12),
        ("tiny_group", "acc,none", 0.5, 12),
    ]
    # The harness's standard error of a mean: sample deviation / √n.
    assert rows[1]["stderr"] == pytest.approx((0.25 * 12 / 11 / 12) ** 0.5)
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.2538, 0.7462), abs=1e-4), "Wilson's for 6 of 12"
    assert set(rows[0]) == {"task", "num_fewshot", "metric", "value", "stderr", "low", "high", "n"}


@pytest.mark.parametrize(
    ("task", "word"),
    [
        (HarnessTask("mmlu", 0, "acc"), "got no task mmlu, expected one of tiny_choice, tiny_number, tiny_group"),
        (HarnessTask("tiny_choice", 0, "f1"), 'got f1, which is missing, expected one of "acc,none", "acc_norm'),
        (
            HarnessTask("tiny_number", 0, "exact_match"),
            'got exact_match, which has several filters, expected one of "exact_match,st',
        ),
        (HarnessTask("tiny_choice", 5, "acc"), "num_fewshot: got 5, expected 0, which the task fixes"),
    ],
)
def test_missing_results(task: HarnessTask, word: str) -> None:
    assert word in str(metric_row(task, RESULTS))


def changed(folder: Path, **values: Any) -> Any:
    content = json.loads(RESULTS.read_text())
    content["results"]["tiny_choice"].update(values)
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return metric_row(ACC, path)


def test_a_group_without_a_total_is_told(tmp_path: Path) -> None:
    content = json.loads(RESULTS.read_text())
    content["results"]["tiny_choice"] = {"alias": "tiny_choice"}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert "got acc, which is missing, expected a group with a total. List the group's" in str(metric_row(ACC, path))


def test_what_is_no_share_has_the_normal_interval(tmp_path: Path) -> None:
    row = changed(tmp_path, **{"acc,none": 3.25, "acc_stderr,none": 0.5})
    assert (row["low"], row["high"]) == pytest.approx((3.25 - 0.98, 3.25 + 0.98), abs=1e-4)
    row = changed(tmp_path, **{"acc_stderr,none": "N/A"})
    assert (row["value"], row["stderr"], row["low"], row["high"]) == (0.5, None, None, None)


def test_damaged_results(tmp_path: Path) -> None:
    assert "acc,none: got nan over 12 examples" in changed(tmp_path, **{"acc,none": float("nan")})
    assert "acc,none: got 0.5 over None examples" in changed(tmp_path, sample_len=None)
    path = tmp_path / "results.json"
    for text in ("{", "[]", '{"results": {}}', '{"results": 1, "n-shot": {}}'):
        path.write_text(text)
        assert "expected the results of lm-eval" in str(metric_row(ACC, path))


# --- the process


def test_output_is_passed_on_and_its_end_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = r"import sys; print('Δ one'); sys.stderr.write('1%\r2%\r\n'); print('last', end=''); sys.exit(3)"
    with pytest.raises(RunError, match="exit code 3(.|\n)*Δ one\n1%\n2%\nlast"):
        run_harness([sys.executable, "-c", script], tmp_path)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").startswith("Δ one")
    assert "Δ one" in capfd.readouterr().err
    with pytest.raises(RunError, match="exit code 0 and no results(.|\n)*nothing to say"):
        run_harness([sys.executable, "-c", "print('nothing to say')"], tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_harness(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got no lm-evaluation-harness, .*gapbridge\[lm-eval\]"):
        evaluate("lm_eval", config=str(write(tmp_path)), model=[str(BASE)], output_dir=tmp_path)
    assert not (tmp_path / "eval").exists()


STAND_IN = """
import shutil, sys
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if options["--num_fewshot"] == "3":
    sys.exit("Tasks not found: " + options["--tasks"])
print("evaluating")
output = Path(options["--output_path"])
shutil.copy("tests/data/lm_eval/results.json", output.with_name("results_2025-01-01.json"))
"""


def test_what_is_complete_is_not_run_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a stand-in for the harness, which gives every model the same results."""
    package = tmp_path / "package" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    caplog.set_level("INFO", logger="gapbridge")
    tasks = [vars(ACC), vars(HarnessTask("tiny_choice", 0, "acc_norm")), vars(HarnessTask("tiny_number", 3, "f1"))]
    models = [str(tmp_path / "a"), str(tmp_path / "b")]
    for model in models:
        write_json_atomic(Path(model) / "config.json", {"name": model})
    options: dict[str, Any] = {"model": models[:1], "output_dir": tmp_path / "out"}
    options["config"] = str(write(tmp_path, tasks=tasks))
    with pytest.raises(RunError, match="exit code 1(.|\n)*Tasks not found: tiny_number"):
        evaluate("lm_eval", **options)
    assert not (tmp_path / "out" / "eval" / "lm_eval.json").exists()

    write(tmp_path, tasks=tasks[:2], batch_size=1)
    path = evaluate("lm_eval", **options)
    (row, _) = json.loads(path.read_text())["results"]
    assert (row["model"], row["value"], row["n"]) == (models[0], 0.5, 12)
    assert (
        caplog.text.count("examples in the prompt") == 2 and caplog.text.count("is complete and is not repeated") == 1
    )
    printed = capsys.readouterr().out
    assert "tiny_choice" in printed and max(map(len, printed.splitlines()[:-1])) <= 100

    written = path.stat().st_mtime_ns
    evaluate("lm_eval", **options)
    assert path.stat().st_mtime_ns == written and "this evaluation is complete" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="max_examples: got nothing, expected 2"):
        evaluate("lm_eval", **options, max_examples=2)
    path.unlink()
    both = json.loads(evaluate("lm_eval", **{**options, "model": models}).read_text())["results"]
    assert [row["model"] for row in both] == [models[0]] * 2 + [models[1]] * 2
    write_json_atomic(Path(models[0]) / "config.json", {"name": "trained on"})
    path.unlink()
    evaluate("lm_eval", **options)
    assert caplog.text.count("examples in the prompt") == 4, "other weights under the same name are another model"


@pytest.mark.slow
@pytest.mark.nightly  # the whole harness on several models: the parts have tests of their own
def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Two groups on the tiny model, a second call that runs nothing, and a failure that can be read."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = [
        vars(HarnessTask("tiny_number", 0, "exact_match,strict-match")),
        vars(HarnessTask("tiny_choice", 1, "acc_norm")),
        vars(HarnessTask("tiny_group", 0, "acc")),
    ]
    keys: dict[str, Any] = {
        "tasks": tasks,
        "include_path": str(DATA),
        "apply_chat_template": True,
        "log_samples": True,
        "model_args": {"dtype": "float32"},
    }
    out = tmp_path / "eval"
    options: dict[str, Any] = {"model": [str(BASE.relative_to(ROOT))], "output_dir": tmp_path}

    path = evaluate("lm_eval", **options, config=str(write(tmp_path, **keys)))
    results = json.loads(path.read_text())["results"]
    assert [(row["task"], row["num_fewshot"], row["n"]) for row in results] == [
        (task["name"], task["num_fewshot"], 12) for task in tasks
    ]
    # Our own grading of what the model answered.
    (samples,) = (out / "lm_eval").glob("0_shot-*/samples_tiny_number_*.jsonl")
    answered = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    strict = [sample for sample in answered if sample["filter"] == "strict-match"]
    right = [re.findall(r"#### (\d+)", sample["resps"][0][0])[:1] == [sample["target"]] for sample in strict]
    assert len(right) == 12 and 0 < results[0]["value"] == sum(right) / 12

    caplog.set_level("INFO", logger="gapbridge")
    before = sorted(out.rglob("*"))
    tasks[0]["metric"] = "exact_match,flexible-extract"  # picked from what is there
    path.unlink()
    again = evaluate("lm_eval", **options, config=str(write(tmp_path, **keys)))
    assert json.loads(again.read_text())["results"][1:] == results[1:] and sorted(out.rglob("*")) == before
    assert caplog.text.count("is complete and is not repeated") == 2

    keys["tasks"] = [{"name": "no_such_task", "num_fewshot": 3, "metric": "acc"}]
    path.unlink()
    with pytest.raises(RunError, match="exit code 1(.|\n)*no_such_task"):
        evaluate("lm_eval", **options, config=str(write(tmp_path, **keys)))
