"""`GapCallback` in trainers that know nothing of it, against what `gapbridge gap` measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, ROOT, sharpen
from datasets import Dataset
from helpers import ENVIRONMENT, accelerate_config, passes_in_processes
from helpers.small_runs import MakeBase
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, PreTrainedModel, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from gapbridge import ConfigError, DataError, GapCallback, build_examples
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.decoding import SamplingParams, generate_completions
from gapbridge.gap.measure import measure_gap
from gapbridge.generation.held_out_completions import CompletionOptions, complete_examples
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 3, "logging_steps": 3, "save_strategy": "no",
    "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "learning_rate": 1e-3, "seed": 7,
}  # fmt: skip
PREFIXES = (1, 4, 16)
NAMES = ("gap/loss_reference_prefix", "gap/loss_generated_prefix", "gap/loss_delta")


def rows(split: str, count: int) -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(1, 2, 3))])


def sft(model: PreTrainedModel, tokenizer: Any, folder: Path, **options: Any) -> SFTTrainer:
    args = SFTConfig(str(folder), **{**COMMON, **options})
    return SFTTrainer(model, args=args, train_dataset=rows("train", 12), processing_class=tokenizer)


def dpo(model: PreTrainedModel, tokenizer: Any, folder: Path, **options: Any) -> DPOTrainer:
    given = rows("train", 13)
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
        for row, other in zip(given, list(given)[1:], strict=False)
    ]
    args = DPOConfig(str(folder), **{**COMMON, **options})
    return DPOTrainer(model, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer)


def grpo(model: PreTrainedModel, tokenizer: Any, folder: Path, **options: Any) -> GRPOTrainer:
    def digits(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return [float(sum(letter.isdigit() for letter in turns[0]["content"])) for turns in completions]

    data = rows("train", 12).remove_columns("completion")
    args = GRPOConfig(str(folder), **{**COMMON, "num_generations": 2, "max_completion_length": 12, **options})
    return GRPOTrainer(model, reward_funcs=digits, args=args, train_dataset=data, processing_class=tokenizer)


def expected(model: PreTrainedModel, tokenizer: Any, folder: Path) -> float:
    """Δ over all k ≥ 1 of `gapbridge gap`."""
    args = SFTConfig(str(folder), **COMMON)
    examples = build_examples(rows("test", 7), tokenizer, stops=stop_tokens(tokenizer, model), max_length=None)
    options = CompletionOptions(max_completion_length=64, temperature=1.0)
    answers = complete_examples(model, tokenizer, examples, args, options, folder / "answers")
    gap = measure_gap(model, tokenizer, list(examples), answers, args, prefix_lengths=PREFIXES)
    return gap.recovery.mean.mean


@pytest.mark.parametrize("make", [sft, dpo, grpo])
def test_it_agrees_with_gapbridge_gap(make: Any, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    plain = make(make_base(), tokenizer, tmp_path)
    plain.train()
    trainer = make(make_base(), tokenizer, tmp_path, gradient_accumulation_steps=1)
    trainer.add_callback(GapCallback(trainer, rows("test", 7), every=2, prefix_lengths=PREFIXES))
    trainer.train()
    found = {entry["step"]: entry for entry in trainer.state.log_history if NAMES[0] in entry}
    assert list(found) == [0, 2, 3]
    before, after = (
        expected(make_base(), tokenizer, tmp_path / "a"),
        expected(trainer.model, tokenizer, tmp_path / "b"),
    )
    assert found[0]["gap/loss_delta"] == pytest.approx(before, rel=1e-4) and abs(before) > 1e-3
    assert found[3]["gap/loss_delta"] == pytest.approx(after, rel=1e-4) and after != pytest.approx(before, rel=1e-2)
    for entry in found.values():
        assert entry["gap/loss_generated_prefix"] - entry["gap/loss_reference_prefix"] == pytest.approx(
            entry["gap/loss_delta"]
        )
        assert set(entry) == {*NAMES, "step", "epoch"}
    # The trainer's own log and weights are those of a run without it.
    own, alone = (
        [{**entry, "step_time": None} for entry in run.state.log_history if "loss" in entry]
        for run in (trainer, plain)
    )
    assert own and own == alone
    weights = plain.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in trainer.model.state_dict().items())


def test_loss_is_the_hand_computed_one(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    model = make_base()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5  # that would show, were it not off while measuring
    trainer = sft(model, tokenizer, tmp_path)
    callback = GapCallback(trainer, rows("test", 3), prefix_lengths=[2], temperature=0)
    model.train()
    found = callback.measure()
    assert all(module.training for module in model.modules())
    model.eval()
    sums, count = torch.zeros(2), 0
    for example in build_examples(rows("test", 3), tokenizer, stops=stop_tokens(tokenizer, model), max_length=None):
        y, own = example.completion_ids, []
        for _ in range(2):
            own.append(int(model(torch.tensor([[*example.prompt, *own]])).logits[0, -1].argmax()))
        for at, answer in enumerate((y, [*own, *y[2:]])):
            logits = model(torch.tensor([[*example.prompt, *answer]])).logits[0, len(example.prompt) - 1 : -1]
            sums[at] += torch.nn.functional.cross_entropy(logits[2:], torch.tensor(y[2:]), reduction="sum").item()
        count += len(y) - 2
    assert found["gap/loss_reference_prefix"] == pytest.approx(sums[0].item() / count, rel=1e-5)
    assert found["gap/loss_generated_prefix"] == pytest.approx(sums[1].item() / count, rel=1e-5)


def test_a_draft_counts_for_the_prefixes_it_reaches(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    model = make_base()
    trainer = sft(model, tokenizer, tmp_path)
    callback = GapCallback(trainer, rows("test", 4), prefix_lengths=[1, 3], temperature=0)
    # Each model stops after one token of its own, so that no draft reaches k = 3.
    first = [
        model(torch.tensor([list(example.generation_prompt_ids)])).logits[0, -1].argmax()
        for example in callback._examples
    ]
    second = [
        int(model(torch.tensor([[*example.generation_prompt_ids, int(own)]])).logits[0, -1].argmax())
        for example, own in zip(callback._examples, first, strict=True)
    ]
    callback._stops = frozenset(second) - {int(own) for own in first}
    completions = callback._completions(callback._examples)
    assert callback._stops and any(len(own) == 1 for own in completions)
    tokens = sum(
        len(example.completion_ids) - k
        for example, own in zip(callback._examples, completions, strict=True)
        for k in (1, 3)
        if len(own) >= k
    )
    assert callback._sums(callback._examples)[2] == tokens


def test_drafts_are_those_of_the_seed(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = sft(make_base(), tokenizer, tmp_path)
    first, second, again = (GapCallback(trainer, rows("test", 6), prefix_lengths=[8], seed=seed) for seed in (1, 2, 1))
    completions = [callback._completions(callback._examples) for callback in (first, second, again)]
    assert completions[0] == completions[2] != completions[1]


def test_ids_that_no_token_has_are_never_drawn(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    model = make_base()
    model.resize_token_embeddings(len(tokenizer) + 8)

    def prefer(module: Any, args: Any, output: Any) -> None:
        output.logits[..., len(tokenizer) :] += 100

    model.register_forward_hook(prefer)
    trainer = sft(model, tokenizer, tmp_path)
    callback = GapCallback(trainer, rows("test", 4), prefix_lengths=[4])
    completions = callback._completions(callback._examples)
    assert any(completions) and all(token < len(tokenizer) for own in completions for token in own)


def test_drafts_answer_the_prompt_that_is_asked(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Where a token spans the border, that is not the prompt of training."""
    model = make_base()
    data = Dataset.from_list([{"id": "a", "prompt": "How man", "completion": "y coins has Ann now"}])
    callback = GapCallback(sft(model, tokenizer, tmp_path), data, prefix_lengths=[3], temperature=0)
    (example,) = callback._examples
    assert example.generation_prompt_ids != example.prompt
    asked, trained = (
        generate_completions(
            model, [prompt], ids=["a"], max_completion_length=3, stop_tokens=sorted(callback._stops),
            options=SamplingParams(temperature=0),
        )[0].tokens
        for prompt in (example.generation_prompt_ids, example.prompt)
    )  # fmt: skip
    assert callback._completions([example]) == [[token for token in asked if token not in callback._stops]]
    assert asked != trained


