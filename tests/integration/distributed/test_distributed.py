"""Two processes on a CPU, under every configuration of `accelerate_configs`: the same run as one process makes.

Only what a machine without GPUs asks for is overridden: `--num_processes 2`, `--use_cpu true` (in the recipes) and no
mixed precision; `helpers/on_cpu.py` says what is bridged.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import BASE, ROOT
from helpers import ENVIRONMENT, accelerate_config, contents, forked, gapbridge, on_cpu
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


pytestmark = pytest.mark.slow

STEPS, SHARDS = 4, 6
LORA = ["--use_peft", "true", "--lora_r", "4", "--lora_dropout", "0", "--lora_target_modules", "q_proj", "v_proj"]
ROUNDS = {
    "sft": ["sft/round_1"],
    "bash": ["bash/round_1", "bash/round_2"],
    "rac": ["rac/round_1"],
    "lora": ["lora/round_1"],
}
TYPES = {"ddp": "MULTI_CPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model for the embedded tokenizer, with layers large enough for ZeRO-3 to shard."""
    folder = tmp_path_factory.mktemp("model")
    config = AutoConfig.from_pretrained(BASE)
    config.num_hidden_layers, config.intermediate_size = 2, 1024
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def job(name: str, model: Path, folder: Path, processes: int, *options: str, **settings: Any) -> dict[str, Any]:
    """A tiny run of a method: 48 examples with answers of 20 to 200 tokens, 8 rows a step whatever the processes."""
    method = "bash" if name == "lora" else name
    arguments = [
        method, "--config", f"recipes/tiny/{method}/config_full.yaml", "--model_name_or_path", str(model),
        "--output_dir", str(folder / name), "--max_train_examples", "48", "--max_eval_examples", "8",
        "--per_device_train_batch_size", str(8 // processes), "--max_steps", str(STEPS), "--save_steps", "2",
        "--logging_steps", "1",
    ]  # fmt: skip
    if method != "sft":
        arguments += ["--generation_shard_size", "8"]
    if name == "lora" and processes > 1:
        arguments += ["--gradient_accumulation_steps", "2", "--per_device_train_batch_size", str(4 // processes)]
    arguments += {"bash": ["--num_rounds", "2"], "rac": ["--max_completion_length", "40"], "lora": LORA}.get(name, [])
    return {"arguments": [*arguments, *options], **settings}


def launch(name: str, jobs: list[dict[str, Any]], folder: Path, processes: int) -> list[str]:
    """Run jobs under a configuration; their outcomes, which are the same in every process."""
    config, log = accelerate_config(name, folder), folder / "log.txt"
    (folder / "jobs.json").write_text(json.dumps(jobs))
    forked.launch(config, processes, on_cpu.main, folder / "jobs.json", log)
    files = [folder / f"jobs.json.{rank}" for rank in range(processes)]
    outcomes = [json.loads(file.read_text()) if file.exists() else [] for file in files]
    assert all(len(entries) == len(jobs) for entries in outcomes), log.read_text()[-4000:]
    assert all(entries == outcomes[0] for entries in outcomes)
    return list(outcomes[0])


def kill_when(condition: Callable[[], bool], name: str, jobs: list[dict[str, Any]], folder: Path) -> None:
    """Start jobs in two processes and SIGKILL these and their launcher as soon as `condition` holds."""
    config = accelerate_config(name, folder)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2",
        "--main_process_port", "0", on_cpu.__file__, str(folder / "jobs.json"),
    ]  # fmt: skip
    launcher = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 180
    try:
        while not condition():
            assert launcher.poll() is None and time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.002)
    finally:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            process.kill()
        launcher.kill()
        launcher.wait()


@pytest.fixture(scope="module")
def one_process(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert launch("single", [job(name, model, folder, 1) for name in ROUNDS], folder, 1) == ["done"] * len(ROUNDS)
    return folder


def metrics(folder: Path, key: str) -> list[float]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry[key] for entry in entries if key in entry]


# ZeRO-3 divides what ZeRO-2 divides, in the same engine, and the weights as well. DDP in two processes is that of
# tests/reliability/test_signals.py in every run; FSDP is left to the nightly run, a minute on both cores.
@pytest.mark.parametrize(
    "config", ["zero3", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("ddp", "zero2", "fsdp"))]
)
def test_every_configuration_makes_the_same_run(config: str, model: Path, one_process: Path, tmp_path: Path) -> None:
    """SFT, two rounds of BASH, RAC and LoRA: contexts byte for byte, losses and gradients, resume, the whole model."""
    resumed = "bash/round_2"
    jobs = [job(name, model, tmp_path, 2) for name in ROUNDS]
    rewind = {"arguments": ["rewind", str(tmp_path / "bash"), str(tmp_path / resumed / "checkpoint-2")]}
    jobs += [rewind, job("bash", model, tmp_path, 2)]
    assert launch(config, jobs, tmp_path, 2) == ["done"] * len(jobs)

    for name, rounds in ROUNDS.items():
        for folder in rounds:
            here, there = tmp_path / folder, one_process / folder
            for rank in range(2):
                record = json.loads((here / f"train-{rank}.json").read_text())
                assert record["distributed_type"] == TYPES[config] and record["world_size"] == 2
                assert record["resumed_at"] == (2 if folder == resumed else 0)
                expected = {"fsdp": record["parameters"], "zero3": 6}.get(config, 0)
                assert record["sharded"] == expected
            losses = metrics(there, "loss")
            assert len(losses) == STEPS and metrics(here, "loss")[:STEPS] == pytest.approx(losses, rel=1e-5)
            assert metrics(here, "grad_norm")[:STEPS] == pytest.approx(metrics(there, "grad_norm"), rel=1e-4)
            assert metrics(here, "eval_loss")[-1] == pytest.approx(metrics(there, "eval_loss")[-1], rel=1e-4)
            if folder.endswith("round_1") and name != "sft":
                for contexts in ("_contexts", "_eval_contexts"):
                    assert contents(here / contexts, "shard-*") == contents(there / contexts, "shard-*") != {}
            assert not list(here.glob("*/.heartbeat-*"))
        check_whole(tmp_path / name, one_process / name, model, adapter=name == "lora")

    first, again = tmp_path / "bash-first-model", tmp_path / resumed / "model"
    assert contents(again, "*.safetensors") == contents(first, "*.safetensors") != {}


