"""What a trainer tells of its contexts: its logs, its warnings, the model's card; and what a push uploads."""

from __future__ import annotations

import json
import logging
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE, ROOT
from datasets import Dataset
from helpers import recipe
from helpers.small_runs import SMALL_RUN, MakeBase
from huggingface_hub import CommitInfo, HfApi, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedModel, trainer_utils

import gapbridge
from gapbridge import BASHConfig, BASHTrainer, RACConfig, RACTrainer, cli
from gapbridge.tasks.word_problems import problems
from gapbridge.training.metrics import read_metrics


COMMON: dict[str, Any] = {**SMALL_RUN, "max_length": 256, "max_steps": 2, "logging_steps": 1}


def rows(count: int = 8, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(2,))])


def bash(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> BASHTrainer:
    held_out = options.pop("eval_dataset", None)
    args = BASHConfig(str(folder), **{**COMMON, **options})
    return BASHTrainer(model, args=args, train_dataset=rows(), eval_dataset=held_out, processing_class=tokenizer)


def said_by_us(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("gapbridge")]


def at_start(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in history if any(key.startswith("contexts/") for key in entry)]


def test_the_logs_begin_with_what_was_drawn(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    options = {"mixture_coefficient": 0.9, "temperature": 2.0, "save_strategy": "steps", "save_steps": 1}
    trainer = bash(tmp_path, make_base(), tokenizer, eval_dataset=rows(4, "test"), **options)
    trainer.train()
    first, second, *_ = trainer.state.log_history
    stats = trainer.stats
    assert first["step"] == 0 and first["contexts/num_completion_tokens"] == stats.tokens
    assert first["contexts/sampled_frac"] == stats.sampled / stats.tokens > 0.8
    assert first["contexts/replaced_frac"] == stats.replaced / stats.tokens > 0
    assert second["step"] == 0 and "eval_generated_loss" in second, "held-out data are evaluated before the first step"
    resumed = bash(tmp_path, make_base(), tokenizer, eval_dataset=rows(4, "test"), **{**options, "max_steps": 3})
    resumed.train(resume_from_checkpoint=True)
    assert at_start(resumed.state.log_history) == [first], "once, also after a resume"
    quiet = bash(tmp_path / "quiet", make_base(), tokenizer, eval_dataset=rows(4, "test"), eval_on_start=False)
    quiet.train()
    assert not any("eval_loss" in entry for entry in quiet.state.log_history)


def test_few_replaced_tokens_and_found_contexts_are_warned_of(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "gapbridge"):
        bash(tmp_path / "much", make_base(), tokenizer, mixture_coefficient=0.5).prepare_dataset()
        bash(tmp_path / "none", make_base(), tokenizer, mixture_coefficient=0.0).prepare_dataset()
        assert said_by_us(caplog) == []
        bash(tmp_path / "few", make_base(), tokenizer, mixture_coefficient=1e-4).prepare_dataset()
        (said,) = said_by_us(caplog)
        assert re.match(r"round 1: only 0(\.0\d*)? % of the answer tokens are replaced.* mixture_coefficient", said)
        caplog.clear()
        bash(tmp_path / "much", make_base(), tokenizer, mixture_coefficient=0.5).prepare_dataset()
    store = tmp_path / "much" / "_contexts"
    assert said_by_us(caplog) == [f"{store}: reused all 8 contexts"]


def test_drafts_that_are_cut_are_warned_of(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = RACConfig(str(tmp_path), max_completion_length=5, **COMMON)
    with caplog.at_level(logging.WARNING, "gapbridge"):
        trainer = RACTrainer(make_base(), args=args, train_dataset=rows(), processing_class=tokenizer)
        trainer.prepare_dataset()
    assert said_by_us(caplog) == [
        "round 1: 8 of 8 completions (100 %) were truncated at max_completion_length (5 tokens): raise it"
    ]
    trainer.train()
    wanted = {"completions/count": 8, "completions/truncated_frac": 1.0, "contexts/num_sft_rows": 8}
    assert wanted.items() <= trainer.state.log_history[0].items()


def test_the_card_of_a_run(tmp_path: Path) -> None:
    data = {"eval_datasets": [{"path": "json", "data_files": str(tmp_path / "train.jsonl")}], "eval_strategy": "epoch"}
    cli.main(["bash", *recipe(tmp_path, **data, max_steps=2, mixture_coefficient=0.37, num_rounds=2)])
    run = tmp_path / "run"
    card = (run / "README.md").read_text()
    entries = read_metrics(run / "round_2")
    losses = [[entry[key] for entry in entries if key in entry] for key in ("eval_loss", "eval_generated_loss")]
    assert len(at_start(entries)) == 1
    for text in (
        "# Model Card for run", "trained with BASH", "| `mixture_coefficient` | `0.37` | β: probability",
        "8 examples of ", "2 rounds of generation and training. In the last round: ",
        "% of the answer tokens sampled", f"- Gapbridge: {version('gapbridge')}", "cen2025bridging", "2410.14655",
        f"| generated contexts (`eval_generated_loss`) | {losses[1][0]:.4f} | {losses[1][-1]:.4f} |",
        f"| reference contexts (`eval_loss`) | {losses[0][0]:.4f} | {losses[0][-1]:.4f} |",
        'model="run"', "fine-tuned version of `round_1/model`",
    ):  # fmt: skip
        assert text in card, text
    assert "None" not in card and str(tmp_path) not in card.replace(str(tmp_path / "train.jsonl"), "")
    assert "vllm" not in card and "chat_template`" not in card


def test_the_card_of_sft_names_no_paper(tmp_path: Path) -> None:
    cli.main(["sft", *recipe(tmp_path, method="sft", model_name_or_path=str(BASE))])
    card = (tmp_path / "run" / "README.md").read_text()
    assert "trained with SFT" in card and "`learning_rate`" in card and "8 examples of " in card
    assert (
        "LoRA" not in card
        and "Decoding" not in card
        and "cen2025" not in card
        and "Held-out" not in card
        and "round" not in card
        and "None" not in card
    )


@pytest.mark.parametrize("merged", [True, False])
def test_the_card_of_an_adapter(merged: bool, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    args = RACConfig(str(tmp_path / "lora"), max_completion_length=5, save_merged_model=merged, **COMMON)
    lora = LoraConfig(r=3, lora_alpha=6, lora_dropout=0.0, target_modules=["q_proj", "down_proj"])
    data = rows(2)
    RACTrainer(
        make_base(), args=args, train_dataset=data, processing_class=tokenizer, peft_config=lora
    ).create_model_card()
    card = (tmp_path / "lora" / "README.md").read_text()
    trained = "A LoRA adapter was trained and is merged into the weights" if merged else "A LoRA adapter was trained"
    assert f"{trained}: rank 3, alpha 6, dropout 0.0, modules down_proj, q_proj." in card
    assert "gapbridge generate RECIPE.yaml --model lora --decoding_mode self_correct\n" in card


class Hub:
    """Stands where a hub is: takes the folders that transformers and this package upload."""

    def __init__(self) -> None:
        self.uploads: list[set[str]] = []

    def create_repo(self, repo_id: str, **options: Any) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/someone/{repo_id.split('/')[-1]}")

    def upload_folder(self, *, folder_path: str | Path, **options: Any) -> Any:
        folder = Path(folder_path)
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        remaining = filter_repo_objects(files, ignore_patterns=options.get("ignore_patterns"))
        self.uploads.append(set(remaining))
        info = CommitInfo(
            commit_url="https://huggingface.co/someone/x/commit/0", commit_message="", commit_description="", oid="0"
        )
        return _Done(info) if options.get("run_as_future") else info


class _Done:
    def __init__(self, info: CommitInfo) -> None:
        self._info = info

    def done(self) -> bool:
        return True

    def result(self) -> CommitInfo:
        return self._info


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: hub.create_repo(repo_id, **options))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **options: hub.upload_folder(**options))
    return hub


@pytest.mark.parametrize("strategy", list(trainer_utils.HubStrategy), ids=lambda strategy: strategy.value)
def test_a_trainer_pushes_no_contexts(
    strategy: trainer_utils.HubStrategy, hub: Hub, make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = bash(
        tmp_path / "out", make_base(), tokenizer, eval_dataset=rows(4, "test"), push_to_hub=True,
        hub_strategy=strategy.value, hub_always_push=True, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    trainer.train()
    trainer.push_to_hub()
    sampled = {path.name for path in (tmp_path / "out").rglob("shard-*")}
    assert sampled and (tmp_path / "out" / "_eval_contexts" / "manifest.json").exists()
    uploaded = set().union(*hub.uploads)
    assert len(hub.uploads) >= (1 if strategy == trainer_utils.HubStrategy.END else 3)
    assert {"model.safetensors", "README.md"} <= uploaded
    assert [name for name in uploaded if "contexts" in name or "shard-" in name or "manifest" in name] == []


def test_a_run_pushes_its_model_alone(hub: Hub, tmp_path: Path) -> None:
    cli.main(["bash", *recipe(tmp_path, push_to_hub=True, hub_strategy="every_save", save_strategy="steps",
              save_steps=1)])  # fmt: skip
    (uploaded,) = hub.uploads
    model = tmp_path / "run" / "round_1" / "model"
    assert uploaded == {path.name for path in model.iterdir()} and "model.safetensors" in uploaded
    assert list((tmp_path / "run").rglob("shard-*"))


def test_rounds_in_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet of docs/methods/bash.md, as it stands there."""
    text = (ROOT / "docs" / "methods" / "bash.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "run_rounds" in block]
    small = {**COMMON, "max_steps": 1, "num_rounds": 2, "mixture_coefficient": 0.5}
    monkeypatch.setattr(
        gapbridge, "BASHConfig", lambda output_dir, **_: BASHConfig(output_dir, **small), raising=False
    )
    monkeypatch.chdir(tmp_path)
    code = code.replace('"my-sft-model"', repr(str(BASE)))
    exec(code, {"dataset": rows(), "held_out": rows(4, "test")})
    manifests = [
        json.loads((tmp_path / "out" / f"round_{k}" / "_contexts" / "manifest.json").read_text()) for k in (1, 2)
    ]
    assert [manifest["identity"]["round_index"] for manifest in manifests] == [1, 2]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
