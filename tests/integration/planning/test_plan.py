"""`gapbridge plan`: memory against what real runs take, steps against those that they do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from conftest import BASE, tiny_llama
from helpers import recipe, refused, write_rows
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import AutoConfig, AutoTokenizer

from gapbridge import cli
from gapbridge.errors import ConfigError
from gapbridge.methods.pause.pause_token import add_pauses
from gapbridge.planning.command import Plan, added_parameters, plan
from gapbridge.planning.fake_step import StepMemory, run_fake_step
from gapbridge.planning.memory import memory
from gapbridge.planning.memory_tracker import MemoryTracker
from gapbridge.planning.workload import count_steps, workload
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import prepare, train
from gapbridge.tasks.word_problems import problems


def model_in(folder: Path, **shape: Any) -> str:
    """A model of its own size with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tiny_llama(len(tokenizer), max_position_embeddings=512, **shape, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def data_in(folder: Path, count: int) -> list[dict[str, Any]]:
    rows = [problem.row() for problem in problems("train", count=count, steps=(1, 2))]
    return [{"path": "json", "data_files": write_rows(folder / "rows.jsonl", rows)}]


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ({}, {"per_device_train_batch_size": 8}),
        ({"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 512},
         {"per_device_train_batch_size": 4, "gradient_checkpointing": True, "gradient_accumulation_steps": 2,
          "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
        ({}, {"per_device_train_batch_size": 8, "packing": True, "max_length": 400}),
        ({}, {"per_device_train_batch_size": 4, "method": "pause", "num_pause_tokens": 50, "max_length": 400}),
    ],
    ids=["small", "larger, checkpointing", "packing", "pauses"],
)  # fmt: skip
def test_peak_memory_within_15_per_cent(shape: dict[str, Any], keys: dict[str, Any], tmp_path: Path) -> None:
    model = model_in(tmp_path / "model", **shape)
    settings: dict[str, Any] = {"gradient_checkpointing": False, **keys}
    line = recipe(
        tmp_path, model_name_or_path=model, datasets=data_in(tmp_path, 24), max_steps=None, num_train_epochs=1,
        **{"method": "sft", **settings},
    )  # fmt: skip
    job = read_job(line)
    predicted = plan(job, workload(job, 1), gpus=1, usable=2**40, on_cpu=True).memories["single"].peak
    with MemoryTracker() as live:
        train(job)
    assert predicted == pytest.approx(live.peak, rel=0.15)


@pytest.mark.parametrize(
    ("method", "prompt_tokens", "shape", "keys"),
    [
        ("bash", 40, {"num_key_value_heads": 8}, {}),
        pytest.param("bash", 40, {"num_key_value_heads": 2}, {}, marks=pytest.mark.nightly),
        pytest.param(
            "bash", 40, {"num_key_value_heads": 2}, {"attn_implementation": "eager"}, marks=pytest.mark.nightly
        ),
        ("bash", 40, {"num_key_value_heads": 2}, {"bf16": True}),
        pytest.param("rac", 40, {"num_key_value_heads": 2}, {}, marks=pytest.mark.nightly),
        ("rac", 400, {"num_key_value_heads": 2}, {}),
        ("rac", 400, {"num_key_value_heads": 8}, {"attn_implementation": "eager"}),
        pytest.param("rac", 40, {"num_key_value_heads": 8}, {"bf16": True}, marks=pytest.mark.nightly),
    ],
    ids=["bash", "shared keys", "eager", "bf16", "rac", "long prompts", "rac, eager", "rac, bf16"],
)
def test_drawing_takes_no_more_than_is_said(
    method: str, prompt_tokens: int, shape: dict[str, int], keys: dict[str, Any], tmp_path: Path
) -> None:
    """What is said is a bound, and not a wild one. BASH feeds its widest windows only where few tokens differ."""
    shape = {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 512, "num_attention_heads": 8, **shape}
    model = model_in(tmp_path / "model", **shape)
    rows = [{"prompt": f"{row} stamps. " * (prompt_tokens // 5), "completion": f" {row} is" * 30} for row in range(32)]
    data = [{"path": "json", "data_files": write_rows(tmp_path / "rows.jsonl", rows)}]
    settings = {"generation_batch_size": 32, "max_completion_length": 40} if method == "rac" else {}
    line = recipe(
        tmp_path, method=method, model_name_or_path=model, datasets=data, max_length=None, **{**settings, **keys}
    )
    job = read_job(line)
    said = plan(job, workload(job, 1), gpus=1, usable=2**40, on_cpu=True).memories["single"].generation
    with MemoryTracker() as live:
        prepare(job)
    assert live.peak <= sum(said.values()) <= (5 if method == "bash" else 3) * live.peak, said


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "sft", "num_train_epochs": 2.5, "gradient_accumulation_steps": 3},
        {"method": "bash", "num_rounds": 2, "num_epochs_per_round": [1, 2]},
        {"method": "rac", "sft_fraction": 0.3, "max_completion_length": 4, "temperature": 0.0},
        {"method": "sft", "max_length": 130, "on_invalid_example": "skip", "dataloader_drop_last": True},
        {"method": "sft", "max_length": 300, "packing": True},
        {"method": "pause", "num_pause_tokens": 60, "max_length": 240, "on_invalid_example": "skip"},
    ],
    ids=["sft", "rounds", "rac", "bad rows", "packing", "pauses"],
)
def test_steps_are_exact(keys: dict[str, Any], tmp_path: Path) -> None:
    line = recipe(
        tmp_path,
        model_name_or_path=model_in(tmp_path / "model"),
        datasets=data_in(tmp_path, 13),
        max_steps=None,
        per_device_train_batch_size=2,
        logging_steps=1,
        **{"num_train_epochs": 1, **keys},
    )
    job = read_job(line)
    counted = workload(job, 1)
    run = train(job)
    done = []
    for number in range(1, len(counted.rounds) + 1):
        lines = [json.loads(text) for text in (run / f"round_{number}" / "metrics.jsonl").read_text().splitlines()]
        done.append(max(entry.get("step", 0) for entry in lines))
    assert [part.steps for part in counted.rounds] == done
    data = json.loads((run / "data.json").read_text())["train"]
    assert counted.exact and counted.examples == data["examples"]


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 64, 1001])
def test_steps_of_several_processes(rows: int, drop_last: bool, gpus: int) -> None:
    """As accelerate shards the batches and transformers counts updates."""
    sampler = BatchSampler(SequentialSampler(range(rows)), 4, drop_last)
    each = {len(BatchSamplerShard(sampler, gpus, index)) for index in range(gpus)}
    job = read_job(["--config", "recipes/tiny/sft/config_full.yaml"])
    job.args.per_device_train_batch_size, job.args.gradient_accumulation_steps = 4, 3
    job.args.dataloader_drop_last, job.args.num_train_epochs = drop_last, 1.5
    updates = max(1, -(-max(each) // 3))
    assert count_steps(job.args, rows, gpus) == -(-3 * updates // 2)


@pytest.mark.parametrize(
    ("name", "rows", "steps"),
    [
        ("pythia-1b-tldr/sft", [116_722], [456]),
        ("pythia-1b-tldr/rac", [233_444], [456]),
        ("mistral-7b-ultrachat/bash", [50_000, 50_000], [98, 196]),
        ("mistral-7b-ultrachat/spin", [50_000, 100_000], [2346, 4689]),
        ("mistral-7b-ultrachat/dpo", [61_135], [478]),
        ("mistral-7b-math/bash", [7_473], [15]),
    ],
)
def test_the_papers_runs(name: str, rows: list[int], steps: list[int]) -> None:
    work = workload(read_job(["--config", f"recipes/{name}/config_full.yaml", "--use_cpu", "true"]), 8)
    assert ([part.rows for part in work.rounds], [part.steps for part in work.rounds]) == (rows, steps)
    assert not work.exact and work.sequences == (2 if name.endswith(("spin", "dpo")) else 1)


def test_a_share_of_the_training_data() -> None:
    line = ["--config", "recipes/mistral-7b-math/sft/config_full.yaml", "--use_cpu", "true"]
    assert workload(read_job([*line, "--max_train_examples", "747"]), 8).examples == 747
    assert workload(read_job(line), 8, rows=1000, row_tokens=200).rounds[0].tokens == 1000 * 200


GIB = 2**30
STEP = StepMemory(10, 1000, 1000, 100, 2000, 2000, 50, 300)  # bf16


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("ddp", {"weights": 2000, "gradients": 4000, "optimizer": 4000, "activations": 2000}),
        ("zero2", {"weights": 2000, "gradients": 6000 / 4 + 2000, "optimizer": 12000 / 4, "activations": 1000}),
        ("zero3", {"weights": 500, "gradients": 6000 / 4 + 2000, "optimizer": 3000, "gathered weights": 2000,
                   "activations": 1000}),
        ("fsdp", {"weights": 1000, "gradients": 1000, "optimizer": 2000, "gathered weights": 2 * (180 + 100),
                  "activations": 1000}),
    ],
)  # fmt: skip
def test_what_is_divided(config: str, parts: dict[str, float]) -> None:
    args = read_job(["--config", "recipes/mistral-7b-math/sft/config_full.yaml", "--use_cpu", "true"]).args
    found = memory(STEP, args, config, 4, reference=False, generation={"weights": 9.0, "cache": 7.0})
    assert found.training == parts and found.generation == {"weights": 9.0, "cache": 7.0}
    copied = memory(STEP, args, config, 4, reference=True, generation={})
    assert copied.training["reference model"] == (500 if config in ("zero3", "fsdp") else 2000)


def test_live_bytes() -> None:
    with MemoryTracker() as live:
        one = torch.zeros(1000)
        view = one[10:]
        two = view + 1
        assert live.now == live.peak == 4000 + two.nbytes
        del two
        assert (live.now, live.peak) == (4000, 4000 + view.nbytes)
        del one
        assert live.now == 4000, "a view holds the storage"
        del view
        assert live.now == 0


def test_checkpointing_and_adapters_take_less() -> None:
    from peft import LoraConfig

    config = AutoConfig.from_pretrained(BASE)
    full = run_fake_step(config, torch.float32, rows=2, length=300, checkpointing=False)
    less = run_fake_step(config, torch.float32, rows=2, length=300, checkpointing=True)
    adapter = LoraConfig(target_modules=["q_proj"])
    few = run_fake_step(config, torch.float32, rows=2, length=300, checkpointing=True, adapter=adapter)
    assert less.activations < full.activations and few.trained < 0.05 * few.parameters
    assert few.gradients == 4 * few.trained and full.gradients == 4 * full.trained == 4 * full.parameters


def test_what_a_method_adds_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    job = read_job(["--config", "recipes/tiny/sft/config_full.yaml"])
    config = AutoConfig.from_pretrained(BASE)
    assert added_parameters(job, config) == 0
    monkeypatch.setattr(
        job.method, "setup_model", lambda model, tokenizer, args: model.add_module("more", torch.nn.Linear(10, 10))
    )
    assert added_parameters(job, config) == 110


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = recipe(tmp_path, max_steps=None, num_train_epochs=1, method="bash", gradient_checkpointing=False)
    found = cli.run(["plan", *line, "--num_devices", "1", "--device_memory_gib", "16", "--device_tflops", "1"])
    said = capsys.readouterr().out
    assert isinstance(found, Plan) and found.best == ("single", 4) and list(found.memories) == ["single"]
    assert "8 examples (counted here); 4 rows a step" in said and ["steps", "2"] in map(str.split, said.splitlines())
    assert "training: 0.00 hours, at 1 TFLOP/s a device" in said and "generation: cache" in said
    assert "use --accelerate_config single --num_processes 1, per_device_train_batch_size 4" in said
    assert found.seconds[0] and found.seconds[1]
    found = cli.run(["plan", *line, "--num_devices", "2", "--device_memory_gib", "0.00001"])
    said = capsys.readouterr().out
    assert found.best is None and "nothing fits 2 × 1e-05 GiB" in said and "ddp" in found.memories


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"datasets": [{"path": "someone/data"}], "max_length": 64}
    line = recipe(tmp_path, **data)
    assert "got an unknown number of rows of someone/data, expected a number. Give --num_train_examples N" in refused(
        capsys, "plan", *line
    )
    assert "--device_memory_gib: got '-1', expected a number above 0" in refused(
        capsys, "plan", *line, "--device_memory_gib", "-1"
    )
    with pytest.raises(ConfigError, match="max_length: got no value"):
        workload(read_job([*recipe(tmp_path, **{**data, "max_length": None}), "--max_length", "null"]), 1)
    unknown = recipe(tmp_path, **data, model_name_or_path="someone/model")
    assert "someone/model: got a configuration that cannot be loaded (" in refused(
        capsys, "plan", *unknown, "--num_train_examples", "9"
    )


