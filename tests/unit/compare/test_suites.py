"""What is compared, from an experiment file or the command line: strictly, with all errors at once."""

from __future__ import annotations

import itertools
import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE, ROOT
from helpers import recipe, refused, write_rows

from gapbridge import cli
from gapbridge.compare.experiment_config import Evaluation, Experiment, Variant, filled, read_experiment
from gapbridge.compare.experiment_plan import ExperimentPlan, dropped_keys, known_keys, read_comparison, variant_recipe
from gapbridge.errors import ConfigError, RunError


GOOD: dict[str, Any] = {
    "name": "mine",
    "recipe": "r.yaml",
    "seeds": [1, 2],
    "budget": "tokens",
    "init_model": {"commands": "make --seed {seed} --output {init_model}", "directory": "bases/{seed}"},
    "overrides": {"max_train_examples": 8},
    "start": {"method": "sft", "num_train_epochs": 2},
    "variants": {
        "bash_0.4": {"method": "bash", "mixture_coefficient": 0.4},
        "rac": {"method": "rac", "decoding_modes": ["self_correct"]},
        "fresh": {"method": "sft", "init_from": "none"},
    },
    "evaluation": {"task": "math", "temperatures": 0, "error_positions": [0.5]},
}


def experiment(folder: Path, **changes: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return path


def test_a_suite(tmp_path: Path) -> None:
    found = read_experiment(experiment(tmp_path))
    assert list(found.variants) == ["start", "sft", "bash_0.4", "rac", "fresh"]
    assert found.variants["start"].init_from == "none" and found.control == Variant("sft", "sft", init_from="start")
    assert found.variants["rac"] == Variant("rac", "rac", {}, ("single_pass", "self_correct"), "start")
    assert found.variants["bash_0.4"].overrides == {"mixture_coefficient": 0.4}
    assert found.evaluation == Evaluation("math", temperatures=(0.0,), gap=True, error_positions=(0.5,))
    same = read_experiment(experiment(tmp_path, evaluation={"prefix_lengths": 4, "same_completions": True}))
    assert same.evaluation == Evaluation(gap=True, prefix_lengths=(4,), same_completions=True)
    assert found.init_model_directory(2) == "bases/2" and found.budget == "tokens" and found.seeds == (1, 2)
    assert filled({"a": ["{init_model}/x", 1, "{seed}"]}, 3, "b") == {"a": ["b/x", 1, "3"]}


def test_a_control_of_ones_own(tmp_path: Path) -> None:
    variants = {"bash": {"method": "bash"}, "sft": {"method": "sft", "learning_rate": 1e-4}}
    found = read_experiment(experiment(tmp_path, variants=variants, start=None))
    assert list(found.variants) == ["sft", "bash"] and found.control.overrides == {"learning_rate": 1e-4}
    assert {variant.init_from for variant in found.variants.values()} == {"none"}


def test_all_faults_of_a_suite_at_once(tmp_path: Path) -> None:
    variants = {
        "a": {"method": "bsh"},
        "b": {"method": "rac", "decoding_modes": ["self_corect"], "init_from": "rca"},
        "c/d": {"method": "sft"},
        "g": 3,
        "sft": {"method": "bash"},
    }
    changes = {
        "variants": variants,
        "seeds": [1, 1],
        "evalution": {},
        "budget": "rows",
        "init_model": {"commands": "x"},
    }
    evaluation = {"task": "lm_eval", "temperatures": [-1], "max_examples": 0, "error_positions": [2], "gap": "yes"}
    evaluation["prefix_lengths"] = [0]
    with pytest.raises(ConfigError) as error:
        read_experiment(experiment(tmp_path, **changes, evaluation=evaluation))
    said = "\n".join(error.value.errors)
    for words in (
        "unknown key 'evalution' (did you mean 'evaluation'?)",
        "budget: got 'rows'",
        "variants, a, method: got 'bsh' (did you mean 'bash'?), expected one of bash, dpo",
        "variants, b, decoding_modes, entry 1: got 'self_corect' (did you mean 'self_correct'?)",
        "b, init_from: got 'rca', expected one of none, start",
        "variants, c/d, name: got 'c/d'",
        "variants, g: got 3, expected a mapping with a method",
        "seeds: got a seed twice",
        "got the method bash for the control",
        "init_model, directory: got no value",
        "task: got 'lm_eval'",
        "temperatures, entry 1: got -1, expected one or more numbers of at least 0",
        "max_examples: got 0",
        "error_positions, entry 1: got 2, expected relative positions",
        "gap: got 'yes', expected true or false",
        "prefix_lengths, entry 1: got 0, expected lengths of 1 or more",
    ):
        assert words in said, words
    assert len(error.value.errors) == 16
    assert all(message.startswith(str(tmp_path)) for message in error.value.errors)


def test_faults_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "compare", "--budget", "rows", "--temperatures", "0,0", "--seeds", "1,1")
    for words in ("recipe: got none", "--methods: got none", "--budget: got 'rows'", " twice", "--seeds: got"):
        assert words in said
    said = refused(capsys, "compare", "--methods", "bash,bsh", "r.yaml")
    assert "--methods, bsh, method: got 'bsh' (did you mean 'bash'?)" in said
    assert "--seeds: got 'x', expected an integer" in refused(capsys, "compare", "r.yaml", "--seeds", "1,x")
    said = refused(
        capsys, "compare", "r.yaml", "--experiment_config", str(experiment(tmp_path)), "--methods", "bash", "--gap"
    )
    assert "Remove RECIPE, --methods, --gap" in said
    said = refused(capsys, "compare", "--experiment_config", str(experiment(tmp_path)), "--seeds", "3,3")
    assert "--seeds: got a seed twice" in said


