"""`dataset_mixture` gives the rows, the order and the split of the handbook's `get_dataset`, row for row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import concatenate_datasets, load_dataset
from helpers import load_data, recipe, refused
from trl import ScriptArguments
from trl.scripts.utils import DatasetConfig

from gapbridge import ConfigError, DataError
from gapbridge.data.sources import DataConfig, LoadedData, check_data_config
from gapbridge.runs.load_inputs import load_eval_examples
from gapbridge.runs.run_config import read_job
from gapbridge.training.loading import load_tokenizer


SIZES = {"a": {"train": 12, "test": 4}, "b": {"train": 9}}
# What alignment-handbook 0.4.0.dev0 trains and holds out of `mixture()`, computed with datasets 5.2.0.
TRAINED = """
    a-test-2 a-train-11 a-test-1 a-train-2 b-train-4 b-train-1 b-train-7 b-train-0
    a-test-3 b-train-5 b-train-3 a-train-7 a-train-10 a-test-0 b-train-2 b-train-8
""".split()
HELD_OUT = "a-train-0 b-train-6 a-train-1 a-train-4".split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, splits in SIZES.items():
        (tmp_path / name).mkdir()
        for split, count in splits.items():
            rows = [
                {"prompt": f"{name}-{split}-{row}", "completion": "x", "source": name, "score": row}
                for row in range(count)
            ]
            (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def mixture(folder: Path, **changes: Any) -> dict[str, Any]:
    """A share that does not come out even, a split that is called a test, a set that is not shuffled by itself."""
    return {
        "datasets": [
            {"id": str(folder / "a"), "config": "default", "split": "train", "columns": COLUMNS, "weight": 0.65},
            {"id": str(folder / "a"), "config": "default", "split": "test", "columns": COLUMNS, "weight": 1.0},
            {"id": str(folder / "b"), "columns": COLUMNS, "weight": None},
        ],
        "seed": 3,
        "test_split_size": 0.2,
        **changes,
    }


COLUMNS = ["prompt", "completion"]


def load(mixed: Any, **options: Any) -> LoadedData:
    config = DataConfig(dataset_mixture=mixed, **options)
    return load_data(config, ScriptArguments(dataset_name=None), needs_eval=False)


def by_the_handbook(mixed: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The sequence of its `get_dataset`, with `datasets` alone."""
    parts = []
    for entry in mixed["datasets"]:
        part = load_dataset(entry["id"], entry.get("config"), split=entry.get("split", "train"))
        part = part.select_columns(entry["columns"])
        weight = entry.get("weight", 1.0)
        if weight is not None:
            part = part.shuffle(seed=mixed["seed"]).select(range(int(len(part) * weight)))
        parts.append(part)
    full = concatenate_datasets(parts).shuffle(seed=mixed["seed"])
    if mixed["test_split_size"] is None:
        return full["prompt"][:], []
    both = full.train_test_split(test_size=mixed["test_split_size"], seed=mixed["seed"])
    return both["train"]["prompt"][:], both["test"]["prompt"][:]


def test_rows_order_and_split_are_the_frozen_ones(folder: Path) -> None:
    loaded = load(mixture(folder))
    assert loaded.train["prompt"][:] == TRAINED and loaded.eval is not None
    assert loaded.eval["prompt"][:] == HELD_OUT
    assert loaded.train.column_names == COLUMNS
    assert by_the_handbook(mixture(folder)) == (TRAINED, HELD_OUT)


@pytest.mark.parametrize("changes", [{"seed": 0}, {"test_split_size": 5}, {"test_split_size": None}])
def test_other_mixtures_are_the_handbooks(changes: dict[str, Any], folder: Path) -> None:
    loaded = load(mixture(folder, **changes))
    trained, held_out = by_the_handbook(mixture(folder, **changes))
    assert loaded.train["prompt"][:] == trained
    assert ([] if loaded.eval is None else loaded.eval["prompt"][:]) == held_out