def test_completions_of_vllm_take_nothing_here(tmp_path: Path) -> None:
    vllm = {"use_vllm": True, "vllm_mode": "server"}
    job = read_job(recipe(tmp_path, method="rac", model_name_or_path=model_in(tmp_path / "model"), **vllm))
    found = plan(job, workload(job, 1), gpus=1, usable=2**40)
    assert not found.memories["single"].generation and found.memories["single"].training


@pytest.mark.nightly  # a quarter of a minute
def test_a_machine_without_gpus_plans_for_gpus(tmp_path: Path) -> None:
    """Unless the recipe, or the command, is for its CPU: fewer logits are sampled from at a time there."""
    settings = {"method": "bash", "generation_batch_size": 128, "verify_window": 32, "datasets": data_in(tmp_path, 8)}
    _, path = recipe(tmp_path, model_name_or_path=model_in(tmp_path / "model"), use_cpu=None, **settings)
    gpu, cpu = (
        cli.run(["plan", path, "--num_devices", "1", *more]).memories["single"].generation["logits"]
        for more in ([], ["--use_cpu", "true"])
    )
    assert gpu - cpu == 20 * (128 * 32 * 512 - 2**20)


def test_a_recipe_for_a_cpu_is_planned_for_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = recipe(tmp_path, model_name_or_path=model_in(tmp_path / "model"), datasets=data_in(tmp_path, 8))
    found = cli.run(["plan", *line])
    said = capsys.readouterr().out
    assert list(found.memories) == ["single"] and "GiB of this machine" in said and "num_processes" not in said
    lowered = "a smaller generation_batch_size, use_peft: true, a lower max_length (give"
    assert "what lowers the peak: a smaller per_device_train_batch_size" in said and lowered in said
    assert "4 rows a step" in said and "use one process on this machine's CPU, per_device_train_batch_size 4" in said
    assert cli.run(["plan", *line, "--device_memory_gib", "0.0001"]).best is None
    assert "nothing fits this machine's 0.0001 GiB" in capsys.readouterr().out
    _, path = recipe(tmp_path, model_name_or_path=str(tmp_path / "model"), use_cpu=None)
    assert "ddp" in cli.run(["plan", path]).memories, "a machine without GPUs plans for them where nothing is said"


