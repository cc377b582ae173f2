"""What a run saves: the cache is on again, and an adapter is merged into its base where that is asked for."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, tiny_llama
from datasets import Dataset
from helpers import recipe, refused
from peft import LoraConfig, PeftModel, PromptTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import BASHConfig, BASHTrainer, ConfigError, cli
from gapbridge.tasks.word_problems import problems
from gapbridge.training.adapter_merge import check_mergeable


LORA: dict[str, Any] = {
    "use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "learning_rate": 1e-2,
}  # fmt: skip


def test_the_cache_is_on_in_what_is_saved(tmp_path: Path) -> None:
    cli.main(["sft", *recipe(tmp_path, method="sft", gradient_checkpointing=True, save_steps=1)])
    for folder in ("round_1/checkpoint-1", "round_1/model", "."):
        assert json.loads((tmp_path / "run" / folder / "config.json").read_text())["use_cache"] is True


def test_a_resumed_run_says_from_where_and_misses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's head is its embedding, which a checkpoint holds once: transformers calls the head missing."""
    dataset = Dataset.from_list([problem.row() for problem in problems("train", count=4, steps=(1,))])
    keys: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 2, "save_steps": 1}
    for resume in (None, True):
        args = BASHConfig(str(tmp_path / "run"), gradient_checkpointing=False, mixture_coefficient=0.0, **keys)
        trainer = BASHTrainer(str(BASE), args=args, train_dataset=dataset)
        if resume:
            shutil.rmtree(tmp_path / "run" / "checkpoint-2")
            caplog.clear()
            caplog.set_level("INFO", "gapbridge")
            monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
        trainer.train(resume_from_checkpoint=resume)
    assert "going on from" in caplog.text and "checkpoint-1" in caplog.text
    assert "missing keys" not in caplog.text


def test_the_last_round_is_merged(tmp_path: Path) -> None:
    """Round 2 goes on from round 1's adapter; the run's model is whole, and what the adapter on its base is."""
    arguments = recipe(tmp_path, num_rounds=2, save_merged_model=True, **LORA)
    cli.main(["bash", *arguments])
    run = tmp_path / "run"
    assert (run / "round_1/model/adapter_config.json").is_file() and not (run / "round_1/model/config.json").exists()
    assert not (run / "adapter_config.json").exists() and not list(run.glob("round_2/.*.tmp"))
    assert {"README.md", "tokenizer.json", "generation_config.json", "model.safetensors"} <= {
        path.name for path in run.iterdir()
    }
    merged = AutoModelForCausalLM.from_pretrained(run)
    assert merged.config.use_cache and merged.dtype == torch.float32
    base = AutoModelForCausalLM.from_pretrained(BASE)
    adapted = PeftModel.from_pretrained(base, str(run / "round_2/model/adapter"))
    ids = AutoTokenizer.from_pretrained(run)("a + b", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        theirs = adapted(ids).logits
        with adapted.disable_adapter():
            assert not torch.allclose(adapted(ids).logits, theirs, atol=1e-3)
        torch.testing.assert_close(merged(ids).logits, theirs, atol=1e-4, rtol=1e-4)
    cli.main(["sft", *recipe(tmp_path, method="sft", model_name_or_path=str(run), output_dir=str(tmp_path / "on"))])


@pytest.mark.parametrize(
    ("keys", "tied"),
    [
        ({"lora_modules_to_save": ["lm_head"]}, False),
        ({"lora_target_modules": ["q_proj", "embed_tokens"]}, False),
        pytest.param({"lora_modules_to_save": ["embed_tokens"]}, False, marks=pytest.mark.nightly),
        pytest.param({"lora_modules_to_save": ["embed_tokens", "lm_head"]}, False, marks=pytest.mark.nightly),
        pytest.param({"method": "pause"}, True, marks=pytest.mark.nightly),
        pytest.param({}, True, marks=pytest.mark.nightly),
    ],
)
def test_merged_weights_that_were_tied(keys: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    """The base's head is its embedding. The merged model is what was trained, and its configuration says what it is:
    transformers 4 ties whatever the configuration calls tied."""
    method = str(keys.get("method", "sft"))
    options = {"method": "sft", **LORA, "learning_rate": 5e-2, "warmup_steps": 0, "save_merged_model": True, **keys}
    cli.main([method, *recipe(tmp_path, **options)])
    run = tmp_path / "run"
    merged = AutoModelForCausalLM.from_pretrained(run)
    base = AutoModelForCausalLM.from_pretrained(BASE)
    base.resize_token_embeddings(merged.get_input_embeddings().num_embeddings, mean_resizing=False)
    adapted = PeftModel.from_pretrained(base, str(run / "adapter"))
    ids = AutoTokenizer.from_pretrained(run)("a + b is 5", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-3, rtol=1e-3)
    assert json.loads((run / "config.json").read_text())["tie_word_embeddings"] is tied
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) is tied


def with_companions(folder: Path) -> str:
    """The base model with everything that a model's folder may hold."""
    model = folder / "model"
    shutil.copytree(BASE, model)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{# tools #}" + tokenizer.chat_template}
    tokenizer.save_pretrained(model)
    generation = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**generation, "top_k": 7}))
    for name in (*TAKEN, *LEFT):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(f"the model's {name}")
    return str(model)


