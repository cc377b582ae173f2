"""What an evaluation reports does not depend on how its rows are put into batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conftest import BASE
from helpers import recipe, write_rows
from packaging.version import Version

from gapbridge.compat import TRL
from gapbridge.generation.common import job_for, load_evaluated
from gapbridge.runs import load_inputs
from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.rounds import round_arguments
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train
from gapbridge.tasks.word_problems import problems
from gapbridge.training.method import GapTrainerMixin


def rows_of(method: str) -> list[dict[str, Any]]:
    """Five rows, long ones and short ones."""
    found: list[dict[str, Any]] = [problem.row() for problem in problems("test", count=5, steps=(2, 3))]
    for row in found[::2]:
        row["completion"] = [{"role": "assistant", "content": "#### 5"}]
    if method != "dpo":
        return found
    chosen = [{"prompt": row["prompt"], "chosen": row["completion"]} for row in found]
    return [{**row, "rejected": [{"role": "assistant", "content": "#### 7"}]} for row in chosen]


def trainer_in(folder: Path, method: str, batch_size: int, **keys: Any) -> GapTrainerMixin:
    data = [{"path": "json", "data_files": write_rows(folder / "held_out.jsonl", rows_of(method))}]
    settings = {
        "model_name_or_path": str(BASE), "datasets": data, "eval_datasets": data, "eval_strategy": "steps",
        "eval_steps": 100, "per_device_eval_batch_size": batch_size, "max_length": 512, **keys,
        "output_dir": str(folder / str(batch_size)),
    }  # fmt: skip
    job = read_job(recipe(folder, method=method, **settings), method)
    model, tokenizer = load_initial_model(job)
    examples = load_examples(job, tokenizer, model)
    args = round_arguments(job.args, 1)
    return job.method(
        model=model, args=args, train_dataset=examples["train"], eval_dataset=examples.get("eval"),
        processing_class=tokenizer,
    )  # fmt: skip


def figures(trainer: GapTrainerMixin) -> dict[str, float]:
    trainer.evaluate()
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry or "eval_generated_loss" in entry]
    return {
        key: value
        for entry in entries
        for key, value in entry.items()
        if "per_second" not in key and "time" not in key and key.startswith("eval_")
    }


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("sft", {}),
        ("dpo", {}),
        ("mtp", {"num_future_tokens": 2}),
        # The same code with other rows: two to six seconds each.
        pytest.param("bash", {"mixture_coefficient": 0.5}, marks=pytest.mark.nightly),
        pytest.param("rac", {"max_completion_length": 24}, marks=pytest.mark.nightly),
        pytest.param("spin", {"max_completion_length": 24}, marks=pytest.mark.nightly),
        pytest.param("pause", {"num_pause_tokens": 2}, marks=pytest.mark.nightly),
        pytest.param("scheduled_sampling", {}, marks=pytest.mark.nightly),
        pytest.param("sft", {"eval_packing": True, "packing": True}, marks=pytest.mark.nightly),
        pytest.param("sft", {"loss_type": "dft"}, marks=pytest.mark.nightly),
    ],
)
def test_figures_do_not_depend_on_the_batch_size(method: str, keys: dict[str, Any], tmp_path: Path) -> None:
    one, some, all_rows = (figures(trainer_in(tmp_path, method, size, **keys)) for size in (1, 4, 5))
    if TRL < Version("1.16"):  # its entropy is that of prompts, too
        for found in (one, some, all_rows):
            found.pop("eval_entropy", None)
    assert one.keys() == some.keys() == all_rows.keys() and "eval_loss" in one
    assert ("eval_generated_loss" in one) == (method in ("bash", "rac"))
    for other in (some, all_rows):
        assert other == pytest.approx(one, rel=2e-4, abs=1e-5)
    if method == "mtp":
        for found in (one, some, all_rows):
            assert found["eval_head_1_loss"] == pytest.approx(found["eval_loss"], rel=1e-5)


def test_shares_of_scheduled_sampling_are_of_all_tokens(tmp_path: Path) -> None:
    """The coins are a function of row and step: rows one by one have those of rows together."""
    shares = []
    for size in (4, 1):
        keys = {"mixture_coefficient": 0.5, "gradient_accumulation_steps": 4 // size, "logging_steps": 1}
        trainer = trainer_in(
            tmp_path, "scheduled_sampling", size, per_device_train_batch_size=size, max_steps=1, save_strategy="no",
            eval_strategy="no", **keys,
        )  # fmt: skip
        trainer.train()
        [entry] = [entry for entry in trainer.state.log_history if "sampling/sampled_frac" in entry]
        shares.append((entry["sampling/sampled_frac"], entry["sampling/replaced_frac"]))
    assert shares[0] == pytest.approx(shares[1]) and 0 < shares[0][1] < shares[0][0]


def test_a_model_that_is_scored_on_its_training_rows_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recipe without held-out data is evaluated on its data; nothing else says that these are the training rows.

    The rows are loaded once for the warning and the examples, whatever the evaluation's limit and their columns.
    """
    arguments = recipe(tmp_path, method="sft")
    train(read_job(arguments, "sft"))
    held_out = [{"path": "json", "data_files": write_rows(tmp_path / "held_out.jsonl", rows_of("sft"))}]
    for eval_datasets, warned in ((None, True), (held_out, False)):
        caplog.clear()
        recipe(tmp_path, method="sft", eval_datasets=eval_datasets)
        with patch.object(load_inputs, "find_data", wraps=load_inputs.find_data) as loads:
            _, _, examples = load_evaluated(job_for(str(tmp_path / "run"), arguments[1], []), str(tmp_path / "run"), 2)
        assert ("scored on the rows that it was trained on" in caplog.text) is warned
        assert (loads.call_count, len(examples)) == (1, 2)
