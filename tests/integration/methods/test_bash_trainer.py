"""The BASH trainer: SFT at β = 0, the labels it trains on, and everything SFTTrainer can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.small_runs import SMALL_RUN, MakeBase
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from gapbridge import (
    BASHConfig,
    BASHTrainer,
    ConfigError,
    DataError,
    RunError,
    StoreError,
    TrainingError,
    preview,
)
from gapbridge.methods.bash import trainer as trainer_module
from gapbridge.methods.bash.stats import BASHStats
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 256,
    "learning_rate": 0.001,
    "max_steps": 3,
    "logging_steps": 1,
    "seed": 7,
}


def rows(count: int = 16, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(2, 3, 4))])


def bash(
    folder: Path, model: PreTrainedModel, tokenizer: Any, data: Dataset | None = None, **options: Any
) -> BASHTrainer:
    trainer_options = {
        key: options.pop(key) for key in ("peft_config", "eval_dataset", "data_collator") if key in options
    }
    args = BASHConfig(str(folder), **{**COMMON, **options})
    return BASHTrainer(
        model, args=args, train_dataset=rows() if data is None else data, processing_class=tokenizer, **trainer_options
    )


def losses(trainer: SFTTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def same_weights(a: PreTrainedModel, b: PreTrainedModel) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("packing", [False, True])
def test_beta_zero_is_sft_exactly(packing: bool, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Two names changed in a TRL script: same losses, same gradients, same weights, bit for bit."""
    options = {**COMMON, "packing": packing}
    sft = SFTTrainer(
        make_base(), args=SFTConfig(str(tmp_path / "sft"), **options), train_dataset=rows(), processing_class=tokenizer
    )
    sft.train()
    ours = bash(tmp_path / "bash", make_base(), tokenizer, mixture_coefficient=0.0, packing=packing)
    ours.train()
    assert losses(ours) == losses(sft)
    norms = [[e["grad_norm"] for e in run.state.log_history if "grad_norm" in e] for run in (ours, sft)]
    assert norms[0] == norms[1] != []
    assert same_weights(ours.model, sft.model)


def test_loss_is_the_hand_computed_one(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer, rows(4), max_steps=1, mixture_coefficient=0.5)
    model = make_base().eval()
    total, count, differing = 0.0, 0, 0
    for row in trainer.train_dataset:
        with torch.no_grad():
            log_probs = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        for at, label in enumerate(row["labels"]):
            if label != -100:
                total -= float(log_probs[at - 1, label])
                count += 1
                differing += label != row["input_ids"][at]
    trainer.train()
    assert differing > 0
    assert losses(trainer) == [pytest.approx(total / count, rel=1e-5)]


def test_loss_falls_on_the_answer_and_eos_alone(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer, mixture_coefficient=0.5)
    references = {tuple(example.prompt): example.completion_ids for example in trainer.examples}
    controls = set(tokenizer.all_special_ids)
    for row in trainer.train_dataset:
        start = next(i for i, label in enumerate(row["labels"]) if label != -100)
        reference = references[tuple(row["input_ids"][:start])]
        assert row["labels"] == [-100] * start + reference
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        assert not controls & set(row["input_ids"][start:-1])
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert bool((batch["labels"][batch["attention_mask"] == 0] == -100).all())


