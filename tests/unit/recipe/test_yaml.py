"""What a recipe's YAML says: text as it is written, no guessed numbers, no key that another one hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_recipe import MINIMAL

from gapbridge.errors import ConfigError
from gapbridge.recipe.type_checks import read_yaml
from gapbridge.runs.run_config import RunConfig, read_job


def written(folder: Path, *lines: str) -> Path:
    path = folder / "recipe.yaml"
    remaining = {key: value for key, value in MINIMAL.items() if not any(line.startswith(f"{key}:") for line in lines)}
    path.write_text(yaml.safe_dump(remaining) + "".join(f"{line}\n" for line in lines))
    return path


def parsed(folder: Path, *lines: str) -> RunConfig:
    return read_job(["--config", str(written(folder, *lines))])


def said(folder: Path, *lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(folder, *lines)
    return str(caught.value)


@pytest.mark.parametrize("word", ["no", "No", "NO", "off", "Off", "false", "False", '"no"', "'no'"])
def test_no_without_quotes(tmp_path: Path, word: str) -> None:
    keys = ("save_strategy", "eval_strategy", "logging_strategy", "report_to")
    args = parsed(tmp_path, *(f"{key}: {word}" for key in keys)).args
    assert (args.save_strategy, args.eval_strategy, args.logging_strategy) == ("no", "no", "no")
    assert args.report_to == []


@pytest.mark.parametrize("line", ["report_to: none", "report_to: [none]", "report_to: []", "report_to: [no]"])
def test_no_tracker(tmp_path: Path, line: str) -> None:
    assert parsed(tmp_path, line).args.report_to == []


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("run_name: 2024-05-01", "run_name", "2024-05-01"),
        ("run_name: 1e5", "run_name", "1e5"),
        ("run_name: 007", "run_name", "007"),
        ("run_name: 12:30", "run_name", "12:30"),
        ("run_name: yes", "run_name", "yes"),
        ("run_name: =", "run_name", "="),
        ("chat_template_date: 2024-05-01", "chat_template_date", "2024-05-01"),
        ("hub_model_id: 0123", "hub_model_id", "0123"),
        ("packing: no", "packing", False),
        ("gradient_checkpointing: off", "gradient_checkpointing", False),
        ("packing: yes", "packing", True),
        ("learning_rate: 1e-4", "learning_rate", 1e-4),
        ("learning_rate: 5E-7", "learning_rate", 5e-7),
        ("seed: 09", "seed", 9),
        ("seed: 1_000", "seed", 1000),
        ("seed: 0x1F", "seed", 31),
        ("lr_scheduler_kwargs: {min_lr: 1e-6, x: off}", "lr_scheduler_kwargs", {"min_lr": 1e-6, "x": False}),
        ("chat_template_kwargs: {date: 2024-05-01}", "chat_template_kwargs", {"date": "2024-05-01"}),
    ],
)  # fmt: skip
def test_scalars(tmp_path: Path, line: str, key: str, value: Any) -> None:
    found = vars(parsed(tmp_path, line).args)[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seed: 042", "got 042, which is 34 in YAML 1.1 and 42 elsewhere, expected a number"),
        ("max_steps: 1:30", "got 1:30, which is"),
        ("lr_scheduler_kwargs: {power: 010}", "got 010, which is"),
        ("seed: 2024-05-01", "seed: got '2024-05-01', expected an integer"),
        ("eval_strategy: yes", "eval_strategy: got 'yes', expected one of no, steps, epoch"),
        ("seed: !!binary aGk=", "the tag tag:yaml.org,2002:binary"),
        ("env: !!set {A, B}", "the tag tag:yaml.org,2002:set"),
        ("env: &all {A: *all}", "got an alias inside the value"),
    ],
)
def test_what_has_two_meanings_or_none_is_refused(tmp_path: Path, line: str, words: str) -> None:
    assert words in said(tmp_path, line)


def test_data_sets_may_be_called_no(tmp_path: Path) -> None:
    """Norwegian: as the name of a configuration it is no truth value."""
    entry = parsed(tmp_path, "datasets: [{path: a/b, name: no, split: on}]").data.datasets[0]
    assert (entry.name, entry.split) == ("no", "on")
    mixture = parsed(tmp_path, "datasets: []", "dataset_mixture: {datasets: [{id: a/b, config: no}]}").data
    assert mixture.dataset_mixture["datasets"][0]["config"] == "no"


def test_environment_variables_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"GB_A": "no", "GB_B": "010", "GB_C": "1:30", "GB_E": "1e3", "GB_F": "2024-05-01"}
    for name in names:
        monkeypatch.setenv(name, "before")
    parsed(tmp_path, "env:", *(f"  {name}: {value}" for name, value in names.items()))
    import os

    assert {name: os.environ[name] for name in names} == names
    parsed(tmp_path, "env: {GB_A: true, GB_B: 'true', GB_C: 3}")
    assert [os.environ[name] for name in ("GB_A", "GB_B", "GB_C")] == ["True", "true", "3"]  # as TRL


@pytest.mark.parametrize(
    "lines",
    [
        ("datasets:", "- path: a", "  split: train", "  path: b"),
        ("env: {A: 1, B: 2, A: 3}",),
        ("model_init_kwargs: {quantization_config: {bits: 4, bits: 8}}",),
        ("dataset_mixture:", "  datasets:", "  - {id: a}", "  - id: b", "    id: c"),
        ("lr_scheduler_kwargs: {'a': 1, a: 2}",),
    ],
)
def test_keys_given_twice_at_any_depth(tmp_path: Path, lines: tuple[str, ...]) -> None:
    path = written(tmp_path, *lines)
    at = len(path.read_text().splitlines())
    assert f"{path}, line {at}: " in (error := said(tmp_path, *lines)) and " twice, expected it once" in error
    assert ("put the dash" in error) == lines[0].startswith("data")


def test_all_keys_given_twice_come_at_once(tmp_path: Path) -> None:
    error = said(tmp_path, "env: {A: 1, A: 3}", "lr_scheduler_kwargs: {b: 1, b: 2}", "seed: 1", "seed: 2")
    assert error.startswith("3 errors") and error.index("got A") < error.index("got b") < error.index("got seed")


def test_merged_keys_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {y: 3}\nc: {<<: [*b, *a], x: 4}\nd:\n  <<: *a\n  <<: *b\n")
    read = read_yaml(path)
    assert read["c"] == {"x": 4, "y": 3} and read["d"] == {"x": 1, "y": 3}


def test_aliases_that_grow_as_powers(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    assert "got more than 100,000 values" in said(tmp_path, *lines)


def test_a_file_of_data_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: b\n" * 300_000)
    with pytest.raises(ConfigError, match="Name a recipe, not a data"):
        read_yaml(path)
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match=r"r\.yaml: got a list, expected a mapping"):
        read_yaml(path)


@pytest.mark.parametrize(
    "lines", [('hub_token: "S3cr3t',), ("hub_token: S3cr3t: x",), ("hub_token: [S3cr3t",), ("hub_token: *S3cr3t",)]
)
def test_what_is_no_yaml_is_not_quoted(tmp_path: Path, lines: tuple[str, ...]) -> None:
    error = said(tmp_path, *lines)
    assert "not valid YAML" in error and "S3cr3t" not in error and ", line " in error


@pytest.mark.parametrize(
    ("line", "targets"),
    [
        ("lora_target_modules: q_proj", ["q_proj"]),
        ("lora_target_modules: [q_proj]", ["q_proj"]),
        ("lora_target_modules: [q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("lora_target_modules: [query_key_value]", ["query_key_value"]),
        ("lora_target_modules: [self_attn.q_proj]", ["self_attn.q_proj"]),
        ("lora_target_modules: all-linear", "all-linear"),
        ("lora_target_modules: [all-linear]", "all-linear"),
        ("lora_target_modules: '.*[qv]_proj'", ".*[qv]_proj"),
    ],
)
def test_one_lora_target_is_a_name(tmp_path: Path, line: str, targets: Any) -> None:
    assert parsed(tmp_path, line).model.lora_target_modules == targets
    option = line.partition(": ")[2].strip("[]'").split(", ")
    if "[" not in line:
        job = read_job(["--config", str(written(tmp_path)), "--lora_target_modules", *option])
        assert job.model.lora_target_modules == targets


@pytest.mark.parametrize("key", ["lora_modules_to_save", "lora_target_parameters", "label_names", "stop_phrases"])
def test_one_value_stands_for_a_list_of_one(tmp_path: Path, key: str) -> None:
    if key == "stop_phrases":  # no such key: the others would be found by accident
        assert "unknown key" in said(tmp_path, f"{key}: x")
        return
    job = parsed(tmp_path, f"{key}: lm_head")
    assert {**vars(job.args), **vars(job.model)}[key] == ["lm_head"]