@pytest.mark.nightly
@pytest.mark.parametrize("config", ["ddp", "fsdp", "zero2", "zero3"])
def test_rows_that_fill_up_a_batch_do_not_count(config: str, model: Path, tmp_path: Path) -> None:
    """Seven held-out rows in batches of two, four in each process at a time: one row is evaluated twice."""
    found = []
    for name, processes in (("single", 1), (config, 2)):
        (tmp_path / name).mkdir()
        options = ("--max_eval_examples", "7", "--per_device_eval_batch_size", "2", "--max_train_examples", "16")
        jobs = [job("sft", model, tmp_path / name, processes, *options)]
        assert launch(name, jobs, tmp_path / name, processes) == ["done"]
        found.append(metrics(tmp_path / name / "sft" / "round_1", "eval_loss"))
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0]


def check_whole(run: Path, reference: Path, start: Path, *, adapter: bool) -> None:
    """A published model loads by `from_pretrained`, has every weight, and is the one of the run in one process."""
    if adapter:
        ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (run, reference))
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), str(run))
        assert any("lora" in name for name, _ in loaded.named_parameters())
    else:
        ours, theirs = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (run, reference))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3)


def test_a_launch_that_was_misunderstood_is_refused(model: Path, tmp_path: Path) -> None:
    """Each of these would exit 0 with copies that were trained apart, with the whole model in every process, or with
    no weights."""
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    zero3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    saves = {"ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}
    efficient = {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    cases: list[tuple[str, Path, list[str], dict[str, str], str]] = [
        ("sft", model, ["--use_cpu", "false"], {}, "got 2 started by the launcher, of which this one"),
        ("bash", model, ["--use_cpu", "false", "--ddp_backend", "gloo"], {}, "--use_cpu true"),
        ("sft", model, [], fsdp, "FSDP: got MULTI_CPU in the trainer"),
        ("bash", model, [], {**fsdp, **efficient}, "fsdp_cpu_ram_efficient_loading: got true"),
        ("sft", model, [], {**zero3, "ACCELERATE_USE_CPU": "true"}, "DeepSpeed: got"),
        ("sft", model, [], zero3, "Set zero3_save_16bit_model: true"),
        ("bash", BASE, [], {**zero3, **saves}, "ZeRO-3: got no sharded parameter"),
    ]
    jobs = [
        job(method, start, tmp_path / str(at), 2, *options, environment=variables, fsdp_on_cpu=False)
        for at, (method, start, options, variables, _) in enumerate(cases)
    ]
    outcomes = launch("ddp", jobs, tmp_path, 2)
    for at, ((method, _, _, _, words), outcome) in enumerate(zip(cases, outcomes, strict=True)):
        assert outcome.startswith("RunError") and words in outcome, (at, outcome)
        assert not list((tmp_path / str(at)).rglob("checkpoint-*")) and not list((tmp_path / str(at)).rglob("model"))
        if method == "sft" or at == 1:  # before anything was made: these two processes could not wait for each other
            assert not list((tmp_path / str(at) / method).glob("*"))


class Ranks:
    """Two processes that no launcher watches over, so that one can die alone."""

    def __init__(self, jobs: list[dict[str, Any]], folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jobs.json").write_text(json.dumps(jobs))
        self.logs = [folder / f"log-{rank}.txt" for rank in range(2)]
        self.processes = forked.start_ranks(on_cpu.main, folder / "jobs.json", self.logs, environment)
        self.outcomes = [folder / f"jobs.json.{rank}" for rank in range(2)]

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            for process, log in zip(self.processes, self.logs, strict=True):
                assert process.is_alive(), log.read_text()[-3000:]
            assert time.monotonic() < deadline, [log.read_text()[-1500:] for log in self.logs]
            time.sleep(0.002)

    def signal(self, rank: int, number: int) -> None:
        process = self.processes[rank]
        assert process.pid is not None
        os.kill(process.pid, number)

    def outcome(self, rank: int, timeout: float) -> str:
        self.processes[rank].join(timeout)
        assert self.outcomes[rank].exists(), self.logs[rank].read_text()[-3000:]
        return str(json.loads(self.outcomes[rank].read_text())[-1])


def is_generating(rank: int, contexts: Path, left: str = "") -> bool:
    """Whether the process has begun and, of equal shares, cannot be done; `left`: the mark of an earlier start."""
    mark = contexts / f".heartbeat-{rank}"
    return mark.exists() and mark.read_text() != left and len(list(contexts.glob("shard-*"))) < SHARDS / 2


@pytest.mark.nightly  # a minute; tests/reliability/test_peers.py has the parts
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.nightly)])
def test_a_process_that_dies_stops_the_other(victim: int, model: Path, one_process: Path, tmp_path: Path) -> None:
    """Killed while generating: the other process stops with a message; started again, the run is as if undisturbed."""
    contexts = tmp_path / "bash" / "round_1" / "_contexts"
    run = job("bash", model, tmp_path, 2, "--ddp_timeout", "12", "--generation_batch_size", "1")
    with Ranks([run], tmp_path / "killed") as ranks:
        ranks.wait_for(lambda: bool(list(contexts.glob("shard-*"))) and is_generating(victim, contexts))
        ranks.signal(victim, signal.SIGKILL)
        message = ranks.outcome(1 - victim, timeout=60)
    assert message.startswith(f"RunError: process {victim}: got no sign of life"), message
    assert "Start the run again to continue" in message
    made = contents(contexts, "shard-*")
    assert 0 < len(made) < SHARDS and not (contexts / "manifest.json").exists()
    # Left over, and no hindrance to the next start.
    left = (contexts / f".heartbeat-{victim}").read_text()
    for path in sorted(contexts.glob("shard-*"))[1:]:  # as if killed earlier: there is work for both again
        path.unlink()

    # One process stands still for longer than a collective may wait. None is open, so the other waits on files.
    run["arguments"][-3] = "60"
    with Ranks([run], tmp_path / "again", GROUP_TIMEOUT="10") as ranks:
        ranks.wait_for(lambda: is_generating(victim, contexts, left))
        ranks.signal(victim, signal.SIGSTOP)
        time.sleep(14)
        assert not (contexts / "manifest.json").exists()
        ranks.signal(victim, signal.SIGCONT)
        assert [ranks.outcome(rank, timeout=120) for rank in range(2)] == ["done", "done"]
    undisturbed = one_process / "bash" / "round_1" / "_contexts"
    assert made.items() <= contents(contexts, "shard-*").items()
    for pattern in ("shard-*", "manifest.json"):
        assert contents(contexts, pattern) == contents(undisturbed, pattern) != {}
    assert metrics(contexts.parent, "loss") == pytest.approx(metrics(undisturbed.parent, "loss"), rel=1e-5)


