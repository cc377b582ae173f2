"""A trainer's constructor checks; its rows are made when they are first needed, once, by the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset, enable_progress_bars
from helpers.small_runs import MakeBase
from transformers import AutoTokenizer, PreTrainedModel

from gapbridge import BASHConfig, BASHTrainer, DataError, RunError
from gapbridge.store.context_store import ContextStore
from gapbridge.tasks.word_problems import problems


FIRST_USES: dict[str, Callable[[Any], object]] = {
    "train": lambda trainer: trainer.train(),
    "evaluate": lambda trainer: trainer.evaluate(),
    "evaluate other data": lambda trainer: trainer.evaluate(data("test", 2)),
    "predict": lambda trainer: trainer.predict(data("test", 2)),
    "train_dataset": lambda trainer: trainer.train_dataset,
    "eval_dataset": lambda trainer: trainer.eval_dataset,
    "a batch": lambda trainer: next(iter(trainer.get_train_dataloader())),
    "stats": lambda trainer: trainer.stats,
}


def data(kind: str = "train", count: int = 6) -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(kind, count=count, steps=(1,))])


def bash(folder: Path, model: PreTrainedModel, train: Dataset | None = None, **options: Any) -> BASHTrainer:
    args = BASHConfig(
        str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", max_length=300,
        per_device_train_batch_size=3, max_steps=1, save_strategy="no", eval_strategy="steps", disable_tqdm=True,
        mixture_coefficient=0.5, generation_shard_size=2, **options,
    )  # fmt: skip
    return BASHTrainer(
        model,
        args=args,
        train_dataset=data() if train is None else train,
        eval_dataset=data("test", 2),
        processing_class=AutoTokenizer.from_pretrained(BASE),
    )


@pytest.mark.parametrize("use", FIRST_USES.values(), ids=FIRST_USES)
def test_the_first_use_prepares_once(
    use: Callable[[Any], object], make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = ContextStore.write_shard

    def counted(store: ContextStore, shard: int, columns: Any) -> None:
        written.append(shard)
        write(store, shard, columns)

    monkeypatch.setattr(ContextStore, "write_shard", counted)
    trainer = bash(tmp_path / "run", make_base())
    assert not written and not list(tmp_path.rglob("*.*")), "the constructor generates and writes nothing"
    use(trainer)
    assert len(written) == 4 and len(trainer.train_dataset) == 6
    trainer.prepare_dataset()
    assert len(written) == 4


def test_the_slot_cache_is_checked_once_for_all_shards(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapbridge.decoding.forward.PROBE_LENGTH", 32)  # rows of real tasks are longer than the check
    trainer, checks = bash(tmp_path / "run", make_base(), eval_on_generated_contexts=False), []
    trainer.model.register_forward_pre_hook(
        lambda _, inputs, named: checks.append(named) if named.get("use_cache") is False else None, with_kwargs=True
    )
    trainer.prepare_dataset()
    assert len(checks) == 1, "a check of a real model takes seconds, and there are three shards"


def test_a_bad_row_is_refused_by_the_constructor(make_base: MakeBase, tmp_path: Path) -> None:
    rows = Dataset.from_list([*data().to_list(), {"prompt": [], "completion": []}])
    with pytest.raises(DataError, match="train_dataset, row 6"):
        bash(tmp_path / "run", make_base(), rows)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_preparation_goes_on(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = bash(tmp_path / "whole", make_base()).row_ids[:]
    write = ContextStore.write_shard

    def stop_at_the_second(store: ContextStore, shard: int, columns: Any) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(store, shard, columns)

    monkeypatch.setattr(ContextStore, "write_shard", stop_at_the_second)
    trainer = bash(tmp_path / "run", make_base())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer.prepare_dataset()
    monkeypatch.setattr(ContextStore, "write_shard", write)
    assert trainer.row_ids[:] == full


def test_contexts_are_those_of_the_weights_that_name_them(make_base: MakeBase, tmp_path: Path) -> None:
    trainer = bash(tmp_path / "run", make_base())
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight[5] += 1
    with pytest.raises(RunError, match="weights that changed after the trainer was constructed"):
        trainer.train()
    assert not (tmp_path / "run" / "_contexts").exists()


def test_the_constructor_shows_no_progress_of_placeholders(
    make_base: MakeBase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TRL's constructor counts two placeholder rows, which the user did not give."""
    enable_progress_bars()
    bash(tmp_path, make_base())
    assert " train dataset" not in capfd.readouterr().err
