"""Recipes parse strictly: every error at once, the nearest key named, old keys translated; every shipped recipe
runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gapbridge.errors import ConfigError, GapbridgeError
from gapbridge.runs.run_config import RunConfig, read_job


MINIMAL = {
    "method": "bash",
    "model_name_or_path": "m",
    "datasets": [{"path": "json", "data_files": "d.jsonl"}],
    "output_dir": "o",
    "use_cpu": True,
    "bf16": False,
}


def write(folder: Path, **keys: Any) -> str:
    values = {key: value for key, value in {**MINIMAL, **keys}.items() if value != "absent"}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def parse(folder: Path, *options: str, **keys: Any) -> RunConfig:
    return read_job(["--config", write(folder, **keys), *options])


def test_values_arrive(tmp_path: Path) -> None:
    job = parse(tmp_path, mixture_coefficient=0.3, num_rounds=2, num_epochs_per_round=[1, 2], learning_rate="5e-7")
    assert (job.name, job.args.mixture_coefficient, job.args.num_epochs_per_round) == ("bash", 0.3, [1, 2])
    assert job.args.learning_rate == 5e-7 and job.data.datasets[0].data_files == "d.jsonl"
    assert [parse(tmp_path, num_rounds=2, num_epochs_per_round=1).args.num_epochs_of_round(k) for k in (1, 2)] == [
        1,
        1,
    ]


def test_command_line_wins(tmp_path: Path) -> None:
    job = parse(tmp_path, "--mixture_coefficient", "0.4", "--max_steps=3", mixture_coefficient=0.3)
    assert job.args.mixture_coefficient == 0.4 and job.args.max_steps == 3
    assert job.recipe.settings["mixture_coefficient"] == 0.4


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mixture_coeficient": 0.2}, "unknown key 'mixture_coeficient' (did you mean 'mixture_coefficient'?)"),
        ({"learning_rte": 1}, "did you mean 'learning_rate'?"),
        ({"learning_rate": [1]}, "learning_rate: got [1], expected a number, not list"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast', expected a number, not str"),
        ({"num_rounds": 1.5}, "num_rounds: got 1.5, expected an integer, not float"),
        ({"num_rounds": True}, "expected an integer, not bool"),
        ({"packing": "yes please"}, "packing: got 'yes please', expected true or false"),
        ({"on_invalid_example": "ignore"}, "expected one of raise, skip"),
        ({"dtype": "float8"}, "dtype: got 'float8', expected one of auto, bfloat16"),
        ({"datasets": "d.jsonl"}, "datasets: got 'd.jsonl', expected a list"),
        ({"suppress_tokens": ["a"]}, "suppress_tokens: got ['a'], expected a list"),
        ({"mixture_coefficient": 1.2}, "mixture_coefficient: got 1.2, expected a number from 0"),
        ({"mixture_coefficient": -0.1}, "expected a number from 0"),
        ({"method": "bsh"}, "method: got 'bsh'"),
        ({"model_name_or_path": "absent"}, "model_name_or_path: got no value"),
        ({"output_dir": "absent"}, "output_dir: got no value"),
        ({"env": "A=1"}, "env: got str, expected a mapping"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type"),
        ({"eval_strategy": "sometimes"}, "eval_strategy"),
    ],
)
def test_faults_are_named(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, **keys)
    assert words in str(caught.value)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, "--seeed", "1", learning_rte=1, num_rounds="x", packing=3)
    assert len(caught.value.errors) == 4
    assert "unknown option --seeed (did you mean 'seed'?)" in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with pytest.raises(ConfigError, match="got no such file"):
        read_job(["--config", str(path)])
    for text, words in (("- a\n", "expected a mapping"), ("a: [", "not valid YAML"), ("", "expected a mapping")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_job(["--config", str(path)])
    path.write_text("method: bash\nseed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="line 3: got seed twice"):
        read_job(["--config", str(path)])
    with pytest.raises(ConfigError, match="no recipe"):
        read_job([])
    with pytest.raises(ConfigError, match="got a recipe for bash"):
        read_job(["--config", write(tmp_path)], "sft")


def test_old_handbook_keys_are_translated(tmp_path: Path) -> None:
    job = parse(
        tmp_path, datasets="absent", torch_dtype="bfloat16", max_seq_length=128, evaluation_strategy="epoch",
        warmup_ratio=0.1, preprocessing_num_workers=2, overwrite_output_dir=True, use_flash_attention_2=True,
        dataset_mixture={"datasets": [{"id": "a/b", "config": "c", "split": "train_sft", "weight": 1.0}],
        "test_split_size": 100},
    )  # fmt: skip
    assert job.model.dtype == "bfloat16" and job.args.max_length == 128 and job.args.warmup_steps == 0.1
    assert job.args.dataset_num_proc == 2 and job.model.attn_implementation == "flash_attention_2"
    assert job.data.sources() == ["a/b"] and job.data.splits_off == 100
    assert any("overwrite_output_dir is ignored" in note for note in job.recipe.notes)
    older = parse(
        tmp_path,
        datasets="absent",
        dataset_mixer={"a/b": 1.0},
        dataset_splits=["train_sft", "test_sft"],
        max_seq_length=64,
    )
    assert [(d.path, d.split) for d in older.data.datasets] == [("a/b", "train_sft")]
    assert [(d.path, d.split) for d in older.data.eval_datasets] == [("a/b", "test_sft")]
    assert parse(tmp_path, "--max_seq_length", "77").args.max_length == 77
    with pytest.raises(ConfigError, match="got a share of 0.5"):
        parse(tmp_path, datasets="absent", dataset_mixer={"a/b": 0.5})
    with pytest.raises(ConfigError, match="which are one setting"):
        parse(tmp_path, max_seq_length=64, max_length=64)


def test_environment_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "before")
    monkeypatch.setenv("GAPBRIDGE_TEST", "before")
    parse(tmp_path, env={"GAPBRIDGE_TEST": 3}, wandb_project="after")
    import os

    assert os.environ["GAPBRIDGE_TEST"] == "3" and os.environ["WANDB_PROJECT"] == "after"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from(
            [
                "mixture_coefficient",
                "num_rounds",
                "num_epochs_per_round",
                "datasets",
                "seed",
                "top_k",
                "env",
                "sed",
                "max_length",
            ]
        ),
        st.recursive(  # any YAML value
            st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_any_recipe_parses_or_is_refused_by_us(tmp_path: Path, values: dict[str, Any]) -> None:
    try:
        parse(tmp_path, **values)
    except GapbridgeError as error:
        assert error.errors
