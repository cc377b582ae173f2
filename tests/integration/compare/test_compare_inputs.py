"""All seeds and variants of a comparison are made from the same rows and models, and a killed worker is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import BASE
from helpers import ENVIRONMENT, recipe, write_rows

from gapbridge.compare.command import EXPERIMENT_FILE, check_models, merged_settings, recorded
from gapbridge.compare.experiment_config import Experiment, Variant
from gapbridge.compare.experiment_plan import ExperimentPlan
from gapbridge.errors import RunError
from gapbridge.recipe.type_checks import read_yaml
from gapbridge.store.file_hashes import hash_model
from gapbridge.tasks.task import task_named
from gapbridge.tasks.word_problems import problems


ROWS = [problem.row() for problem in problems("test", count=6, steps=(1,))]


@pytest.fixture
def comparison(tmp_path: Path) -> ExperimentPlan:
    shutil.copytree(BASE, tmp_path / "init_model")
    held_out = write_rows(tmp_path / "test.jsonl", ROWS[:4])
    path = recipe(tmp_path, method="sft", eval_datasets=[{"path": "json", "data_files": held_out}])[1]
    keys = read_yaml(Path(path)) | {"model_name_or_path": str(tmp_path / "init_model")}
    keys.pop("method")
    (tmp_path / "out").mkdir()
    variants = {name: Variant(name, name) for name in ("sft", "bash")}
    return ExperimentPlan(Experiment("compare", path, (1,), variants), tmp_path / "out", "sft", keys)


def settings_of(comparison: ExperimentPlan) -> dict[str, Any]:
    return recorded(comparison, task_named("summarization"))


def begin(comparison: ExperimentPlan) -> None:
    (comparison.directory / EXPERIMENT_FILE).write_text(json.dumps(settings_of(comparison)))


def again(comparison: ExperimentPlan, **changes: Any) -> dict[str, Any]:
    """The settings when the command is given once more, with changes to the experiment."""
    later = replace(comparison, experiment=replace(comparison.experiment, **changes))
    return merged_settings(comparison.directory, settings_of(later))


def refusal(comparison: ExperimentPlan, **changes: Any) -> list[str]:
    with pytest.raises(RunError) as error:
        again(comparison, **changes)
    return error.value.errors


def test_rows_under_the_same_names(comparison: ExperimentPlan, tmp_path: Path) -> None:
    begin(comparison)
    assert set(again(comparison, seeds=(1, 2))["inputs"]["files"]) == {str(tmp_path / "init_model")}
    write_rows(tmp_path / "test.jsonl", [*ROWS[:3], ROWS[5]])
    for seeds in ((1, 2), (2,)):  # seed 1 is on the page in both cases
        errors = refusal(comparison, seeds=seeds)
        assert len(errors) == 2, "one for each variant"
        assert all(f"held-out rows of {tmp_path / 'test.jsonl'}" in error and "got '" in error for error in errors)
        assert all(error.startswith(f"{comparison.directory / EXPERIMENT_FILE}, variant ") for error in errors)
    write_rows(tmp_path / "test.jsonl", ROWS[:4])
    again(comparison, seeds=(1, 2))


def test_another_first_model_and_other_files(comparison: ExperimentPlan, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    comparison.keys["chat_template_path"] = str(template)
    begin(comparison)
    template.write_text("{{ messages[0] }}")
    (tmp_path / "init_model" / "generation_config.json").write_text("{}")
    errors = refusal(comparison)
    assert len(errors) == 2 and any(str(template) in error for error in errors)
    assert any(f"{tmp_path / 'init_model'}: got" in error for error in errors)


def test_keys_that_matter_and_keys_that_do_not(comparison: ExperimentPlan) -> None:
    begin(comparison)
    free = {"logging_steps": 5, "generation_batch_size": 3}
    variants = {**comparison.experiment.variants, "bash": Variant("bash", "bash", free)}
    again(comparison, overrides={"logging_steps": 7, "dataloader_num_workers": 1}, variants=variants)
    (error,) = refusal(comparison, overrides={"learning_rate": 0.5})
    assert "overrides, learning_rate: got None, expected 0.5" in error
    variants = {**comparison.experiment.variants, "spin": Variant("spin", "spin")}
    merged = again(comparison, variants=variants)
    assert {name.partition(":")[0] for name in merged["inputs"]["rows"]} == {
        "variant sft",
        "variant bash",
        "variant spin",
    }


def test_an_older_version_is_refused(comparison: ExperimentPlan) -> None:
    settings = settings_of(comparison)
    del settings["inputs"]
    (comparison.directory / EXPERIMENT_FILE).write_text(json.dumps(settings))
    assert all("got 'nothing'" in error for error in refusal(comparison))


def test_a_finished_arm_with_another_model(comparison: ExperimentPlan) -> None:
    place = comparison.place(1)
    shutil.copytree(BASE, place / "sft")
    (place / "_results").mkdir()
    result = place / "_results" / "sft.json"
    result.write_text(json.dumps({"model": hash_model(place / "sft")}))
    check_models(comparison.directory)
    content = bytearray((place / "sft" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "sft" / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"_results/sft.json, model: got \w+, expected"):
        check_models(comparison.directory)
    shutil.rmtree(place / "sft")  # weights may be deleted when all is measured
    check_models(comparison.directory)


@pytest.mark.nightly  # each worker imports everything again: a minute
def test_a_comparison_goes_on_after_a_worker_was_killed(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "test.jsonl", ROWS[:4])
    path = recipe(tmp_path, method="sft", eval_datasets=[{"path": "json", "data_files": held_out}])[1]
    output = tmp_path / "out"
    words = ["compare", path, "--methods", "sft", "--seeds", "1,2", "--num_parallel_seeds", "2", "--temperatures", "0"]
    words += ["--task", "summarization", "--max_completion_length", "4", "--output_dir", str(output)]
    command = [sys.executable, "-m", "gapbridge", *words]
    log = tmp_path / "log"
    with open(log, "w") as file, subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=file) as process:
        while not (output / "seed_1" / "_recipes").is_dir():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        assert process.wait(200) == 2
    assert "RunError" in log.read_text() and "worker: got the end of a process" in log.read_text()
    assert "Traceback" not in log.read_text() and not any(worker.is_running() for worker in workers)
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0
    assert {cell["seed"] for cell in json.loads((output / "compare.json").read_text())["cells"]} == {1, 2}
