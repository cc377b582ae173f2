"""The bridge to lm-evaluation-harness: recipes, commands, results, and one real run on the tiny model."""

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

from gapbridge.errors import ConfigError, RunError
from gapbridge.evaluation.lm_eval.recipe import LmEvalRecipe, Task, read_lm_eval_recipe
from gapbridge.evaluation.lm_eval.run import (
    as_rows,
    build_command,
    finished_results,
    harness_model_args,
    read_results,
    run_lm_eval,
    stream_command,
)
from gapbridge.files import write_json_atomic


GENERAL_QA = ROOT / "recipes" / "eval" / "general_qa.yaml"
DATA = Path("tests/data/lm_eval")
RESULTS = ROOT / DATA / "results.json"  # lm-eval 0.4.13's own, without the parts about the machine
ACC = Task("tiny_choice", 0, "acc")


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
            vars(ACC),
            "mmlu",
        ],
        batchsize=4,
        batch_size=0,
        apply_chat_template="",
        include_path="nowhere",
        limit=1.5,
        log_samples="yes",
        model_args={"pretrained": "m", "device": "cpu"},
    )
    with pytest.raises(ConfigError) as caught:
        read_lm_eval_recipe(path)
    words = [
        "unknown key 'batchsize' (did you mean 'batch_size'?)",
        "tasks, entry 1: unknown key 'num_fewshots' (did you mean 'num_fewshot'?)",
        "tasks, entry 1: num_fewshot is missing",
        "tasks, entry 2: name is 'a,b'",
        "tasks, entry 2: num_fewshot is -1",
        "tasks, entry 2: metric is 3",
        "tasks, entry 4: tiny_choice with 0 examples and acc is there twice",
        "tasks, entry 5 is 'mmlu'",
        "batch_size is 0",
        "apply_chat_template is ''",
        "include_path is 'nowhere': no such directory",
        "limit is 1.5",
        "model_args: pretrained: the model is given with --model",
        "model_args: device: the device is given with --device",
        "log_samples is 'yes'",
    ]
    assert len(caught.value.faults) == len(words)
    for word, fault in zip(words, caught.value.faults, strict=True):
        assert fault.startswith(f"{path}: {word}")


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"tasks": []}, "give a list of"),
        ({"tasks": None}, "give a list of"),
        ({"batch_size": "auto:0"}, "batch_size is 'auto:0'"),
        ({"batch_size": True}, "batch_size is True"),
        ({"limit": 0}, "limit is 0"),
        ({"model_args": ["dtype"]}, "it must map names to values"),
        ({"model_args": {"dtype": float("nan")}}, "model_args: dtype is nan: it must be text"),
    ],
)
def test_single_faults(tmp_path: Path, keys: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_lm_eval_recipe(write(tmp_path, **keys))
    assert word in str(caught.value)


def test_the_callers_limit_wins(tmp_path: Path) -> None:
    assert read_lm_eval_recipe(write(tmp_path, limit=5)).limit == 5
    assert read_lm_eval_recipe(write(tmp_path, limit=5), limit=0.1).limit == 0.1
    with pytest.raises(ConfigError, match="limit is -1"):
        read_lm_eval_recipe(write(tmp_path), limit=-1)


# --- commands


def test_command(tmp_path: Path) -> None:
    tasks = (ACC, Task("tiny_number", 0, "exact_match"), Task("tiny_choice", 0, "acc_norm"))
    recipe = LmEvalRecipe(Path("r.yaml"), tasks, batch_size=4)
    args = {"pretrained": "a,b=c"}
    command = build_command(recipe, tasks, args, tmp_path, None)
    assert command == [
        sys.executable, "-m", "lm_eval", "run",
        "--model", "hf",
        "--model_args", '{"pretrained": "a,b=c"}',
        "--tasks", "tiny_choice,tiny_number",
        "--num_fewshot", "0",
        "--batch_size", "4",
        "--output_path", str(tmp_path / "results.json"),
    ]  # fmt: skip
    full = LmEvalRecipe(
        Path("r.yaml"), tasks, apply_chat_template=True, include_path="there", limit=0.5, log_samples=True
    )
    assert build_command(full, tasks, args, tmp_path, "cuda:1")[len(command) :] == [
        "--device", "cuda:1", "--limit", "0.5", "--include_path", "there", "--log_samples", "--apply_chat_template",
    ]  # fmt: skip
    named = LmEvalRecipe(Path("r.yaml"), tasks, apply_chat_template="tool_use")
    assert build_command(named, tasks, args, tmp_path, None)[-2:] == ["--apply_chat_template", "tool_use"]


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
    with pytest.raises(ConfigError, match="holds neither"):
        harness_model_args(str(tmp_path), {})
    write_json_atomic(tmp_path / "adapter_config.json", {})
    with pytest.raises(ConfigError, match="base_model_name_or_path is missing"):
        harness_model_args(str(tmp_path), {})
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        harness_model_args(str(tmp_path), {})


# --- results


def test_results_become_rows() -> None:
    tasks = [Task("tiny_number", 0, "exact_match,strict-match"), ACC, Task("tiny_group", 0, "acc")]
    rows = as_rows(read_results(RESULTS, tasks))
    assert [(row["task"], row["metric"], row["value"], row["n"]) for row in rows] == [
        ("tiny_number", "exact_match,strict-match", 5 / 12, 12),
        ("tiny_choice", "acc,none", 0.5, 12),
        ("tiny_group", "acc,none", 0.5, 12),
    ]
    # The harness's standard error of a mean: sample deviation / √n.
    assert rows[1]["stderr"] == pytest.approx((0.25 * 12 / 11 / 12) ** 0.5)
    assert rows[1]["low"] == pytest.approx(0.5 - 1.96 * rows[1]["stderr"], abs=1e-4)
    assert set(rows[0]) == {"task", "num_fewshot", "metric", "value", "stderr", "low", "high", "n"}


def test_missing_results_are_listed_at_once() -> None:
    wrong = [
        Task("mmlu", 0, "acc"),
        Task("tiny_choice", 0, "f1"),
        Task("tiny_number", 0, "exact_match"),
        Task("tiny_choice", 5, "acc"),
    ]
    with pytest.raises(RunError) as caught:
        read_results(RESULTS, wrong)
    faults = caught.value.faults
    assert len(faults) == 4
    assert "no task mmlu; there are tiny_choice, tiny_number, tiny_group" in faults[0]
    assert 'metric f1 is missing; name one of these in the recipe: "acc,none", "acc_norm,none"' in faults[1]
    assert 'several filters; name one of these in the recipe: "exact_match,strict-match"' in faults[2]
    assert "ran with num_fewshot 0, which the task fixes, and the recipe asks for 5" in faults[3]


def changed_results(folder: Path, **values: Any) -> Path:
    content = json.loads(RESULTS.read_text())
    content["results"]["tiny_choice"].update(values)
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_an_unknown_error_is_none(tmp_path: Path) -> None:
    path = changed_results(tmp_path, **{"acc_stderr,none": "N/A"})
    (row,) = as_rows(read_results(path, [ACC]))
    assert (row["value"], row["stderr"], row["low"], row["high"]) == (0.5, None, None, None)


@pytest.mark.parametrize(
    ("values", "word"),
    [({"acc,none": float("nan")}, "acc,none is nan, no number"), ({"sample_len": None}, "sample_len is None")],
)
def test_values_that_cannot_be(tmp_path: Path, values: dict[str, Any], word: str) -> None:
    with pytest.raises(RunError, match=word):
        read_results(changed_results(tmp_path, **values), [ACC])


def test_damaged_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for text in ("{", "[]", '{"results": {}}', '{"results": 1, "n-shot": {}}'):
        path.write_text(text)
        with pytest.raises(RunError, match="no results of lm-eval"):
            read_results(path, [ACC])


def test_a_finished_group_is_known_by_its_settings(tmp_path: Path) -> None:
    settings = {"tasks": ["tiny_choice"], "limit": None}
    assert finished_results(tmp_path, settings) is None
    record = tmp_path / "group.json"
    write_json_atomic(record, {"settings": settings, "results": "results_1.json"})
    assert finished_results(tmp_path, settings) is None, "the results are gone: it runs again"
    (tmp_path / "results_1.json").write_text("{}")
    assert finished_results(tmp_path, settings) == tmp_path / "results_1.json"
    with pytest.raises(RunError) as caught:
        finished_results(tmp_path, {"tasks": ["mmlu"], "limit": 3})
    assert caught.value.faults[1:] == [
        "limit: the results there have None, this run 3",
        "tasks: the results there have ['tiny_choice'], this run ['mmlu']",
    ]
    for text in ("{", "[]", '{"settings": 1, "results": "r"}'):
        record.write_text(text)
        with pytest.raises(RunError, match="is damaged"):
            finished_results(tmp_path, settings)


# --- the process


def test_output_is_passed_on_and_its_end_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = r"import sys; print('Δ one'); sys.stderr.write('1%\r2%\r\n'); print('last', end=''); sys.exit(3)"
    code, tail = stream_command([sys.executable, "-c", script], tmp_path / "log.txt")
    assert code == 3 and tail.split("\n") == ["Δ one", "1%", "2%", "last"]
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").startswith("Δ one")
    assert "Δ one" in capfd.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_harness(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install \"gapbridge\[lm-eval\]\""):
        run_lm_eval(write(tmp_path), str(BASE), tmp_path)
    assert not (tmp_path / "lm_eval").exists()


@pytest.mark.slow
def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Two groups on the tiny model, a second call that runs nothing, refusals, and a failure that can be read."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = [
        Task("tiny_number", 0, "exact_match,strict-match"),
        Task("tiny_choice", 1, "acc_norm"),
        Task("tiny_group", 0, "acc"),
    ]
    keys: dict[str, Any] = {
        "tasks": [vars(task) for task in tasks],
        "include_path": str(DATA),
        "apply_chat_template": True,
        "log_samples": True,
        "model_args": {"dtype": "float32"},
    }
    model, out = BASE.relative_to(ROOT), tmp_path / "eval"

    results = run_lm_eval(write(tmp_path, **keys), str(model), out, device="cpu")
    assert [(row.task, row.num_fewshot, row.n) for row in results] == [
        (task.name, task.num_fewshot, 12) for task in tasks
    ]
    # Our own grading of what the model answered.
    (samples,) = (out / "lm_eval" / "0_shot").glob("samples_tiny_number_*.jsonl")
    answered = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    strict = [sample for sample in answered if sample["filter"] == "strict-match"]
    right = [re.findall(r"#### (\d+)", sample["resps"][0][0])[:1] == [sample["target"]] for sample in strict]
    assert len(right) == 12 and 0 < results[0].value == sum(right) / 12

    caplog.set_level("INFO", logger="gapbridge")
    before = sorted(out.rglob("*"))
    keys["tasks"][0]["metric"] = "exact_match,flexible-extract"  # picked from what is there
    again = run_lm_eval(write(tmp_path, **keys), str(model), out, device="cpu")
    assert again[1:] == results[1:] and sorted(out.rglob("*")) == before
    assert caplog.text.count("is complete and not run again") == 2

    with pytest.raises(RunError, match="limit: the results there have None, this run 2"):
        run_lm_eval(write(tmp_path, **keys), str(model), out, limit=2)

    keys["tasks"] = [{"name": "no_such_task", "num_fewshot": 3, "metric": "acc"}]
    with pytest.raises(RunError, match="exit code 1(.|\n)*Tasks not found: no_such_task"):
        run_lm_eval(write(tmp_path, **keys), str(model), out, device="cpu")
    assert not (out / "lm_eval" / "3_shot" / "group.json").exists()