@pytest.mark.parametrize("placement", ["after_prompt", "random"])
def test_pauses_are_counted(placement: str, tmp_path: Path) -> None:
    base = {"model_name_or_path": model_in(tmp_path / "model"), "datasets": data_in(tmp_path, 8), "max_steps": None}
    keys = {"method": "pause", "num_train_epochs": 1, "pause_placement": placement, "max_length": 400}
    plain = workload(read_job(recipe(tmp_path, **base, **keys, num_pause_tokens=0, pause_fraction=0.0)), 1)
    some = {"after_prompt": {"num_pause_tokens": 40}, "random": {"pause_fraction": 0.5}}[placement]
    paused = workload(read_job(recipe(tmp_path, **base, **keys, **some)), 1)
    tokens = paused.rounds[0].tokens - plain.rounds[0].tokens
    if placement == "after_prompt":
        assert tokens == 8 * 40 and paused.longest == plain.longest + 40
        assert paused.longest_prompt == plain.longest_prompt + 40
    else:
        assert tokens == pytest.approx(plain.rounds[0].tokens / 2, rel=0.02)
        assert paused.longest == plain.longest + round(plain.longest / 2)


@pytest.mark.parametrize(
    ("keys", "refused_ones"),
    [
        ({"method": "mtp", "num_future_tokens": 4}, {"zero3", "fsdp"}),
        ({"method": "pause"}, {"zero3"}),
        ({"method": "sft"}, set()),
    ],
)
def test_what_a_method_refuses_is_not_advised(
    keys: dict[str, Any], refused_ones: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = recipe(tmp_path, model_name_or_path=model_in(tmp_path / "model"), datasets=data_in(tmp_path, 4), **keys)
    found = cli.run(["plan", *line, "--num_devices", "8"])
    assert set(found.memories) == {"ddp", "zero2", "zero3", "fsdp"} - refused_ones
    said = capsys.readouterr().out
    left_out = re.findall(rf"left out, because {keys['method']} does not support them: (.+)", said)
    assert [set(names.split(", ")) for names in left_out] == [refused_ones] * bool(refused_ones)


@pytest.mark.parametrize(
    "keys", [{"method": "mtp", "num_future_tokens": 1}, {"method": "pause", "num_pause_tokens": 0}]
)
def test_a_method_that_adds_nothing_refuses_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    job = read_job(recipe(tmp_path, **keys))
    assert job.method.refused_configs(job.args, None) == ()


def test_a_model_that_knows_the_pause_may_be_sharded(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    add_pauses(None, tokenizer, token="<|pause|>", count=3)
    job = read_job(recipe(tmp_path, method="pause"))
    assert job.method.refused_configs(job.args, tokenizer) == ()


def test_many_rows_are_counted_on_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest row is looked at wherever it stands; bad rows that are skipped go by their share."""
    rows = [{"prompt": f"{at} apples\n", "completion": "word " * (5 + at % 7)} for at in range(400)]
    rows[171] = {"prompt": "many\n", "completion": "apple tree " * 25}
    data = [{"path": "json", "data_files": write_rows(tmp_path / "many.jsonl", rows)}]
    keys = {"method": "sft", "datasets": data, "max_steps": None, "num_train_epochs": 2}
    job = read_job(recipe(tmp_path, model_name_or_path=model_in(tmp_path / "model"), **keys))
    exact = workload(job, 1)
    monkeypatch.setattr("gapbridge.planning.workload._PROBED", 60)
    sampled = workload(job, 1)
    assert (exact.sampled, sampled.sampled) == (None, 60)
    assert sampled.examples == exact.examples == 400 and sampled.rounds[0].steps == exact.rounds[0].steps
    assert sampled.longest == exact.longest and sampled.longest_prompt >= exact.longest_prompt - 2
    assert sampled.rounds[0].tokens == pytest.approx(exact.rounds[0].tokens, rel=0.05)


def test_the_time_of_heads_counts_the_unembedding_they_share(tmp_path: Path) -> None:
    model = model_in(tmp_path / "model")
    keys = {"method": "mtp", "num_future_tokens": 3, "gradient_checkpointing": False}
    job = read_job(recipe(tmp_path, model_name_or_path=model, datasets=data_in(tmp_path, 4), **keys))
    found = plan(job, workload(job, 1), gpus=1, usable=2**40, tflops=1.0)
    assert found.seconds[0]
    tokens = sum(part.tokens for part in found.work.rounds)
    seconds = found.seconds[0] * 1e12 / (2 * 3 * tokens)  # the parameters that a token meets
    assert seconds == pytest.approx(found.step.parameters + 2 * 32 * 512)
