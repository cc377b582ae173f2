"""What is compared, from a suite file or the command line: strictly, with all faults at once."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from helpers import recipe, refused

from gapbridge import cli
from gapbridge.errors import ConfigError, RunError
from gapbridge.results.compare.recipes import Comparison, arm_recipe, dropped_keys, known_keys, read_comparison
from gapbridge.results.compare.suite import Arm, Evaluation, Suite, filled, read_suite


GOOD: dict[str, Any] = {
    "name": "mine",
    "recipe": "r.yaml",
    "seeds": [1, 2],
    "match": "tokens",
    "base": {"commands": "make --seed {seed} --output {base}", "directory": "bases/{seed}"},
    "overrides": {"max_train_examples": 8},
    "start": {"method": "sft", "num_train_epochs": 2},
    "arms": {
        "later": {"method": "sft", "start": "bash_0.4"},
        "bash_0.4": {"method": "bash", "mixture_coefficient": 0.4},
        "rac": {"method": "rac", "modes": ["corrected"]},
        "fresh": {"method": "sft", "start": "none"},
    },
    "evaluation": {"task": "math", "temperatures": 0, "slips": [0.5]},
}


def suite(folder: Path, **changes: Any) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return path


def test_a_suite(tmp_path: Path) -> None:
    found = read_suite(suite(tmp_path))
    assert list(found.arms) == ["start", "sft", "bash_0.4", "later", "rac", "fresh"]
    assert found.arms["start"].start == "none" and found.control == Arm("sft", "sft", start="start")
    assert found.arms["rac"] == Arm("rac", "rac", {}, ("direct", "corrected"), "start")
    assert found.arms["bash_0.4"].overrides == {"mixture_coefficient": 0.4}
    assert found.evaluation == Evaluation("math", temperatures=(0.0,), gap=True, slips=(0.5,))
    assert found.base_directory(2) == "bases/2" and found.match == "tokens" and found.seeds == (1, 2)
    assert filled({"a": ["{base}/x", 1, "{seed}"]}, 3, "b") == {"a": ["b/x", 1, "3"]}


def test_a_control_of_ones_own(tmp_path: Path) -> None:
    arms = {"bash": {"method": "bash"}, "sft": {"method": "sft", "learning_rate": 1e-4}}
    found = read_suite(suite(tmp_path, arms=arms, start=None))
    assert list(found.arms) == ["sft", "bash"] and found.control.overrides == {"learning_rate": 1e-4}
    assert {arm.start for arm in found.arms.values()} == {"none"}


def test_all_faults_of_a_suite_at_once(tmp_path: Path) -> None:
    arms = {
        "a": {"method": "bsh"},
        "b": {"method": "rac", "modes": ["corected"], "start": "rca"},
        "c/d": {"method": "sft"},
        "e": {"method": "sft", "start": "f"},
        "f": {"method": "sft", "start": "e"},
        "g": 3,
        "sft": {"method": "bash"},
    }
    changes = {"arms": arms, "seeds": [1, 1], "evalution": {}, "match": "rows", "base": {"commands": "x"}}
    evaluation = {"task": "lm_eval", "temperatures": [-1], "limit": 0, "slips": [2], "gap": "yes"}
    with pytest.raises(ConfigError) as error:
        read_suite(suite(tmp_path, **changes, evaluation=evaluation))
    said = "\n".join(error.value.faults)
    for words in (
        "unknown key 'evalution' (did you mean 'evaluation'?)", "match is 'rows'", "arms: a: method is 'bsh'",
        "no mode 'corected' (did you mean 'corrected'?)", "b: start is 'rca': there is no such arm",
        "'c/d' is no name", "e: starts from itself, by way of e and f", "arms: g is 3", "seeds has one twice",
        "sft is the control", "base: directory is missing", "task is 'lm_eval'", "temperatures is [-1.0]",
        "limit is 0", "slips is [2.0]", "gap is 'yes': it must be true or false",
    ):  # fmt: skip
        assert words in said, words
    assert len(error.value.faults) == 17  # f's circle, too
    assert all(fault.startswith(str(tmp_path)) for fault in error.value.faults)


def test_faults_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "compare", "--match", "rows", "--temperatures", "0,0", "--seeds", "1,1")
    for words in ("name the recipe", "say with --methods which", "--match is rows", "has one twice", "--seeds has"):
        assert words in said
    said = refused(capsys, "compare", "--methods", "bash,bsh", "r.yaml")
    assert "there is no 'bsh' (did you mean 'bash'?)" in said
    assert "--seeds: got 'x', expected an integer" in refused(capsys, "compare", "r.yaml", "--seeds", "1,x")
    said = refused(capsys, "compare", "r.yaml", "--suite", str(suite(tmp_path)), "--methods", "bash", "--gap")
    assert "leave out RECIPE, --methods, --gap" in said
    said = refused(capsys, "compare", "--suite", str(suite(tmp_path)), "--seeds", "3,3")
    assert "--seeds has one twice" in said


def test_faults_of_arms_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Recipe, keys and rows of every arm are looked at before anything is trained."""
    own = recipe(tmp_path)[1]
    assert "has no held-out data" in refused(capsys, "compare", own, "--methods", "bash")
    rows = str(tmp_path / "train.jsonl")
    own = recipe(tmp_path, eval_datasets=[{"path": "json", "data_files": rows}])[1]
    arms = {"noisy": {"method": "bash", "mixture_coeficient": 1}, "pairs": {"method": "dpo"}}
    path = suite(tmp_path, recipe=own, arms=arms, base=None, start=None, overrides={"lerning_rate": 1})
    said = refused(capsys, "compare", "--suite", str(path), "--output_dir", str(tmp_path / "out"))
    assert "overrides: unknown key 'lerning_rate' (did you mean 'learning_rate'?)" in said
    suite(tmp_path, recipe=own, arms=arms, base=None, start=None)
    said = refused(capsys, "compare", "--suite", str(path), "--output_dir", str(tmp_path / "out"))
    assert "arm noisy: unknown key 'mixture_coeficient' (did you mean 'mixture_coefficient'?)" in said
    assert "arm pairs: " in said and "rejected" in said and not (tmp_path / "out").exists()


