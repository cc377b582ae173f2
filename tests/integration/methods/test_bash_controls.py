"""BASH's controls and research options: what each one changes, that it changes nothing else, and SFT at β = 0."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers import contents, gapbridge, kill_when, recipe
from helpers.small_runs import SMALL_RUN, MakeBase
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from gapbridge import BASHConfig, BASHTrainer, ConfigError, StoreError, TrainingError, cli, preview
from gapbridge.data.hash_sampling import hash_uniform
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 256,
    "learning_rate": 0.001,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "seed": 7,
}
MIXED: dict[str, Any] = {"mixture_coefficient": 0.6, "temperature": 2.0}
ROWS = 12  # three steps an epoch


def rows(count: int = ROWS, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(2,))])


def bash(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> BASHTrainer:
    data, held_out = options.pop("data", None), options.pop("eval_dataset", None)
    args = BASHConfig(str(folder), **{**COMMON, **options})
    return BASHTrainer(
        model,
        args=args,
        train_dataset=rows() if data is None else data,
        eval_dataset=held_out,
        processing_class=tokenizer,
    )


def sft(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> SFTTrainer:
    args = SFTConfig(str(folder), **{**COMMON, **options})
    trainer = SFTTrainer(model, args=args, train_dataset=rows(), processing_class=tokenizer)
    trainer.train()
    return trainer


def losses(trainer: SFTTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def same_weights(a: PreTrainedModel, b: PreTrainedModel) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def replaced(row: dict[str, Any], reference: list[int]) -> list[int]:
    """The positions of an answer that is the end of its row where another token stands."""
    own = row["input_ids"][len(row["input_ids"]) - len(reference) :]
    return [at for at, (a, b) in enumerate(zip(own, reference, strict=True)) if a != b]


@pytest.mark.parametrize(
    "options",
    [
        {
            "replacement_source": "uniform",
            "sft_fraction": 0.5,
            "num_masked_labels_after_replacement": 3,
        },
        {"replacement_source": "uniform", "final_sft_epochs": 1},
    ],
)
def test_beta_zero_is_sft_with_every_option(
    options: dict[str, Any], make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    base = sft(tmp_path / "sft", make_base(), tokenizer)
    ours = bash(tmp_path / "bash", make_base(), tokenizer, mixture_coefficient=0.0, **options)
    ours.train()
    assert losses(ours) == losses(base) != []
    assert same_weights(ours.model, base.model)


@pytest.mark.parametrize(
    "layout",
    [
        {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2},
        {"packing": True},
        {"padding_free": True, "max_length": None},
    ],
)
def test_all_epochs_on_references_are_sft(
    layout: dict[str, Any], make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    base = sft(tmp_path / "sft", make_base(), tokenizer, **layout)
    ours = bash(tmp_path / "bash", make_base(), tokenizer, **MIXED, final_sft_epochs=2, **layout)
    assert ours.stats.replaced > 0
    ours.train()
    assert losses(ours) == losses(base) != []
    assert same_weights(ours.model, base.model)


def test_references_from_the_step_on_that_is_asked_for(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """The first epoch is BASH's, the last half of the second on references; evaluation keeps its own contexts."""
    options = {**MIXED, "data": rows(16), "per_device_train_batch_size": 4}
    plain = bash(tmp_path / "plain", make_base(), tokenizer, **options)
    plain.train()
    held_out = rows(4, "test")
    ours = bash(
        tmp_path / "final",
        make_base(),
        tokenizer,
        **options,
        final_sft_epochs=0.5,
        eval_dataset=held_out,
        eval_strategy="no",
    )
    ours.prepare_dataset()  # its passes are not those of a step
    references = {tuple(row["input_ids"]) for row in map(dict, reference_rows(ours.examples))}
    seen: dict[bool, list[bool]] = {True: [], False: []}

    def look(module: Any, args: Any, kwargs: Any) -> None:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"].bool()
        seen[module.training].append(
            all(tuple(row[real].tolist()) in references for row, real in zip(ids, mask, strict=True))
        )

    ours.model.register_forward_pre_hook(look, with_kwargs=True)
    ours.train()
    assert seen[True] == [False] * 6 + [True] * 2
    assert losses(ours)[:6] == losses(plain)[:6] and losses(ours)[6] != losses(plain)[6]
    own = ours.evaluate()
    assert own["eval_generated_loss"] != own["eval_loss"] and not all(seen[False][1:])