def test_reporters_see_it(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    class Reporter(TrainerCallback):
        seen: list[float] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            self.seen += [logs["gap/loss_delta"]] if logs and "gap/loss_delta" in logs else []

    trainer = sft(make_base(), tokenizer, tmp_path, max_steps=1)
    trainer.add_callback(Reporter())
    trainer.add_callback(GapCallback(trainer, rows("test", 2), prefix_lengths=[1]))
    trainer.train()
    assert len(Reporter.seen) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "sharded"),
    # A minute on both cores; in every run test_signals.py trains under DDP, and test_distributed.py under ZeRO-3.
    [
        pytest.param(*case, marks=pytest.mark.nightly)
        for case in (("fsdp", 18), ("ddp", 0), ("zero2", 0), ("zero3", 6))
    ],
)
def test_two_processes_measure_and_draw_as_one_does(config: str, sharded: int, tmp_path: Path) -> None:
    """The callback in SFT and DPO, the package's DPO and SPIN, exact scheduled sampling with and without LoRA, on
    wrapped and sharded weights."""
    settings = AutoConfig.from_pretrained(BASE)
    settings.num_hidden_layers, settings.intermediate_size = 2, 1024  # large enough for ZeRO-3 to shard
    torch.manual_seed(0)
    model = tmp_path / "model"
    sharpen(LlamaForCausalLM(settings), 2.0).save_pretrained(model)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(model)
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate_config(config, tmp_path)),
        "--num_processes", "2", "--main_process_port", "0", passes_in_processes.__file__, str(model), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"logged-{rank}.json").read_text()) for rank in range(2))
    alone = passes_in_processes.logged(str(model), tmp_path / "alone", 1)
    wanted = {*NAMES, "loss", "grad_norm", "sampling/sampled_frac", "sampling/replaced_frac"}
    for name, expected in alone.items():
        assert first[name]["sharded"] >= sharded
        assert sum("loss" in entry or NAMES[0] in entry for entry in expected["log"]) == 6
        assert len(first[name]["log"]) == len(expected["log"])
        for entries in zip(expected["log"], first[name]["log"], second[name]["log"], strict=True):
            for key in wanted & set(entries[0]):
                assert [entry[key] for entry in entries[1:]] == pytest.approx([entries[0][key]] * 2, rel=1e-4), key


def test_wrong_options_are_named(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = sft(make_base(), tokenizer, tmp_path)
    with pytest.raises(ConfigError) as error:
        GapCallback(trainer, rows("test", 2), every=0, prefix_lengths=[0, 4], batch_size=0)
    assert all(name in str(error.value) for name in ("every: got 0", "prefix_lengths: got 0", "batch_size: got 0"))
    with pytest.raises(DataError, match="no reference completion of more than 500 tokens"):
        GapCallback(trainer, rows("test", 2), prefix_lengths=[500])