def test_the_recipe_of_an_arm() -> None:
    """Keys of the recipe's own method that the arm's lacks are dropped, and named."""
    base_suite = Suite(
        "n", "r", (7,), {}, overrides={"max_draft_length": 9, "datasets": [{"path": "{base}/x-{seed}"}]}
    )
    keys = {"mixture_coefficient": 0.3, "learning_rate": 1e-4, "model_name_or_path": "m-{seed}", "output_dir": "o",
            "hub_token": "secret", "push_to_hub": True, "run_name": "x", "num_rounds": 2}  # fmt: skip
    comparison = Comparison(base_suite, Path("d"), "bash", keys)
    plain = Arm("control", "sft", {"learning_rate": 1e-5})
    assert dropped_keys(comparison, plain) == ["max_draft_length", "mixture_coefficient", "num_rounds"]
    assert arm_recipe(comparison, plain, 7, max_steps=5) == {
        "method": "sft", "learning_rate": 1e-5, "datasets": [{"path": "/x-7"}], "seed": 7, "max_steps": 5,
        "model_name_or_path": "m-7", "push_to_hub": False, "output_dir": "d/seed_7/control",
    }  # fmt: skip
    later = arm_recipe(comparison, Arm("two", "rac", start="control"), 7)
    assert later["model_name_or_path"] == "d/seed_7/control" and later["max_draft_length"] == 9
    assert "mixture_coefficient" not in later and later["num_rounds"] == 2 and "env" in known_keys("rac")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "evidence").glob("*/*.yaml")), ids=lambda path: path.stem
)
def test_suites_of_the_evidence(path: Path) -> None:
    found = read_suite(path)
    assert (ROOT / found.recipe).is_file()
    if path.parent.name == "cpu":  # the others show or explore, and prove nothing
        assert found.base is not None and len(found.seeds) >= 8
    text = path.read_text()
    if "extends" in text:
        text += (path.parent / yaml.safe_load(text)["extends"]).read_text()
    if path.parent.name == "gpu":  # the same with larger models
        assert found.arms == read_suite(path.parents[1] / "cpu" / f"{path.stem.rpartition('_')[0]}.yaml").arms
    for arm in found.arms.values():
        assert arm.method in text


def test_a_suite_says_only_what_is_different(tmp_path: Path) -> None:
    suite(tmp_path)
    other = tmp_path / "later" / "other.yaml"
    other.parent.mkdir()
    said = {
        "extends": "../suite.yaml",
        "overrides": {"seed": 5},
        "arms": {"fresh": None, "rac": {"temperature": 0.5}},
        "start": None,
        "seeds": [3],
    }
    other.write_text(yaml.safe_dump(said))
    found, parent = read_suite(other), read_suite(tmp_path / "suite.yaml")
    assert found.overrides == {"max_train_examples": 8, "seed": 5} and found.seeds == (3,)
    assert "fresh" not in found.arms and "start" not in found.arms
    assert found.arms["rac"].overrides == {"temperature": 0.5} and found.arms["rac"].modes == parent.arms["rac"].modes
    assert (found.name, found.match, found.evaluation, found.base) == (
        parent.name, parent.match, parent.evaluation, parent.base,
    )  # fmt: skip
    for parent_name, fault in (("nowhere.yaml", "name a suite file"), ("other.yaml", "extends itself")):
        other.write_text(yaml.safe_dump({**said, "extends": parent_name}))
        with pytest.raises(ConfigError, match=fault):
            read_suite(other)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare", "--help"])
    said = capsys.readouterr().out
    assert "math, if the references mark their answers" in " ".join(said.split()) and "--dry-run" in said
    assert all(len(line) <= 130 for line in said.splitlines())


def test_starting_models_are_made_once_and_whole(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "evidence" / "run.py"))
    make = """python -c "import os; os.mkdir('{base}'); open('{base}/{seed}', 'w')" """
    base = {"directory": f"{tmp_path}/bases/{{seed}}", "commands": [make, 'python -c "raise SystemExit({seed})"']}
    found = read_suite(suite(tmp_path, base=base))
    assert made["seeds_of"](found, ["--dry-run", "--seeds", "0,3"]) == [0, 3] and made["seeds_of"](found, []) == [1, 2]
    made["make_base"](found, 0)
    assert [path.name for path in (tmp_path / "bases").rglob("*")] == ["0", "0"]
    made["make_base"](found, 0)  # its first command would fail
    with pytest.raises(RunError, match="seed 3: .* ended with code 3"):
        made["make_base"](found, 3)
    assert not (tmp_path / "bases" / "3").exists()


@pytest.mark.slow
def test_the_line_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite = read_suite(ROOT / "benchmarks" / "evidence" / "quickstart" / "answer_first.yaml")
    comparison = read_comparison(suite, tmp_path / "out", ["--max_train_examples", "8", "--num_train_epochs=1"])
    recipes = {name: arm_recipe(comparison, arm, 42) for name, arm in comparison.suite.arms.items()}
    assert all(recipe["max_train_examples"] == 8 for recipe in recipes.values()) and not (tmp_path / "out").exists()
    assert recipes["sft"]["num_train_epochs"] == 6, "what an arm says itself stays"
    assert recipes["rac"]["per_device_train_batch_size"] == suite.overrides["per_device_train_batch_size"]