def reference_rows(examples: Any) -> list[dict[str, Any]]:
    return [example.reference_row() for example in examples]


def test_resumed_among_the_final_epochs(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    options = {**MIXED, "final_sft_epochs": 1, "save_strategy": "steps", "save_steps": 2}
    full = bash(tmp_path / "whole", make_base(), tokenizer, **options)
    full.train()
    for last in (2, 4):  # one before the final epoch, which begins with the fourth step, and one in it
        folder = tmp_path / str(last)
        bash(folder, make_base(), tokenizer, **options).train()
        for later in folder.glob("checkpoint-*"):
            if int(later.name.split("-")[1]) > last:
                (later / "COMPLETE.json").unlink()
        resumed = bash(folder, make_base(), tokenizer, **options)
        resumed.train(resume_from_checkpoint=True)
        assert losses(resumed) == losses(full) and same_weights(resumed.model, full.model)


@pytest.mark.slow
def test_killed_in_the_final_epochs(tmp_path: Path) -> None:
    """SIGKILL behind the first step on references; the same command then ends with the same weights, byte for byte."""
    options = {**MIXED, "max_steps": 4, "num_train_epochs": 4, "final_sft_epochs": 3, "save_steps": 1}
    command = ("bash", *recipe(tmp_path, **options))
    run, full = tmp_path / "run", tmp_path / "whole"
    gapbridge(*command, "--output_dir", str(full))
    kill_when(lambda: (run / "round_1" / "checkpoint-2" / "COMPLETE.json").exists(), *command)
    gapbridge(*command)
    assert contents(run, "model.safetensors") == contents(full, "model.safetensors") != {}


def test_a_loss_that_is_not_finite_names_the_rows_of_the_final_epochs(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer, **MIXED, final_sft_epochs=2)
    trainer.prepare_dataset()
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(TrainingError, match="step 1, a batch with rows train-.*: got a loss of nan"):
        trainer.train()


def test_random_tokens_at_the_models_share(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    replacement_source = "uniform"
    own = bash(tmp_path / "own", make_base(), tokenizer, **MIXED)
    noise = bash(tmp_path / "noise", make_base(), tokenizer, **MIXED, replacement_source=replacement_source)
    assert noise.stats.tokens == own.stats.tokens
    assert noise.stats.sampled == noise.stats.replaced == own.stats.replaced > 0
    known = {token for example in own.examples for token in example.completion_ids}
    strange = set()
    for example, a, b in zip(own.examples, own.row_ids, noise.row_ids, strict=True):
        places = replaced(b, example.completion_ids)
        assert len(places) == len(replaced(a, example.completion_ids)) and b["labels"] == a["labels"]
        strange |= {b["input_ids"][len(example.prompt) + at] for at in places}
    assert not strange & set(tokenizer.all_special_ids)
    assert not strange <= known
    small = bash(
        tmp_path / "small",
        make_base(),
        tokenizer,
        **MIXED,
        replacement_source=replacement_source,
        generation_batch_size=2,
    )
    assert small.row_ids[:] == noise.row_ids[:]
    expected = f"replacement_source: got contexts that were made with '{replacement_source}', expected None"
    with pytest.raises(StoreError, match=expected):
        bash(tmp_path / "noise", make_base(), tokenizer, **MIXED)


def test_plain_rows_are_a_hash_of_the_ids(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = rows(24)
    full = bash(tmp_path, make_base(), tokenizer, data=data, **MIXED)
    full.prepare_dataset()
    half = bash(tmp_path, make_base(), tokenizer, data=data, **MIXED, sft_fraction=0.5, eval_dataset=rows(8, "test"))
    plain = {example.id for example in half.examples if hash_uniform(example.id, 7, "plain") < 0.5}
    assert half.stats.sft_rows == len(plain) and 4 < len(plain) < 20
    assert f"{len(plain)} SFT rows" in half.stats.summary()
    counted = 0
    for example, mixed, row in zip(half.examples, full.row_ids, half.row_ids, strict=True):
        assert row["labels"] == mixed["labels"]
        if example.id in plain:
            assert row["input_ids"] == example.reference_row()["input_ids"] and not any(row["sampled"])
        else:
            assert row == mixed, "the share changes no context"
            counted += len(replaced(row, example.completion_ids))
    assert half.stats.replaced == counted < full.stats.replaced
    assert half.stats.tokens == sum(len(e.completion_ids) for e in half.examples if e.id not in plain)
    assert half.eval_stats.sft_rows == 0 < half.eval_stats.replaced, "held-out contexts are all mixed"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gapbridge"):
        none = bash(tmp_path / "plain", make_base(), tokenizer, sft_fraction=1.0)
        none.prepare_dataset()
    assert none.stats.summary() == f"{ROWS} SFT rows" and not caplog.records
    assert not (tmp_path / "plain" / "_contexts").exists()


def test_labels_behind_replaced_tokens_carry_no_loss(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    options = {"mixture_coefficient": 0.1, "temperature": 2.0}
    full = bash(tmp_path, make_base(), tokenizer, **options)
    masked = bash(
        tmp_path,
        make_base(),
        tokenizer,
        **options,
        num_masked_labels_after_replacement=2,
        eval_dataset=rows(4, "test"),
    )
    count = 0
    for example, plain, row in zip(masked.examples, full.row_ids, masked.row_ids, strict=True):
        assert row["input_ids"] == plain["input_ids"]
        places = replaced(row, example.completion_ids)
        behind = {len(example.prompt) + at + n for at in places for n in (1, 2)}
        for at, (before, now) in enumerate(zip(plain["labels"], row["labels"], strict=True)):
            assert now == (-100 if at in behind else before)
        count += len(behind & set(range(len(row["labels"]))))
    assert masked.stats.masked_labels == count > 0 and masked.eval_stats.masked_labels == 0
    args = BASHConfig(
        str(tmp_path / "shown"), **{**COMMON, **options}, num_masked_labels_after_replacement=2, sft_fraction=0.5
    )
    shown = [text.plain for text in preview(make_base(), args, rows(), tokenizer, count=ROWS)]
    plain_ids = {example.id for example in masked.examples if hash_uniform(example.id, 7, "plain") < 0.5}
    for text in shown:
        is_plain = text.split()[1] in plain_ids
        assert ("replaced" in text.splitlines()[0]) != is_plain
    # The prompt is one part without loss; a replaced token has another behind it.
    assert any(re.search(r"→[^⟧]*⟧‹", text) and text.count("‹") > 1 for text in shown)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        BASHConfig(
            str(tmp_path),
            **COMMON,
            replacement_source="random",
            sft_fraction=1.5,
            final_sft_epochs=3,
            num_masked_labels_after_replacement=-1,
        )
    told = "\n".join(caught.value.errors)
    for words in (
        "replacement_source: got 'random', expected one of model, uniform",
        "sft_fraction: got 1.5",
        "final_sft_epochs: got 3, expected a number from 0 to the epochs of a round (2",
        "num_masked_labels_after_replacement: got -1",
        "got a value with num_masked_labels_after_replacement",
    ):
        assert words in told
    assert len(caught.value.errors) == 5
    for options, words in (
        (
            {"sft_fraction": 1, "replacement_source": "uniform", "num_masked_labels_after_replacement": 1},
            "replacement_source, num_masked_labels_after_replacement would have no",
        ),
        (
            {"num_rounds": 2, "num_epochs_per_round": [1, 2], "final_sft_epochs": 1.5},
            r"got 1.5, expected a number from 0 to the epochs of a round \(1\)",
        ),
        ({"max_steps": 9, "final_sft_epochs": 3}, "a fraction of num_train_epochs"),
    ):
        with pytest.raises(ConfigError, match=words):
            BASHConfig(str(tmp_path), **{**COMMON, **options})


def test_of_max_steps_the_final_epochs_are_a_share(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    options = {**MIXED, "final_sft_epochs": 0.5, "max_steps": 8, "num_train_epochs": 2}
    trainer = bash(tmp_path, make_base(), tokenizer, **options)
    trainer.state.max_steps = 8
    found = []
    for step in range(8):
        trainer.state.global_step = step
        found.append(trainer._on_references())
    assert found == [False] * 6 + [True] * 2


def test_every_run_says_what_is_replaced(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**MIXED, "max_steps": 1}
    bash(tmp_path / "script", make_base(), tokenizer, **options).train()
    assert "'contexts/replaced_frac': " in capsys.readouterr().out
    cli.main(["bash", *recipe(tmp_path, **options, replacement_source="uniform", sft_fraction=0.5)])
    assert re.search(r"% of the answer tokens sampled, [\d.]+ % replaced, \d SFT rows", capsys.readouterr().err)
    report = (tmp_path / "run" / "report.md").read_text()
    assert re.search(r"\| sft rows +\| \d +\|", report)