TAKEN = ("LICENSE", "preprocessor_config.json", "processor/video.json", "modeling_own.py", "a/b/code.py", "notes.txt")
LEFT = (
    "pytorch_model.bin", "model.safetensors.index.json", "onnx/model.onnx", ".git/config", "checkpoint-7/state.txt",
    "data.json", "samples/first_rows.txt", "round_1/x.txt", "old/adapter_config.json", "old/adapter_x.txt",
)  # fmt: skip


@pytest.mark.parametrize("keys", [{}, {"save_merged_model": True, **LORA}], ids=["whole", "merged"])
def test_what_lies_beside_the_weights_reaches_the_run(keys: dict[str, Any], tmp_path: Path) -> None:
    model = with_companions(tmp_path)
    cli.main(["sft", *recipe(tmp_path, method="sft", model_name_or_path=model, save_strategy="no", **keys)])
    run = tmp_path / "run"
    for place in (run, run / "round_1" / "model"):
        assert all((place / name).read_text() == f"the model's {name}" for name in TAKEN)
        assert json.loads((place / "generation_config.json").read_text())["top_k"] == 7
        assert "tool_use" in AutoTokenizer.from_pretrained(place).chat_template
        assert (place / "adapter" / "adapter_model.safetensors").exists() == bool(keys)
    assert not any((run / "round_1" / "model" / name).exists() for name in LEFT)
    assert "examples" in (run / "data.json").read_text() and "id " in (run / "samples/first_rows.txt").read_text()


@pytest.mark.nightly  # three runs more
def test_what_lies_beside_the_weights_goes_from_run_to_run(tmp_path: Path) -> None:
    """Two rounds, then a run on that run's folder; a new template is the only one of a run that sets it."""
    model, first = with_companions(tmp_path), str(tmp_path / "first")
    keys = {"save_strategy": "no", "output_dir": first}
    cli.main(["bash", *recipe(tmp_path, model_name_or_path=model, num_rounds=2, **keys)])
    template = AutoTokenizer.from_pretrained(BASE).chat_template + "{# mine #}"
    second = recipe(tmp_path, method="sft", model_name_or_path=first, save_strategy="no", chat_template=template)
    cli.main(["sft", *second])
    for run in (tmp_path / "first", tmp_path / "run"):
        assert all((run / name).read_text() == f"the model's {name}" for name in TAKEN)
    assert AutoTokenizer.from_pretrained(tmp_path / "run").chat_template == template
    assert not {"round_1", "report.md", "eval"} & {path.name for path in (tmp_path / "run/round_1/model").iterdir()}


def test_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("bash", "validate"):
        arguments = recipe(tmp_path, save_merged_model=True, num_rounds=2)
        if command == "validate":
            with pytest.raises(SystemExit):
                cli.main([command, *arguments])
            output = capsys.readouterr()
            said = output.out + output.err
        else:
            said = refused(capsys, command, *arguments)
        assert "save_merged_model: got true without an adapter, expected a trained adapter. Set use_peft: true" in said
    cli.main(["validate", *recipe(tmp_path, save_merged_model=True, **LORA)])
    with pytest.raises(SystemExit):
        cli.main(["validate", *recipe(tmp_path, save_merged_model=True, load_in_4bit=True, **LORA)])
    assert "save_merged_model: got true with a quantized base" in str(capsys.readouterr())
    assert not (tmp_path / "run").exists()
    model = tiny_llama()
    with pytest.raises(ConfigError, match="PROMPT_TUNING, expected one with weights to merge"):
        model.config._name_or_path = "m"
        check_mergeable(model, PromptTuningConfig(num_virtual_tokens=2))
    model.config.quantization_config = {"load_in_4bit": True}
    model.config._name_or_path = ""
    with pytest.raises(ConfigError) as caught:
        check_mergeable(model, LoraConfig())
    assert ["load_in_4bit" in error or "made in memory" in error for error in caught.value.errors] == [True, True]


def test_a_trainer_merges_and_goes_on(tmp_path: Path, make_base: Any) -> None:
    """As a fork's script calls it: save, then evaluate. A base that is another one on disk is not merged."""
    model = make_base()
    args = BASHConfig(
        str(tmp_path / "out"), save_merged_model=True, max_steps=1, use_cpu=True, bf16=False, report_to="none",
        learning_rate=1e-2,
    )  # fmt: skip
    recipe(tmp_path)
    trainer = BASHTrainer(
        model,
        args,
        train_dataset=Dataset.from_json(str(tmp_path / "train.jsonl")),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )
    trainer.train()
    trainer.save_model()
    assert isinstance(trainer.model, PeftModel) and trainer.model.config.use_cache is False
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert full.keys() == make_base().state_dict().keys()
    assert not (tmp_path / "out/checkpoint-1/model.safetensors").exists()
    trainer.model.get_base_model().get_input_embeddings().weight.data.add_(1)
    with pytest.raises(ConfigError, match="that differ from the trained base"):
        trainer.save_model(str(tmp_path / "other"))
    assert (tmp_path / "other/adapter/adapter_model.safetensors").is_file()
