"""What the libraries and this package refuse is refused before a model is run and before a file is written: by the
command, by `validate` and by the trainer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from datasets import Dataset
from helpers import recipe, refused, write_rows
from peft import LoraConfig, get_peft_model
from test_bad_input import snapshot
from transformers import AutoTokenizer, GenerationConfig, LlamaModel, PreTrainedModel, TrainingArguments

from gapbridge import BASHConfig, BASHTrainer, ConfigError, cli
from gapbridge.errors import GapbridgeError
from gapbridge.training.loading import require_local


# Options of TRL's and transformers' configurations, and words of the refusal.
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "all of a conversation and one turn": (
        {"assistant_only_loss": False, "train_on_assistant_turns": "last"}, "assistant_only_loss: got false",
    ),
    "no preparation": ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "skip_prepare_dataset: got true"),
    "unknown preparation": ({"dataset_kwargs": {"no_such_key": False}}, "no_such_key: got a key that TRL"),
    "cut prompts": ({"truncation_mode": "keep_end"}, "truncation_mode: got 'keep_end'"),
    "padding-free": ({"padding_free": True}, "padding_free: got true with max_length 256"),
    "offloading to itself": ({"activation_offloading": True}, "got true on the CPU"),
    "missing kernels": ({"use_liger_kernel": True}, "without the package liger-kernel"),
    "kernels of the head": (
        {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True}}, "is not supported",
    ),
    "missing tracker": ({"report_to": "comet_ml"}, "comet"),
    "unknown tracker": ({"report_to": "nobody"}, "nobody is not supported"),
    "bf16 without accelerator": ({"use_cpu": False, "bf16": True}, "doesn't support bf16/gpu"),
    "FSDP in one process": ({"fsdp": "full_shard"}, "fsdp only works in distributed training"),
    "no mixture of experts": ({"router_aux_loss_coef": 0.1}, "is not a Mixture-of-Experts model"),
    "missing optimizer": ({"optim": "adamw_8bit"}, "optim: "),
    "unknown argument of the optimizer": ({"optim": "stable_adamw"}, "optim: "),
    "negative rate": ({"learning_rate": -1.0}, "optim: Invalid learning rate"),
    "schedule without its argument": ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_kwargs: "),
    "unknown argument of the schedule": ({"lr_scheduler_kwargs": {"foo": 1}}, "lr_scheduler_kwargs: "),
    "workers that are not there": ({"dataloader_persistent_workers": True}, "dataloader: persistent_workers"),
    "prefetching without workers": ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor"),
    "empty batches": ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: got 0, expected at least 1"),
    "no steps": ({"max_steps": 0}, "max_steps: got 0"),
    "no epochs": ({"max_steps": -1, "num_train_epochs": 0}, "num_train_epochs: got 0"),
    "best model without evaluation": (
        {"load_best_model_at_end": True, "save_strategy": "epoch"}, "requires the save and eval strategy to match",
    ),
    "best model of an unknown metric": ({"metric_for_best_model": "accuracy"}, "got 'accuracy'"),
    "two ways of saving": ({"enable_jit_checkpoint": True}, "enable_jit_checkpoint"),
    "selective without checkpointing": (
        {"gradient_checkpointing": False, "gradient_checkpointing_kwargs": {"selective": True}}, "selective",
    ),
}  # fmt: skip
ADAPTER = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["lm_head"]}
CASES = pytest.mark.parametrize(("options", "words"), OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of all forward passes, of training and of drawing."""
    seen: list[int] = []
    forward = LlamaModel.forward

    def counted(self: LlamaModel, *args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    return seen


def untouched(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says; it leaves the folder as it was."""
    before = snapshot(folder)
    said = refused(capsys, *arguments)
    assert snapshot(folder) == before
    return said


@CASES
def test_command_and_validate(
    options: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], passes: list[int]
) -> None:
    arguments = recipe(tmp_path, **options)
    for command in ("bash", "prepare", "validate"):
        use_cpu = [] if command != "validate" or "use_cpu" not in options else ["--use_cpu", "false"]
        assert words in untouched(tmp_path, capsys, command, *arguments, *use_cpu), command
    assert not passes


@CASES
def test_trainer(
    options: dict[str, Any], words: str, tmp_path: Path, passes: list[int], make_base: Callable[[], PreTrainedModel],
    tokenizer: Any,
) -> None:  # fmt: skip
    settings = {"use_cpu": True, "bf16": False, "max_length": 256, "max_steps": 1, "report_to": "none", **options}
    with pytest.raises(GapbridgeError) as caught:
        args = BASHConfig(str(tmp_path / "run"), **settings)
        BASHTrainer(make_base(), args, train_dataset=rows(), processing_class=tokenizer)
    assert words in str(caught.value)
    assert not passes and not list(tmp_path.iterdir())


def rows(count: int = 4) -> Dataset:
    return Dataset.from_list([{"prompt": f"{number} apples\n", "completion": "two"} for number in range(count)])


@pytest.mark.parametrize("method", ["sft", "rac"])
def test_other_methods(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], passes: list[int]) -> None:
    for options, words in (OPTIONS["missing tracker"], (ADAPTER, "adapter to `lm_head` is not supported")):
        arguments = recipe(tmp_path, method=method, **options)
        for command in (method, "validate"):
            assert words in untouched(tmp_path, capsys, command, *arguments), command
    assert not passes


def test_a_refused_recipe_is_mended_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], passes: list[int]
) -> None:
    refused(capsys, "prepare", *recipe(tmp_path, truncation_mode="keep_end"))
    refused(capsys, "prepare", *recipe(tmp_path, report_to="comet_ml", seed=1))
    assert not passes
    (tmp_path / "run" / "round_1").mkdir(parents=True)  # as a process leaves it that is killed while it checks
    cli.main(["prepare", *recipe(tmp_path, seed=2)])
    assert passes and (tmp_path / "run" / "run.json").exists()


def test_a_trainer_refused_late_removes_the_directory_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_base: Callable[[], PreTrainedModel], tokenizer: Any,
    passes: list[int],
) -> None:  # fmt: skip
    """TRL refuses several GPUs when transformers has made `output_dir` already."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    (tmp_path / "kept").mkdir()
    for place in ("kept/run", "new/run"):
        args = BASHConfig(str(tmp_path / place), use_cpu=True, bf16=False, report_to="none")
        with pytest.raises(ConfigError, match="several GPUs are visible"):
            BASHTrainer(make_base(), args, train_dataset=rows(), processing_class=tokenizer)
    assert snapshot(tmp_path) == {"kept": None} and not passes


def test_options_of_a_run_that_would_do_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "do_train": False, "do_predict": True, "resume_from_checkpoint": "last", "hub_strategy": "all_checkpoints"
    }  # fmt: skip
    for command in ("bash", "validate"):
        said = refused(capsys, command, *recipe(tmp_path, **options))
        assert all(f"{key}: " in said for key in options)


def test_an_unknown_key_of_held_out_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "bash", *recipe(tmp_path, eval_datasets=[{"path": "json", "file": "x"}]))
    assert "eval_datasets: " in said and "'file'" in said