def test_faults_of_arms_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Recipe, keys and rows of every variant are looked at before anything is trained."""
    own = recipe(tmp_path)[1]
    assert "got no held-out data" in refused(capsys, "compare", own, "--methods", "bash")
    rows = str(tmp_path / "train.jsonl")
    own = recipe(tmp_path, eval_datasets=[{"path": "json", "data_files": rows}])[1]
    variants = {"noisy": {"method": "bash", "mixture_coeficient": 1}, "pairs": {"method": "dpo"}}
    path = experiment(
        tmp_path, recipe=own, variants=variants, init_model=None, start=None, overrides={"lerning_rate": 1}
    )
    said = refused(capsys, "compare", "--experiment_config", str(path), "--output_dir", str(tmp_path / "out"))
    assert "overrides, lerning_rate: got the unknown key 'lerning_rate' (did you mean 'learning_rate'?)" in said
    experiment(tmp_path, recipe=own, variants=variants, init_model=None, start=None)
    said = refused(capsys, "compare", "--experiment_config", str(path), "--output_dir", str(tmp_path / "out"))
    assert "variant noisy: got the unknown key 'mixture_coeficient' (did you mean 'mixture_coefficient'?)" in said
    assert "variant pairs" in said and "rejected" in said and not (tmp_path / "out").exists()


def test_the_recipe_of_an_variant() -> None:
    """Keys of the recipe's own method that the variant's lacks are dropped, and named."""
    base_experiment = Experiment(
        "n", "r", (7,), {}, overrides={"max_completion_length": 9, "datasets": [{"path": "{init_model}/x-{seed}"}]}
    )
    keys = {"mixture_coefficient": 0.3, "learning_rate": 1e-4, "model_name_or_path": "m-{seed}", "output_dir": "o",
            "hub_token": "secret", "push_to_hub": True, "run_name": "x", "num_rounds": 2}  # fmt: skip
    comparison = ExperimentPlan(base_experiment, Path("d"), "bash", keys)
    plain = Variant("control", "sft", {"learning_rate": 1e-5})
    assert dropped_keys(comparison, plain) == ["max_completion_length", "mixture_coefficient", "num_rounds"]
    assert variant_recipe(comparison, plain, 7, max_steps=5) == {
        "method": "sft", "learning_rate": 1e-5, "datasets": [{"path": "/x-7"}], "seed": 7, "max_steps": 5,
        "model_name_or_path": "m-7", "push_to_hub": False, "output_dir": "d/seed_7/control",
    }  # fmt: skip
    later = variant_recipe(comparison, Variant("two", "rac", init_from="start"), 7)
    assert later["model_name_or_path"] == "d/seed_7/start" and later["max_completion_length"] == 9
    assert "mixture_coefficient" not in later and later["num_rounds"] == 2 and "env" in known_keys("rac")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "evidence").glob("*/*.yaml")), ids=lambda path: path.stem
)
def test_suites_of_the_evidence(path: Path) -> None:
    found = read_experiment(path)
    assert (ROOT / found.recipe).is_file()
    if path.parent.name == "cpu":  # the others show or explore, and prove nothing
        assert found.init_model is not None and len(found.seeds) >= 8
    text = path.read_text()
    parent = path
    while other := yaml.safe_load(parent.read_text()).get("extends"):
        parent = parent.parent / other
        text += parent.read_text()
        if path.parent.name == "gpu":  # the same variants, or more, with larger models or on more rows
            assert read_experiment(parent).variants.keys() <= found.variants.keys()
    for variant in found.variants.values():
        assert variant.method in text


def test_a_suite_says_only_what_is_different(tmp_path: Path) -> None:
    experiment(tmp_path)
    other = tmp_path / "later" / "other.yaml"
    other.parent.mkdir()
    said = {
        "extends": "../experiment.yaml",
        "overrides": {"seed": 5},
        "variants": {"fresh": None, "rac": {"temperature": 0.5}},
        "start": None,
        "seeds": [3],
    }
    other.write_text(yaml.safe_dump(said))
    found, parent = read_experiment(other), read_experiment(tmp_path / "experiment.yaml")
    assert found.overrides == {"max_train_examples": 8, "seed": 5} and found.seeds == (3,)
    assert "fresh" not in found.variants and "start" not in found.variants
    assert (
        found.variants["rac"].overrides == {"temperature": 0.5}
        and found.variants["rac"].decoding_modes == parent.variants["rac"].decoding_modes
    )
    assert (found.name, found.budget, found.evaluation, found.init_model) == (
        parent.name, parent.budget, parent.evaluation, parent.init_model,
    )  # fmt: skip
    for parent_name, error in (("nowhere.yaml", "expected an experiment file"), ("other.yaml", "got a circle")):
        other.write_text(yaml.safe_dump({**said, "extends": parent_name}))
        with pytest.raises(ConfigError, match=error):
            read_experiment(other)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare", "--help"])
    said = capsys.readouterr().out
    assert "math, if the references mark their answers" in " ".join(said.split()) and "--dry_run" in said
    assert all(len(line) <= 130 for line in said.splitlines())


def test_starting_models_are_made_once_and_whole(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "evidence" / "run.py"))
    make = """python -c "import os; os.mkdir('{init_model}'); open('{init_model}/{seed}', 'w')" """
    base = {"directory": f"{tmp_path}/bases/{{seed}}", "commands": [make, 'python -c "raise SystemExit({seed})"']}
    found = read_experiment(experiment(tmp_path, init_model=base))
    assert made["seeds_of"](found, ["--dry_run", "--seeds", "0,3"]) == [0, 3] and made["seeds_of"](found, []) == [1, 2]
    made["make_init_model"](found, 0)
    assert [path.name for path in (tmp_path / "bases").rglob("*")] == ["0", "0"]
    made["make_init_model"](found, 0)  # its first command would fail
    with pytest.raises(RunError, match="seed 3: .* ended with code 3"):
        made["make_init_model"](found, 3)
    assert not (tmp_path / "bases" / "3").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scitldr", pytest.param("answer_first", marks=pytest.mark.nightly)])
def test_suites_of_a_real_model_pass_every_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model and few rows in the form of its data."""
    monkeypatch.chdir(ROOT)
    found = read_experiment(ROOT / "benchmarks" / "evidence" / "real" / f"{name}.yaml")
    options = ["--model_name_or_path", str(BASE), "--max_train_examples", "2"]
    if name == "scitldr":
        rows = [{"id": str(i), "prompt": "Say it.", "completion": "It is said."} for i in range(302)]
        for split in ("train", "test"):
            (tmp_path / "data").mkdir(exist_ok=True)
            write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
        options += ["--dataset_name", str(tmp_path / "data")]
    else:
        rows = [json.loads(line) for line in (ROOT / "recipes/tiny/data/answer_first_test.jsonl").open()][:4]
        for order, split in itertools.product(("answer", "working"), ("train", "test")):
            (tmp_path / "base-data").mkdir(exist_ok=True)
            write_rows(tmp_path / "base-data" / f"{order}_first_{split}.jsonl", rows)
        shutil.copytree(BASE, tmp_path / "base")
    base = replace(found.init_model, directory=str(tmp_path / "base")) if name == "answer_first" else None
    comparison = read_comparison(replace(found, init_model=base), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    unknown = {key for variant in found.variants.values() for key in dropped_keys(comparison, variant)}
    assert unknown <= {"max_completion_length"}


@pytest.mark.slow
def test_the_line_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    experiment = read_experiment(ROOT / "benchmarks" / "evidence" / "quickstart" / "answer_first.yaml")
    comparison = read_comparison(experiment, tmp_path / "out", ["--max_train_examples", "8", "--num_train_epochs=1"])
    recipes = {
        name: variant_recipe(comparison, variant, 42) for name, variant in comparison.experiment.variants.items()
    }
    assert all(recipe["max_train_examples"] == 8 for recipe in recipes.values()) and not (tmp_path / "out").exists()
    assert recipes["sft"]["num_train_epochs"] == 6, "what a variant says itself stays"
    assert recipes["rac"]["per_device_train_batch_size"] == experiment.overrides["per_device_train_batch_size"]
