"""The multi-token trainer: its loss by hand, the same however rows are laid out, heads saved, loaded and resumed."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, tiny_llama
from datasets import Dataset
from helpers.small_runs import SMALL_RUN, MakeBase
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from gapbridge import ConfigError, MTPConfig, MTPTrainer
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.decoding import generate_completions
from gapbridge.decoding.mtp_heads import (
    HEADS_FILE,
    capture_hidden_states,
    find_decoder_parts,
    find_heads,
    head_states,
)
from gapbridge.methods.mtp.checkpoint import load
from gapbridge.methods.mtp.losses import future_targets
from gapbridge.methods.mtp.speculative import generate
from gapbridge.methods.mtp.trainer import MTPSFTTrainer
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 256,
    "learning_rate": 0.001,
    "max_steps": 2,
    "logging_steps": 1,
    "seed": 7,
    "num_future_tokens": 3,
    "mtp_head_only_ratio": 0.5,
}


def rows(count: int = 8) -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems("train", count=count, steps=(2, 3))])


def mtp(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> MTPTrainer:
    given = {key: options.pop(key) for key in ("peft_config", "eval_dataset") if key in options}
    args = MTPConfig(str(folder), **{**COMMON, **options})
    return MTPTrainer(model, args=args, train_dataset=rows(), processing_class=tokenizer, **given)


def logged(trainer: MTPTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def said(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of the model, and of head 2."""
    heads = find_heads(model)
    assert heads is not None
    with torch.no_grad(), capture_hidden_states(find_decoder_parts(model)) as captured:
        logits = model(tokens, use_cache=False).logits
        assert captured.states is not None
        return logits, captured.parts.unembedding(head_states(heads, 0, captured, captured.states))