@pytest.mark.parametrize("path", ["outputs/none", "./none", "../none/x", "~/none", "/none/x", "a/b/c", "recipes/none"])
def test_local_paths_are_not_asked_of_a_hub(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    arguments = recipe(tmp_path, model_name_or_path=path)
    for command in ("bash", "validate"):
        said = untouched(tmp_path, capsys, command, *arguments)
        assert f"{path}: got no such directory (looked from " in said, command


@pytest.mark.parametrize("path", ["gpt2", "openai-community/gpt2", "google/gemma-2-2b-it"])
def test_names_of_a_hub_are_left_to_it(path: str) -> None:
    require_local(path, "model")


def with_end_of_turn(folder: Path) -> Path:
    """The base model with a template whose turns end with a token that only the generation configuration names."""
    shutil.copytree(BASE, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config = GenerationConfig(eos_token_id=[1, tokenizer.convert_tokens_to_ids("<end>")])
    model.save_pretrained(folder)
    return folder


def test_validate_reads_the_generation_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = with_end_of_turn(tmp_path / "model")
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    data = write_rows(tmp_path / "turns.jsonl", [{"messages": turns}])
    changes = {"model_name_or_path": str(model), "datasets": [{"path": "json", "data_files": data}]}
    cli.main(["validate", *recipe(tmp_path, **changes)])
    assert "the first 1 rows" in capsys.readouterr().out
    (model / "generation_config.json").unlink()
    assert "no EOS" in refused(capsys, "validate", *recipe(tmp_path, **changes))


def test_validate_checks_what_rac_puts_between_draft_and_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    """A template that drops earlier answers cannot carry a draft."""
    dropping = (
        "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}{{ m['role'] }}:{{ m['content'] }}"
        "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    arguments = recipe(tmp_path, method="rac", chat_template=dropping)
    for command in ("rac", "validate", "preview"):
        said = untouched(tmp_path, capsys, command, *arguments)
        assert "template" in said and "as it was sampled" in said, said
    assert not passes


def test_validate_draws_nothing_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], passes: list[int]
) -> None:
    arguments = recipe(tmp_path, use_peft=True, lora_r=2, eval_on_start=True)
    before = snapshot(tmp_path)
    cli.main(["validate", *arguments])
    assert "not checked" not in capsys.readouterr().out and not passes
    assert snapshot(tmp_path) == before


def test_validate_starts_from_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_base: Callable[[], PreTrainedModel], tokenizer: Any,
    passes: list[int],
) -> None:  # fmt: skip
    adapter = tmp_path / "adapter"
    get_peft_model(make_base(), LoraConfig(r=2, base_model_name_or_path=str(BASE))).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    cli.main(["validate", *recipe(tmp_path, method="rac", model_name_or_path=str(adapter))])
    assert "not checked" not in capsys.readouterr().out
    vllm = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": "http://localhost:1"}
    arguments = recipe(tmp_path, method="rac", model_name_or_path=str(adapter), **vllm)
    for command in ("rac", "validate"):
        assert "a round that starts from an adapter" in untouched(tmp_path, capsys, command, *arguments)
    assert not passes


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], passes: list[int]) -> None:
    vllm = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": "http://localhost:1"}
    arguments = recipe(tmp_path, method="rac", **vllm, vllm_server_timeout=0)
    assert "http://localhost:1: got no vLLM server" in untouched(tmp_path, capsys, "rac", *arguments)
    assert not passes