def test_weight_and_seed_have_the_handbooks_defaults(folder: Path) -> None:
    bare = {"datasets": [{"id": str(folder / "b"), "columns": COLUMNS}]}
    trained, _ = by_the_handbook({**bare, "seed": 0, "test_split_size": None})
    assert load(bare).train["prompt"][:] == trained != [f"b-train-{row}" for row in range(9)]


def test_no_held_out_row_is_trained_whatever_asks_for_it(folder: Path) -> None:
    job = read_job(
        recipe(folder, datasets=None, dataset_mixture=mixture(folder), eval_strategy="no", chat_template=None)
    )
    loaded = load_data(job.data, job.script, needs_eval=False)
    assert set(loaded.train["prompt"]).isdisjoint(HELD_OUT)
    tokenizer = load_tokenizer(str(job.model.model_name_or_path), job.args)
    held_out = load_eval_examples(job, tokenizer, None)
    assert [tokenizer.decode(one.prompt) for one in held_out] == HELD_OUT


def test_held_out_data_may_be_sets_of_their_own(folder: Path) -> None:
    own = [{"path": str(folder / "a"), "split": "test"}]
    mixed = mixture(folder, test_split_size=None)
    job = read_job(recipe(folder, datasets=None, dataset_mixture=mixed, eval_datasets=own, eval_strategy="epoch"))
    loaded = load_data(job.data, job.script, needs_eval=True)
    assert loaded.train["prompt"][:] == by_the_handbook(mixed)[0] and loaded.eval is not None
    held_out = load_eval_examples(job, load_tokenizer(str(job.model.model_name_or_path), job.args), None)
    assert loaded.eval["prompt"][:] == [f"a-test-{row}" for row in range(4)]
    assert len(held_out) == 4


@pytest.mark.parametrize("source", ["eval_datasets", "test_split_size", "dataset_name"])
def test_an_evaluation_reads_as_many_rows_as_it_is_asked_for(folder: Path, source: str) -> None:
    """`max_eval_examples`, which shortens evaluations while training, once cut `--max_examples` without a word."""
    test = {"path": str(folder / "a"), "split": "test"}
    keys = {
        "eval_datasets": {"datasets": [{"path": str(folder / "a")}], "eval_datasets": [test]},
        "test_split_size": {"datasets": [{"path": str(folder / "a")}], "test_split_size": 4},
        "dataset_name": {"datasets": None, "dataset_name": str(folder / "a")},
    }[source]
    job = read_job(recipe(folder, **keys, max_eval_examples=2))
    tokenizer = load_tokenizer(str(job.model.model_name_or_path), job.args)
    for limit, rows in ((None, 2), (1, 1), (3, 3), (9, 4)):
        assert len(load_eval_examples(job, tokenizer, None, limit=limit)) == rows


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_an_evaluation_reads_no_row_that_another_seed_trains_on(folder: Path, strategy: str) -> None:
    """The split of `test_split_size` once followed the seed: a run with `--seed 1`, evaluated with its recipe, was
    scored on rows that it had seen."""
    keys = {"datasets": [{"path": str(folder / "a")}], "test_split_size": 5, "eval_strategy": strategy}
    trained = read_job(recipe(folder, **keys, seed=1)).find_data().train["prompt"]
    job = read_job(recipe(folder, **keys, seed=2))
    tokenizer = load_tokenizer(str(job.model.model_name_or_path), job.args)
    text = "\n".join(tokenizer.decode(one.prompt) for one in load_eval_examples(job, tokenizer, None))
    held_out = re.findall(r"a-train-\d+", text)
    assert len(held_out) == 5 and len(trained) == 7 and not set(held_out) & set(trained)


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_an_evaluation_reads_the_test_split_whatever_training_evaluates(folder: Path, strategy: str) -> None:
    """`eval_strategy: no` once made an evaluation read the training split of a data set that is named by trl's key."""
    job = read_job(recipe(folder, datasets=None, dataset_name=str(folder / "a"), eval_strategy=strategy))
    tokenizer = load_tokenizer(str(job.model.model_name_or_path), job.args)
    held_out = [tokenizer.decode(one.prompt) for one in load_eval_examples(job, tokenizer, None)]
    assert held_out and all("a-test-" in prompt for prompt in held_out)