def test_batches_and_accumulation_are_equivalent(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    runs = []
    for size, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = bash(
            tmp_path / str(size), make_base(), tokenizer,
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=2,
        )  # fmt: skip
        trainer.train()
        runs.append(trainer)
    for other in runs[1:]:
        assert losses(other) == pytest.approx(losses(runs[0]), rel=1e-5)
        norms = [[e["grad_norm"] for e in run.state.log_history if "grad_norm" in e] for run in (runs[0], other)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_packing_and_padding_free_have_the_plain_loss(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """One step over all rows: how they are laid out must not change the loss."""
    variants = {
        "plain": {"per_device_train_batch_size": 16},
        "packed": {"per_device_train_batch_size": 16, "packing": True, "max_length": 1024},
        "padding-free": {"per_device_train_batch_size": 16, "padding_free": True, "max_length": None},
    }
    results = {}
    for name, options in variants.items():
        trainer = bash(tmp_path / name, make_base(), tokenizer, max_steps=1, **options)
        trainer.train()
        results[name] = losses(trainer)[0]
    assert results["packed"] == pytest.approx(results["plain"], rel=1e-5)
    assert results["padding-free"] == pytest.approx(results["plain"], rel=1e-5)


def test_evaluation_on_reference_and_own_contexts(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer, eval_dataset=rows(8, "test"), mixture_coefficient=0.5)
    metrics = trainer.evaluate()
    assert metrics["eval_generated_loss"] > metrics["eval_loss"] > 0
    logged = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
    assert logged["eval_generated_mean_token_accuracy"] != logged["eval_mean_token_accuracy"]
    trainer.train()
    assert trainer.evaluate(rows(4, "test"), metric_key_prefix="other").keys() >= {"other_loss"}
    without = bash(
        tmp_path / "b",
        make_base(),
        tokenizer,
        eval_dataset=rows(8, "test"),
        mixture_coefficient=0.5,
        eval_on_generated_contexts=False,
    )
    assert without.evaluate()["eval_loss"] == pytest.approx(metrics["eval_loss"]) and without.eval_stats == BASHStats()


def test_lora(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    base = make_base()
    trainer = bash(tmp_path, base, tokenizer, peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trainer.train()
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora" in name for name in trained)
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(make_base(), str(tmp_path / "adapter"))
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, trainer.model.eval()(tokens).logits)
    full = bash(tmp_path / "full", make_base(), tokenizer)
    assert [r["input_ids"] for r in full.train_dataset] == [r["input_ids"] for r in trainer.train_dataset]


def test_model_by_path_and_default_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import BASE

    monkeypatch.chdir(tmp_path)
    args = BASHConfig("here", **COMMON)
    trainer = BASHTrainer(str(BASE), args=args, train_dataset=rows())
    trainer.train()
    assert len(losses(trainer)) == 3 and (tmp_path / "here" / "_contexts" / "manifest.json").exists()


def test_contexts_are_found_again(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    first = bash(tmp_path, make_base(), tokenizer)
    first.prepare_dataset()
    shard = tmp_path / "_contexts" / "shard-00000-of-00001.parquet"
    made = shard.stat().st_mtime_ns
    again = bash(tmp_path, make_base(), tokenizer)
    again.prepare_dataset()
    assert shard.stat().st_mtime_ns == made and again.train_dataset[:] == first.train_dataset[:]
    with pytest.raises(StoreError, match="mixture_coefficient: got contexts that were made with 0.2, expected 0.3"):
        bash(tmp_path, make_base(), tokenizer, mixture_coefficient=0.3)
    changed = make_base()
    changed.model.norm.weight.data[0] += 1e-3
    with pytest.raises(StoreError, match="weights: got contexts that were made with"):
        bash(tmp_path, changed, tokenizer)
    with pytest.raises(StoreError, match="examples: got contexts that were made with"):
        bash(tmp_path, make_base(), tokenizer, rows(16, "test"))


def test_speed_options_do_not_change_the_store(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    first = bash(tmp_path, make_base(), tokenizer, generation_batch_size=64, verify_window=16)
    again = bash(tmp_path, make_base(), tokenizer, generation_batch_size=3, verify_window=2)
    assert again.train_dataset[:] == first.train_dataset[:]


def test_counts(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    stats = bash(tmp_path, make_base(), tokenizer, rows(64), mixture_coefficient=0.5, temperature=1.5).stats
    assert 0.45 < stats.sampled / stats.tokens < 0.52
    assert 0 < stats.replaced < stats.sampled


def test_a_broken_row_builder_shows_in_the_preview(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview prints the rows themselves: if no token of an answer carried loss, it would say so."""
    args = BASHConfig(str(tmp_path), **COMMON, mixture_coefficient=0.5, temperature=2.0)
    (good,) = preview(make_base(), args, rows(), tokenizer, count=1)
    assert "⟦" in good.plain and "→" in good.plain and "‹" in good.plain
    full = trainer_module.bash_row

    def broken(x: Any, y_hat: Any, y: Any, trailer: Any, trained: Any) -> Any:
        row = full(x, y_hat, y, trailer, trained)
        return {**row, "labels": [-100] * len(row["labels"])}

    monkeypatch.setattr(trainer_module, "bash_row", broken)
    (bad,) = preview(make_base(), args, rows(), tokenizer, count=1)
    assert "with loss (0.0%)" in bad.plain and "with loss (0.0%)" not in good.plain
    assert not any(tmp_path.iterdir())


def test_model_card_names_the_paper(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer)
    trainer.create_model_card(model_name="m")
    card = (tmp_path / "README.md").read_text()
    assert "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens" in card
    assert "2410.14655" in card and "bash" in card


def test_non_finite_loss_stops_before_the_update(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """The token of one row's question is poisoned: the error names that row, and the weights stay as they were."""
    poisoned = tokenizer.convert_tokens_to_ids("Q")
    data = [
        *rows(7),
        {
            "id": "bad-row",
            "prompt": [{"role": "user", "content": "Q"}],
            "completion": [{"role": "assistant", "content": "7"}],
        },
    ]
    for packing in (False, True):
        base = make_base()
        trainer = bash(
            tmp_path / str(packing), base, tokenizer, Dataset.from_list(data), mixture_coefficient=0.0,
            per_device_train_batch_size=8, packing=packing,
        )  # fmt: skip
        trainer.prepare_dataset()
        with torch.no_grad():
            base.get_input_embeddings().weight[poisoned] = float("nan")
        before = {name: value.clone() for name, value in base.state_dict().items()}
        with pytest.raises(TrainingError, match="bad-row.*got a loss of nan"):
            trainer.train()
        after = base.state_dict()
        assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)


def test_resume_takes_whole_checkpoints_only(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    full = bash(tmp_path / "whole", make_base(), tokenizer, **options)
    full.train()
    folder = tmp_path / "cut"
    bash(folder, make_base(), tokenizer, **options).train()
    (folder / "checkpoint-6" / "COMPLETE.json").unlink()
    (folder / "checkpoint-4" / "optimizer.pt").unlink()
    resumed = bash(folder, make_base(), tokenizer, **options)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(resumed.model, full.model)
    assert losses(resumed) == losses(full)
    with pytest.raises(RunError, match="no complete checkpoint"):
        bash(tmp_path / "none", make_base(), tokenizer).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixture_coefficient": 1.2}, "mixture_coefficient: got 1.2, expected a number from"),
        ({"temperature": -1.0, "top_k": -2, "verify_window": 0}, "3 errors"),
        ({"num_rounds": 2, "num_epochs_per_round": [1, 2, 3]}, "num_epochs_per_round: got 3 numbers for 2 rounds"),
        ({"on_invalid_example": "ignore"}, "expected one of raise, skip"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        BASHConfig(str(tmp_path), **{**COMMON, **options})


def test_bad_arguments_are_refused(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    model = make_base()
    with pytest.raises(ConfigError, match="args: got a SFTConfig"):
        BASHTrainer(model, args=SFTConfig(str(tmp_path), **COMMON), train_dataset=rows(), processing_class=tokenizer)
    with pytest.raises(ConfigError, match="for one trainer, which trains one round"):
        bash(tmp_path, model, tokenizer, num_rounds=2)
    with pytest.raises(DataError, match="train_dataset: got NoneType"):
        BASHTrainer(model, args=BASHConfig(str(tmp_path), **COMMON), processing_class=tokenizer)
    with pytest.raises(DataError, match="text: got an empty string"):
        BASHTrainer(
            model, args=BASHConfig(str(tmp_path), **COMMON), train_dataset=rows(), processing_class=tokenizer,
            formatting_func=lambda row: "",
        )  # fmt: skip
    with pytest.raises(ConfigError, match="'<no such>'"):
        bash(tmp_path, model, tokenizer, eos_token="<no such>")
    assert not any(tmp_path.iterdir())


def test_saved_model_generates(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = bash(tmp_path, make_base(), tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert same_weights(loaded, trainer.model)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "llama"