def test_loss_is_the_hand_computed_one(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """One step over all rows; each head's loss and accuracy are logged."""
    trainer = mtp(
        tmp_path, make_base(), tokenizer, per_device_train_batch_size=8, max_steps=1, mtp_loss_weight=0.5,
        eval_dataset=rows(), eval_strategy="steps", eval_on_start=True,
    )  # fmt: skip
    sums, right, counts = [0.0] * 3, [0] * 3, [0] * 3
    for row in trainer.train_dataset:
        log_probs = torch.log_softmax(make_base()(torch.tensor([row["input_ids"]])).logits[0], -1)
        for head in range(3):  # copies of the last layer: all say what head 1 says
            targets = future_targets(torch.tensor([row["labels"]]), head + 1)[0].tolist()
            for at, target in enumerate(targets):
                if target != -100:
                    sums[head] -= float(log_probs[at, target])
                    right[head] += int(log_probs[at].argmax() == target)
                    counts[head] += 1
    trainer.train()
    assert counts[0] > counts[1] > counts[2] > 0
    assert logged(trainer, "loss") == [pytest.approx((sums[0] + 0.5 * sums[1] + 0.5 * sums[2]) / counts[0], rel=1e-5)]
    for head in range(3):
        name = f"head_{head + 1}"
        assert logged(trainer, f"{name}_loss") == [pytest.approx(sums[head] / counts[head], rel=1e-5)]
        assert logged(trainer, f"{name}_accuracy") == [pytest.approx(right[head] / counts[head])]
        assert logged(trainer, f"eval_{name}_loss")[0] == pytest.approx(sums[head] / counts[head], rel=1e-5)
    assert logged(trainer, "eval_loss")[0] == pytest.approx(sums[0] / counts[0], rel=1e-5), "that of head 1 alone"


def test_the_same_training_in_any_layout(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Packed, accumulated, or with the trunk's activations made again."""
    variants: dict[str, dict[str, Any]] = {
        "plain": {"per_device_train_batch_size": 8},
        "packed": {"per_device_train_batch_size": 8, "packing": True, "max_length": 1024},
        "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        "checkpointed": {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
    }
    found = {}
    for name, options in variants.items():
        trainer = mtp(tmp_path / name, make_base(), tokenizer, **options)
        trainer.train()
        found[name] = [*logged(trainer, "loss"), *logged(trainer, "grad_norm")]
        assert len(found[name]) == 4 and all(torch.isfinite(torch.tensor(found[name])))
    for name, values in found.items():
        assert values == pytest.approx(found["plain"], rel=1e-4), name


def test_heads_of_packed_documents_predict_nothing_of_the_next_one(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    """Documents whose first token carries loss, also where no collator takes that from it as TRL's does."""
    documents = [list(range(at, at + 12)) for at in (20, 60, 90, 130)]
    data = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in documents])
    found = {}
    for name, options in (("apart", {}), ("packed", {"packing": True, "max_length": 48})):
        settings = {**COMMON, "max_steps": 1, "mtp_head_only_ratio": 0.0, **options}
        args, model = MTPConfig(str(tmp_path / name), **settings), make_base()
        MTPTrainer.setup_model(model, tokenizer, args)
        args.assistant_only_loss = args.completion_only_loss = False  # TRL's trainer reads the rows by itself
        trainer = MTPSFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
        collate = trainer.data_collator

        def with_all_labels(rows: list[Any], collate: Any = collate) -> dict[str, torch.Tensor]:
            batch: dict[str, torch.Tensor] = collate(rows)
            return {**batch, "labels": batch["input_ids"].clone()}

        trainer.data_collator = with_all_labels
        trainer.train()
        assert len(trainer.train_dataset) == (4 if name == "apart" else 1)
        found[name] = [logged(trainer, f"head_{head}_loss")[0] for head in (2, 3)]
    assert found["packed"] == pytest.approx(found["apart"], rel=1e-4)


def test_heads_that_learn_alone_leave_sft(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """The model's own weights are SFT's, bit for bit, also where heads share them; the heads learn."""
    models = []
    for n in (1, 3):
        trainer = mtp(
            tmp_path, make_base(), tokenizer, num_future_tokens=n, mtp_head_only_ratio=1.0, max_grad_norm=0.0
        )
        trainer.train()
        models.append(trainer.model)
    own, new = models[1].state_dict(), find_heads(models[1])
    assert all(torch.equal(value, own[name]) for name, value in models[0].state_dict().items())
    last = dict(models[1].model.layers[-1].named_parameters())
    assert not any(torch.equal(weight, last[name]) for name, weight in new.heads[0].named_parameters())
    first = make_base().model.layers[-1].state_dict()
    assert not any(torch.equal(weight, first[name]) for name, weight in new.heads[0].named_parameters())


def test_mixed_precision(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """In bfloat16 loss and gradients differ from those of float32 by rounding."""
    found = []
    for bf16 in (True, False):
        trainer = mtp(tmp_path, make_base(), tokenizer, bf16=bf16, max_steps=1, mtp_head_only_ratio=0.0)
        trainer.train()
        found.append([*logged(trainer, "loss"), *logged(trainer, "grad_norm")])
    assert len(found[0]) == 2 and found[0] == pytest.approx(found[1], rel=2e-2)


def test_saved_loaded_and_resumed(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`from_pretrained` gets the next-token model and says nothing; a resumed run has the heads beside it."""
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    full = mtp(tmp_path / "whole", make_base(), tokenizer, **options)
    full.train()
    again = mtp(tmp_path / "again", make_base(), tokenizer, **options)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    weights = full.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())
    assert "future_heads" not in caplog.text

    directory = tmp_path / "model"
    full.save_model(str(directory))
    names = set(load_file(directory / "model.safetensors"))
    assert names == set(load_file(Path("recipes/tiny/base") / "model.safetensors"))
    caplog.clear()
    plain = AutoModelForCausalLM.from_pretrained(directory)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not told and find_heads(plain) is None
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    MTPTrainer.setup_model(plain, tokenizer, full.args)
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert len(find_heads(plain) or ()) == 2

    loaded = load(directory)
    assert not loaded.training
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(ConfigError, match=rf"base: got no {HEADS_FILE}"):
        load("recipes/tiny/base")

    other = AutoModelForCausalLM.from_pretrained(directory)
    with pytest.raises(ConfigError, match=rf"{HEADS_FILE}: got 2 heads, expected 4\. Set num_future_tokens: 3"):
        MTPTrainer.setup_model(other, tokenizer, MTPConfig(str(tmp_path), **{**COMMON, "num_future_tokens": 5}))


def test_an_adapter_on_the_trunk_and_whole_heads(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    base = make_base()
    lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0)
    trainer = mtp(tmp_path, base, tokenizer, peft_config=lora, save_strategy="steps", save_steps=2)
    learning = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {name for name in learning if "future_heads" in name and "lora" in name} == set()
    assert {name.split(".future_heads.")[1] for name in learning if "future_heads" in name} == set(
        find_heads(base).state_dict()
    )
    assert all("lora" in name or "future_heads" in name for name in learning)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == learning
    saved = load_file(tmp_path / "checkpoint-2" / HEADS_FILE)
    assert all(torch.equal(value, saved[name]) for name, value in find_heads(base).state_dict().items())
    assert not any("future_heads" in name for name in load_file(tmp_path / "checkpoint-2/adapter_model.safetensors"))
    trainer.model.eval()
    tokens = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    own, head = said(trainer.model, tokens)
    logits, second = said(load(tmp_path / "checkpoint-2"), tokens)
    torch.testing.assert_close(logits, own)
    torch.testing.assert_close(second, head)
    trainer.args.save_merged_model = True
    trainer.save_model(str(tmp_path / "merged"))
    logits, second = said(load(tmp_path / "merged"), tokens)
    torch.testing.assert_close(logits, own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second, head, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(make_base()(tokens).logits, own, atol=1e-3), "the adapter has learnt something"


def test_what_would_train_head_1_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.version import Version

    from gapbridge import compat

    with pytest.raises(ConfigError) as caught:
        MTPConfig(str(tmp_path), **{**COMMON, "loss_type": "dft", "label_smoothing_factor": 0.1})
    assert [error.split()[0].rstrip(":") for error in caught.value.errors] == [
        "loss_type", "label_smoothing_factor",
    ]  # fmt: skip
    MTPConfig(str(tmp_path), **{**COMMON, "loss_type": "dft", "num_future_tokens": 1})
    monkeypatch.setattr(compat, "TRL", Version("1.15.0"))
    with pytest.raises(
        ConfigError, match=r"num_future_tokens: got a value above 1 with TRL 1\.15\.0, expected TRL 1\.16 or newer"
    ):
        MTPConfig(str(tmp_path), **COMMON)


@pytest.mark.slow
def test_the_memory_of_one_head(tokenizer: Any, tmp_path: Path) -> None:
    """At a vocabulary of 128 K four heads need at most a quarter more than SFT."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from multi_token import peak_bytes

    peaks = []
    for n in (1, 4):
        model = tiny_llama(131072, max_position_embeddings=512)
        trainer = mtp(tmp_path / str(n), model, tokenizer, num_future_tokens=n)
        trainer.model.train()
        trained = torch.randint(5, 500, (1, 192))
        batch = {"input_ids": trained, "labels": trained, "attention_mask": torch.ones_like(trained)}
        peaks.append(peak_bytes(trainer, batch))
    assert peaks[1] <= 1.25 * peaks[0], peaks


@pytest.mark.slow
def test_trained_heads_draft(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """On what they have learnt by heart, two tokens a pass and more."""
    trainer = mtp(
        tmp_path, make_base(), tokenizer, num_future_tokens=4, max_steps=40, per_device_train_batch_size=8,
        learning_rate=2e-3, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train()
    prompts = [example.generation_prompt_ids for example in trainer.examples]
    options = {"tokenizer": tokenizer, "temperature": 0.0, "max_completion_length": 60}
    completions, done = generate(trainer.model, prompts, **options)
    stops = stop_tokens(tokenizer, trainer.model)
    plain = generate_completions(
        trainer.model, prompts, ids=list(range(8)), stop_tokens=stops, temperature=0.0, max_completion_length=60
    )
    assert completions == plain and done.passes_per_token <= 0.5, done