def test_the_command_line_takes_a_mixture_as_json(folder: Path) -> None:
    words = ["--dataset_mixture", json.dumps(mixture(folder))]
    job = read_job([*recipe(folder, datasets=None), *words])
    assert load_data(job.data, job.script, needs_eval=False).train["prompt"][:] == TRAINED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": None}, "dataset_mixture, seed: got None, expected an integer"),
        ({"sed": 1}, "unknown key 'sed' (did you mean 'seed'?)"),
        ({"datasets": []}, "datasets: got []"),
        ({"datasets": [{"weight": 0.5}]}, "id: got no value"),
        ({"datasets": [{"id": "a", "wieght": 0.5}]}, "unknown key 'wieght' (did you mean 'weight'?)"),
        (
            {"datasets": [{"id": "a", "weight": 1.5}]},
            "datasets, entry 1 (a), weight: got 1.5, expected a number from 0 to 1",
        ),
        ({"datasets": [{"id": "a", "columns": ["x"]}, {"id": "b", "columns": ["y"]}]}, "different columns"),
    ],
)
def test_faults_of_a_mixture_are_named(changes: dict[str, Any], words: str, folder: Path) -> None:
    config = DataConfig(dataset_mixture=mixture(folder, **changes))
    assert any(words in error for error in check_data_config(config, ScriptArguments(dataset_name=None)))


def test_forms_of_data_exclude_each_other(folder: Path) -> None:
    config = DataConfig(dataset_mixture=mixture(folder), datasets=[{"path": "json"}], test_split_size=2)
    errors = check_data_config(config, ScriptArguments(dataset_name=None))
    assert "data: got `datasets` and `dataset_mixture`, expected one of them. Keep one of the keys." in errors
    assert any("Move it into dataset_mixture" in error for error in errors)


@pytest.mark.parametrize("size", [20, 500, 0, 1.5])
def test_too_few_rows_for_the_split_are_told(size: float, folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"test_split_size: got {size}, expected less than the 20 rows of dataset_mixture"
    ):
        load(mixture(folder, test_split_size=size))


def test_a_data_set_that_cannot_be_taken_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"b \[train\]: got data that cannot be loaded.*nowhere"):
        load(mixture(folder, datasets=[{"id": str(folder / "b"), "columns": ["nowhere"]}]))
    with pytest.raises(DataError, match="got no row"):
        load(mixture(folder, datasets=[{"id": str(folder / "b"), "weight": 0.1}]))


def test_the_command_line_says_both_forms_exclude_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "bash", *recipe(folder, dataset_mixture=mixture(folder)))
    assert "data: got `datasets` and `dataset_mixture`, expected one of them" in said


@pytest.mark.parametrize("form", ["datasets", "dataset_mixture", "dataset_name"])
def test_a_folder_with_a_card_is_read_as_it_is_now(form: str, tmp_path: Path) -> None:
    """`datasets` caches it by its last name and the configuration's: it would take what was there before."""

    def rows(place: Path, count: int) -> int:
        place.mkdir(parents=True, exist_ok=True)
        files = "  data_files:\n  - split: train\n    path: {}.jsonl\n"
        configs = "".join(f"- config_name: {name}\n{files.format(name)}" for name in ("main", "other"))
        (place / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
        line = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
        (place / "main.jsonl").write_text(line * count)
        (place / "other.jsonl").write_text(line * 50)
        script = ScriptArguments(dataset_name=None)
        config = DataConfig()
        if form == "datasets":
            config = DataConfig(datasets=[DatasetConfig(path=str(place), name="main")])
        elif form == "dataset_mixture":
            config = DataConfig(dataset_mixture={"datasets": [{"id": str(place), "config": "main", "split": "train"}]})
        else:
            script = ScriptArguments(dataset_name=str(place), dataset_config="main")
        return len(load_data(config, script, needs_eval=False).train)

    one, other = tmp_path / "a" / "cards", tmp_path / "b" / "cards"
    assert [rows(one, 2), rows(one, 3), rows(other, 4)] == [2, 3, 4]