def test_the_command_line_launches_processes(model: Path, one_process: Path, tmp_path: Path) -> None:
    arguments = job("sft", model, tmp_path, 2)["arguments"]
    options = [
        "--accelerate_config",
        str(accelerate_config("ddp", tmp_path)),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    gapbridge(*arguments, *options)
    assert metrics(tmp_path / "sft/round_1", "loss") == pytest.approx(
        metrics(one_process / "sft/round_1", "loss"), rel=1e-5
    )


@pytest.mark.nightly
@pytest.mark.parametrize("config", ["ddp", "fsdp", "zero2", "zero3"])
@pytest.mark.parametrize("method", ["bash", "rac"])
def test_killed_in_training_and_started_again(method: str, config: str, model: Path, tmp_path: Path) -> None:
    """SIGKILL to all processes after a checkpoint: new processes end with the weights of a run that was not killed."""
    full, cut = tmp_path / "whole", tmp_path / "cut"
    assert launch(config, [job(method, model, full, 2)], full, 2) == ["done"]
    checkpoint = cut / method / "round_1" / "checkpoint-2"
    kill_when((checkpoint / "COMPLETE.json").exists, config, [job(method, model, cut, 2)], cut)
    assert not (cut / method / "round_1" / "model").exists()
    assert launch(config, [job(method, model, cut, 2)], cut, 2) == ["done"]
    assert json.loads((cut / method / "round_1" / "train-0.json").read_text())["resumed_at"] >= 2
    for pattern in ("round_*/_contexts/shard-*", "round_*/model/model.safetensors"):
        assert contents(cut / method, pattern) == contents(full / method, pattern) != {}


@pytest.mark.nightly
def test_sharded_checkpoints_still_give_a_whole_model(model: Path, one_process: Path, tmp_path: Path) -> None:
    """FSDP may keep its checkpoints in shards; the model that a run saves is whole all the same."""
    variables = {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
    assert launch("fsdp", [job("bash", model, tmp_path, 2, environment=variables)], tmp_path, 2) == ["done"]
    assert not list(tmp_path.glob("bash/round_1/checkpoint-4/*.safetensors"))
    check_whole(tmp_path / "bash", one_process / "bash", model, adapter=False)
