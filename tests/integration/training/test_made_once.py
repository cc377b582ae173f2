"""Examples and rows are made once: found by a second start, by nothing that differs, and by all processes."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from conftest import BASE
from datasets import Dataset, config
from helpers import recipe
from helpers.small_runs import MakeBase
from transformers import AutoTokenizer, PreTrainedModel

from gapbridge import ConfigError, DataError, RunError, methods
from gapbridge.data import arrow_files
from gapbridge.data.arrow_files import new_table, open_table, record_path, write_parts
from gapbridge.methods.sft.trainer import GapSFTTrainer
from gapbridge.runs.load_inputs import load_examples
from gapbridge.runs.run_config import read_job
from gapbridge.tasks.word_problems import problems
from gapbridge.training import artifact_cache
from gapbridge.training.artifact_cache import (
    ROWS,
    built_once,
    cache_key_settings,
    examples_cache,
    table_path,
)


OPTIONS: dict[str, dict[str, Any]] = {
    "sft": {"shuffle_dataset": True},
    "bash": {"mixture_coefficient": 0.5},
    "rac": {"max_completion_length": 8},
    "dpo": {},
    "spin": {"max_completion_length": 8},
}


def data(name: str, kind: str = "train", count: int = 6) -> Dataset:
    found = problems(kind, count=count, steps=(1,))
    return Dataset.from_list([p.preference_row() if name == "dpo" else p.row() for p in found])


def trainer(name: str, folder: Path, model: PreTrainedModel, train: Dataset | None = None, **options: Any) -> Any:
    method = methods.get_method(name)
    common = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": 300,
        "per_device_train_batch_size": 3, "max_steps": 1, "save_strategy": "no", "eval_strategy": "steps",
        "disable_tqdm": True,
    }  # fmt: skip
    return method(
        model,
        args=method.config_class(str(folder), **{**common, **OPTIONS[name], **options}),
        train_dataset=data(name) if train is None else train,
        eval_dataset=data(name, "test", 2),
        processing_class=AutoTokenizer.from_pretrained(BASE),
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def tables(folder: Path) -> dict[Path, int]:
    found = [*folder.glob("_*/*.arrow"), *examples_cache().glob("*.arrow")]
    return {path: path.stat().st_mtime_ns for path in found}


def must_not(*_: Any, **__: Any) -> Any:
    raise AssertionError("made a second time")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_second_start_makes_nothing_again(
    name: str, make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trainer(name, tmp_path, make_base())
    assert not list(tmp_path.iterdir()), "the constructor leaves the run's directory alone"
    first.prepare_dataset()
    remaining = tables(tmp_path)
    assert {path.parent for path in remaining} == {examples_cache(), tmp_path / ROWS}
    for found in (first.row_ids, first.train_dataset, first.examples.table):
        (file,) = found.cache_files  # mapped by all processes, in no one's own memory
        assert Path(file["filename"]) in remaining
    first.train()
    method = methods.get_method(name)
    monkeypatch.setattr(method, "load_examples", must_not)
    monkeypatch.setattr("gapbridge.training.dataset_builder._write_rows", must_not)
    again = trainer(name, tmp_path, make_base())
    again.train()
    assert tables(tmp_path) == remaining and again.stats == first.stats
    assert again.row_ids[:] == first.row_ids[:] and again.train_dataset[:] == first.train_dataset[:]
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_differs_is_made_anew(make_base: MakeBase, tmp_path: Path) -> None:
    trainer("bash", tmp_path, make_base()).prepare_dataset()
    before = tables(tmp_path)
    masked = trainer("bash", tmp_path, make_base(), num_masked_labels_after_replacement=2)
    masked.prepare_dataset()
    rows = {path for path in tables(tmp_path) if path.match("_rows/train*")}
    assert rows and not rows & set(before), "older rows of the part are gone"
    assert masked.stats.masked_labels > 0
    other = trainer("sft", tmp_path / "sft", make_base())
    fewer = trainer("sft", tmp_path / "sft", make_base(), data("sft", count=5))
    assert len(other.row_ids) == 6 and len(fewer.row_ids) == 5


def test_every_setting_that_may_change_a_row_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = methods.get_method("bash").config_class(str(tmp_path), use_cpu=True, bf16=False)

    def named(args: Any) -> Path:
        return table_path(tmp_path, "train", {"settings": cache_key_settings(args)})

    changes: list[dict[str, Any]] = [
        {"mixture_coefficient": 0.3}, {"seed": 1}, {"max_length": 77}, {"num_masked_labels_after_replacement": 1},
        {"chat_template_kwargs": {"a": 1}}, {"round_index": 2}, {"chat_template_date": "2026-01-01"},
    ]  # fmt: skip
    assert len({named(config), *(named(replace(config, **change)) for change in changes)}) == len(changes) + 1
    free: list[dict[str, Any]] = [
        {"output_dir": str(tmp_path / "x")},
        {"logging_steps": 7},
        {"dataset_num_proc": 2},
        {"verify_window": 4},
    ]
    assert {named(replace(config, **change)) for change in free} == {named(config)}
    elsewhere = replace(config)
    elsewhere.local_rank = 3  # as in another process
    assert named(elsewhere) == named(config)
    before = named(config)
    monkeypatch.setattr(artifact_cache, "DATA_VERSION", artifact_cache.DATA_VERSION + 1)
    assert named(config) != before


def test_a_table_without_its_record_is_made_again(make_base: MakeBase, tmp_path: Path) -> None:
    first = trainer("sft", tmp_path, make_base())
    rows = first.row_ids[:]
    assert len(tables(tmp_path)) == 4
    for path in tables(tmp_path):
        record_path(path).unlink()
        path.unlink()  # it is mapped: what it held stays
        path.write_bytes(b"half")
    assert trainer("sft", tmp_path, make_base()).row_ids[:] == rows


class Silent(GapSFTTrainer):
    """A method one of whose rows carries no loss."""

    @classmethod
    def sft_row(cls, example: Any) -> Any:
        row = super().sft_row(example)
        first = row["id"] == data("sft")[0]["id"]
        return {**row, "labels": [-100] * len(row["labels"])} if first else row


def test_rows_without_loss_are_left_out_as_in_trl(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "get_method", lambda _: Silent)
    made = trainer("sft", tmp_path, make_base())
    assert len(made.row_ids) == 6 and len(made.train_dataset) == 5
    remaining = {tuple(row["input_ids"]) for row in made.row_ids if set(row["labels"]) != {-100}}
    assert {tuple(row["input_ids"]) for row in made.train_dataset} == remaining


def in_process(rank: int, timeout: float = 5.0) -> Any:
    return SimpleNamespace(process_index=rank, world_size=2, ddp_timeout=timeout)


def test_one_process_makes_and_the_other_waits(tmp_path: Path) -> None:
    path, made = tmp_path / ROWS / "train-0.arrow", []

    def wait() -> None:
        with built_once(path, in_process(1)) as builds:
            assert not builds
        made.append(1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with built_once(path, in_process(0)) as builds:
        assert builds
        made.append(0)
        record_path(path).write_text("{}")
    waiting.join(timeout=10)
    assert made == [0, 1] and [entry.name for entry in path.parent.iterdir()] == ["train-0.json"]
    with built_once(path, in_process(0)) as builds:
        assert not builds


def test_all_have_opened_a_table_before_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Together:
        def wait_for_everyone(self) -> None:
            done.append("wait")

    monkeypatch.setattr(arrow_files, "PartialState", Together)
    path = tmp_path / "train-0.arrow"
    with new_table(path) as (file, _):
        write_parts(file, [pa.table({"id": ["a"]})], pa.schema([("id", pa.string())]))
    assert not done
    assert open_table(path)[0]["id"][:] == ["a"] and done == ["wait"]


def test_what_process_0_refuses_stops_the_other(tmp_path: Path) -> None:
    path, said = tmp_path / ROWS / "train-0.arrow", []

    def wait() -> None:
        with pytest.raises(RunError) as error, built_once(path, in_process(1)) as builds:
            assert not builds
        said.append(str(error.value))

    waiting = threading.Thread(target=wait)
    waiting.start()

    with pytest.raises(DataError), built_once(path, in_process(0)) as builds:
        assert builds
        threading.Event().wait(0.3)  # until the other looks
        raise DataError("row 3 is empty")
    waiting.join(timeout=10)
    assert "process 0: got a failure (DataError: row 3 is empty)" in said[0]


def test_a_run_reads_its_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    job = read_job(recipe(tmp_path, method="sft"))
    here = load_examples(job, tokenizer, None)["train"]
    remaining = load_examples(job, tokenizer, None, keep=True)["train"]
    assert list(remaining) == list(here) and remaining.fingerprint() == here.fingerprint()
    monkeypatch.setattr(job.method, "load_examples", must_not)
    assert list(load_examples(job, tokenizer, None, keep=True)["train"]) == list(here)
    job.data.system_prompt = "Be brief."
    with pytest.raises(AssertionError, match="a second time"):
        load_examples(job, tokenizer, None, keep=True)


def test_what_is_refused_leaves_no_directory(make_base: MakeBase, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        trainer("sft", tmp_path / "a" / "b", make_base(), lr_scheduler_type="cosine_with_min_lr")
    assert not list(tmp_path.iterdir())
