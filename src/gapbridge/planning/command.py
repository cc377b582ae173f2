"""`gapbridge plan`: what a recipe takes, before it is launched: memory, steps, tokens, disk, and time."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft import PeftConfig
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from trl import get_peft_config

from ..decoding.engine import PROMPT_COLUMNS
from ..decoding.memory_limits import BatchLimits
from ..decoding.model_state import uses_logit_softcapping
from ..decoding.mtp_heads import find_heads
from ..errors import ConfigError
from ..methods import display_name
from ..recipe.type_checks import read_yaml
from ..recipe.type_checks import to_builtin as plain_value
from ..reporting.tables import in_columns, number, print_table
from ..runs.run_config import RunConfig, read_job
from ..runs.validate import cpu_option
from ..training.completion_config import CompletionArgs
from ..training.loading import load_tokenizer
from ..training.preference_trainer import PreferenceTrainerMixin
from .dummy_assets import byte_tokenizer
from .fake_step import StepMemory, run_fake_step
from .hub_metadata import MODELS
from .memory import CONFIGS, PARTS, SHARDED, Memory, generation_parts, memory
from .smoke_test import find_base_model
from .workload import Workload, rows_per_step, workload


_DEVICES, _DEVICE_MEMORY = 8, 80.0  # and GiB, where the command line says nothing of them
USABLE = 0.9  # of a device: the rest is the driver's, and gaps between tensors
_GIB = 2**30
_QUANTISED = {4: 0.5 + 4 / 64, 8: 1.0}  # bytes of a weight, by its bits; of 4 bits with a scale for each 64 weights


@dataclass(frozen=True)
class Plan:
    """What a recipe takes.

    memories: by accelerate configuration, with the recipe's micro-batch. best: the configuration to use and the
    largest micro-batch, a power of two, that fits there with as many rows a step; None where none does.
    seconds: (training, generation) of all rounds, as far as they are known.
    refused: the accelerate configurations under which the method refuses to train; they have no memory.
    """

    work: Workload
    step: StepMemory
    memories: dict[str, Memory]
    best: tuple[str, int] | None
    seconds: tuple[float | None, float | None]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """devices: one process each. memory: of each, in GiB. is_here: it is this machine's CPU."""

    devices: int
    memory: float
    is_here: bool

    def __str__(self) -> str:
        return f"this machine's {self.memory:.3g} GiB" if self.is_here else f"{self.devices} × {self.memory:g} GiB"


def run_plan(args: argparse.Namespace, overrides: list[str]) -> Plan:
    """Print what a recipe takes.

    Raises:
        ConfigError, DataError: the recipe has errors, or something that nothing here knows must be said.
    """
    added = cpu_option(overrides)
    job = read_job(["--config", args.config, *overrides, *added])
    # A recipe that is planned on a machine without GPUs is not one for its CPU.
    asked = not added or bool(read_yaml(Path(args.config)).get("use_cpu"))
    machine = _machine(args, is_cpu=asked and job.args.use_cpu)
    work = workload(job, machine.devices, rows=args.num_train_examples, row_tokens=args.mean_sequence_length)
    found = plan(
        job,
        work,
        gpus=machine.devices,
        usable=machine.memory * _GIB * USABLE,
        tflops=args.device_tflops,
        on_cpu=asked and job.args.use_cpu,
    )
    _show(job, found, args, machine)
    return found


def _machine(args: argparse.Namespace, *, is_cpu: bool) -> Machine:
    """The devices that the command line describes; of a recipe for a CPU this machine, where it describes none."""
    here = is_cpu and args.num_devices is None
    devices = args.num_devices or (1 if here else _DEVICES)
    if args.device_memory_gib is not None:
        return Machine(devices, args.device_memory_gib, here)
    return Machine(devices, psutil.virtual_memory().total / _GIB if here else _DEVICE_MEMORY, here)


def plan(
    job: RunConfig,
    work: Workload,
    *,
    gpus: int,
    usable: float,
    tflops: float | None = None,
    on_cpu: bool = False,
) -> Plan:
    """What a recipe takes on `gpus` devices with `usable` bytes each, or `on_cpu`."""
    config = architecture(job)
    micro = job.args.per_device_train_batch_size
    simulated, plain = _steps(job, config, work, cast=False)
    # DeepSpeed casts weights to bf16, where the others keep float32 and cast as they go.
    casts = gpus > 1 and job.args.bf16 and _dtype(job) == torch.float32
    cast = _steps(job, config, work, cast=True)[1] if casts else plain
    pairs = issubclass(job.method, PreferenceTrainerMixin)
    reference = pairs and not job.model.use_peft and not job.args.precompute_ref_log_probs
    generation = _generation_memory(job, config, work, plain[0].weights, on_cpu)

    def memory_of(name: str, batch: int) -> Memory:
        steps = cast if name.startswith("zero") else plain
        curve = np.polyfit(simulated, [step.activations for step in steps], len(simulated) - 1)
        size = work.packed_tokens(batch) if work.packed else batch
        step = replace(steps[0], activations=max(0, round(float(np.polyval(curve, size)))))
        return memory(step, job.args, name, gpus, reference=reference, generation=generation, on_cpu=on_cpu)

    refused = _refused_configs(job)
    names = [name for name in CONFIGS if (name == "single") == (gpus == 1) and name not in refused]
    if job.model.load_in_4bit or job.model.load_in_8bit:  # their weights cannot be divided
        names = [name for name in names if name not in ("zero3", "fsdp")]
    memories = {name: memory_of(name, micro) for name in names}
    if job.model.dtype == "bfloat16" and not job.model.use_peft:
        # Small steps are lost in bf16 weights; the sharded configurations keep a float32 copy of them.
        names.sort(key=lambda name: name == "ddp")
    # As many rows a step as the recipe has, in batches of powers of two and as many passes as that takes.
    full = micro * job.args.gradient_accumulation_steps
    sizes = [2**power for power in range(12) if full % 2**power == 0]
    fitting = [(name, size) for name in names for size in sizes if memory_of(name, size).peak <= usable]
    best = None
    if fitting:
        name = next((name for name in names if (name, micro) in fitting), fitting[0][0])
        best = (name, micro if (name, micro) in fitting else max(size for other, size in fitting if other == name))
    step = plain[0]
    seconds = _estimated(job, work, step.parameters + _reused_parameters(job, config), gpus, tflops)
    return Plan(work, step, memories, best, seconds, refused)


def _refused_configs(job: RunConfig) -> tuple[str, ...]:
    """The accelerate configurations that the method refuses."""
    place = Path(find_base_model(str(job.model.model_name_or_path), job.recipe.path).name)
    tokenizer = load_tokenizer(place, job.args) if place.is_dir() else None
    return job.method.refused_configs(job.args, tokenizer)


def architecture(job: RunConfig) -> PretrainedConfig:
    """The configuration of the model that a recipe trains, found without a hub where it can be.

    Raises:
        ConfigError: nothing here knows it, and no hub does.
    """
    name = find_base_model(str(job.model.model_name_or_path), job.recipe.path).name
    place = Path(name)
    if (place / "adapter_config.json").is_file():
        name = str(PeftConfig.from_pretrained(name).base_model_name_or_path)
    if name in MODELS:
        return AutoConfig.for_model(**MODELS[name].shape)
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=job.args.trust_remote_code)
    except (OSError, ValueError) as error:
        got = f"a configuration that cannot be loaded ({error})"
        raise ConfigError(
            f"{job.recipe.path}, {name}", got, "the configuration of a model", "Check the name"
        ) from error


def _steps(
    job: RunConfig, config: PretrainedConfig, work: Workload, *, cast: bool
) -> tuple[list[int], list[StepMemory]]:
    """A step with the recipe's micro-batch, and one with twice as many rows; `cast`: with weights in bf16.

    Packed rows are one row, whose mask grows with the square of its length: then of one, two and four times as many
    tokens.

    Returns:
        The sizes, rows or with packing tokens, and a step for each.
    """
    model, args = job.model, job.args
    dtype = torch.bfloat16 if cast else _dtype(job)
    micro = args.per_device_train_batch_size
    options: dict[str, Any] = {
        "checkpointing": bool(args.gradient_checkpointing), "adapter": get_peft_config(model),
        "autocast": bool(args.bf16) and not cast,
    }  # fmt: skip
    if work.packed:
        sizes = [work.packed_tokens(micro) * times for times in (1, 2, 4)]
        options["masked"] = not str(model.attn_implementation).startswith("flash")
        shapes = [(1, size) for size in sizes]
    else:
        sizes = [micro, 2 * micro]
        shapes = [(size * work.sequences, work.longest) for size in sizes]
    with tqdm(shapes, desc="simulating training steps", unit="step", delay=1) as bar:
        found = [run_fake_step(config, dtype, rows=rows, length=length, **options) for rows, length in bar]
    added = added_parameters(job, config)
    found = [
        replace(step, parameters=step.parameters + added, trained=step.trained + added,
                weights=step.weights + added * dtype.itemsize, gradients=step.gradients + added * dtype.itemsize)
        for step in found
    ]  # fmt: skip
    bits = 4 if model.load_in_4bit else 8 if model.load_in_8bit else None
    # Scheduled generates look at the logits of whole rows.
    passes = job.method.forward_equivalents_per_token(args) - 3 - issubclass(job.method, PreferenceTrainerMixin)
    logits = work.longest * config.get_text_config().vocab_size * (2 if args.bf16 else 4) if passes > 0 else 0
    found = [
        replace(step, activations=step.activations + logits * size * work.sequences)
        for step, size in zip(found, sizes, strict=True)
    ]
    if bits is None:
        return sizes, found
    linear = found[0].parameters - found[0].trained - found[0].embedded
    weights = round(found[0].weights - linear * (dtype.itemsize - _QUANTISED[bits]))
    return sizes, [replace(step, weights=weights) for step in found]


def added_parameters(job: RunConfig, config: PretrainedConfig) -> int:
    """The parameters that the method adds to a model, all of them trained."""
    with torch.device("meta"):
        before = AutoModelForCausalLM.from_config(config).num_parameters()
    return max(0, int(_prepared(job, config).num_parameters()) - int(before))


def _reused_parameters(job: RunConfig, config: PretrainedConfig) -> int:
    """The parameters that a token meets once more: heads that are layers share the model's unembedding."""
    model = _prepared(job, config)
    heads = find_heads(model)
    if heads is None:
        return 0
    return len(heads) * int(model.get_output_embeddings().weight.numel())


def _prepared(job: RunConfig, config: PretrainedConfig) -> PreTrainedModel:
    """The model, without weights, with what the method adds to it."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        # A token more or less is nothing: any tokenizer of the model's size will do.
        job.method.setup_model(model, byte_tokenizer("<s>", "</s>"), job.args)
    return model


def _dtype(job: RunConfig) -> torch.dtype:
    """The type in which weights are loaded."""
    return torch.float32 if job.model.dtype in (None, "float32") else torch.bfloat16


def _generation_memory(
    job: RunConfig, config: PretrainedConfig, work: Workload, weights: float, on_cpu: bool
) -> dict[str, float]:
    args, length = job.args, work.longest
    completions = isinstance(args, CompletionArgs)
    if not job.method.generates_contexts or (completions and args.use_vllm):
        return {}
    rows = BatchLimits(args.generation_batch_size, args.generation_max_batch_tokens).rows_of(length)
    if completions:  # the widest pass is one over the prompts
        fed, seen, sampled = min(PROMPT_COLUMNS, work.longest_prompt), work.longest_prompt, 1
    else:
        fed, seen, sampled = args.verify_window, length, args.verify_window
    parts = generation_parts(
        config, _dtype(job).itemsize, rows=rows, length=length, fed=fed, seen=seen, generated=sampled,
        eager=uses_logit_softcapping(config) or job.model.attn_implementation == "eager", on_cpu=on_cpu,
    )  # fmt: skip
    return {"weights": float(weights), **parts}


def _estimated(
    job: RunConfig, work: Workload, parameters: int, gpus: int, tflops: float | None
) -> tuple[float | None, float | None]:
    """Seconds from a stated speed: two operations a parameter that a token meets, in a forward pass."""
    if tflops is None:
        return None, None
    a_pass = 2 * parameters / (tflops * 1e12 * gpus)
    passes = job.method.forward_equivalents_per_token(job.args) + bool(job.args.gradient_checkpointing)
    training = sum(part.tokens for part in work.rounds) * passes * a_pass
    if isinstance(job.args, CompletionArgs):
        return training, None  # decoding waits for memory, not for arithmetic
    return training, sum(part.generated for part in work.rounds) * a_pass


def _size(size: float) -> str:
    return f"{size / _GIB:.3g} GiB" if size >= _GIB else f"{size / 2**20:.3g} MiB"


def count_checkpoints(job: RunConfig, work: Workload) -> int:
    """How many checkpoints a run leaves, those of all rounds together."""
    args, saves = job.args, 0
    for part in work.rounds:
        every = args.save_steps if args.save_steps >= 1 else max(1, math.ceil(part.steps * args.save_steps))
        epochs = min(part.steps, math.ceil(args.num_train_epochs))
        found = {"no": 0, "epoch": epochs}.get(plain_value(args.save_strategy), math.ceil(part.steps / every))
        saves += min(found, args.save_total_limit or found)
    return saves


def _column(parts: Memory, usable: float) -> dict[str, str | None]:
    rows: dict[str, str | None] = {}
    for name, found in (("training", parts.training), ("generation", parts.generation)):
        of = {part: f"{found[part] / _GIB:.3g}" if part in found else None for part in PARTS}
        rows |= {f"{name}: {part}": size for part, size in of.items()}
        rows[name] = f"{sum(found.values()) / _GIB:.3g}" if found else None
    return {**rows, "fits": "yes" if parts.peak <= usable else "no"}


def _memory_savers(job: RunConfig) -> list[str]:
    """The settings that the recipe does not have yet; docs/how-to/plan.md says what each costs."""
    smaller = "a smaller per_device_train_batch_size with more gradient_accumulation_steps"
    settings = {
        smaller: job.args.per_device_train_batch_size > 1,
        "gradient_checkpointing: true": not job.args.gradient_checkpointing,
        "a smaller generation_batch_size": job.method.generates_contexts,
        "use_peft: true": not job.model.use_peft,
    }
    return [*(setting for setting, is_left in settings.items() if is_left), "a lower max_length"]


def _show(job: RunConfig, found: Plan, args: argparse.Namespace, machine: Machine) -> None:
    work, step, training = found.work, found.step, job.args
    usable = machine.memory * _GIB * USABLE
    trained = "" if step.trained == step.parameters else f", {number(step.trained)} of them trained"
    counted = "counted here" if work.exact else "as published, each taken for as long as it may be"
    if work.sampled:
        counted = f"counted here on {work.sampled:,} of them"
    if not work.exact and args.mean_sequence_length:
        counted = f"as published, {number(args.mean_sequence_length)} tokens each"
    print(f"{args.config}: {display_name(job.name)}, {number(step.parameters)} parameters{trained}")
    rows = "packed rows" if work.packed else "rows"
    print(f"{work.examples:,} examples ({counted}); {rows_per_step(training, machine.devices)} {rows} a step\n")
    rounds = {
        f"round {index}": {
            rows: part.rows,
            "steps": part.steps,
            "trained tokens": part.tokens,
            "generated tokens": part.generated or None,
        }
        for index, part in enumerate(work.rounds, 1)
    }
    print_table(in_columns("", rounds))
    columns = {name: _column(parts, usable) for name, parts in found.memories.items()}
    print_table(in_columns(f"GiB {'of this machine' if machine.is_here else 'on each device'}", columns))
    if machine.devices > 1 and found.refused:
        print(f"left out, because {job.name} does not support them: {', '.join(found.refused)}")
    if found.best is None:
        way = f"use an adapter{'' if machine.is_here else ', more devices'} or a lower max_length"
        if all(sum(parts.generation.values()) > usable for parts in found.memories.values()):
            way = "lower generation_max_batch_tokens"
        print(f"nothing fits {machine}: {way}")
    else:
        name, micro = found.best
        start = f"--accelerate_config {name} --num_processes {machine.devices}"
        if machine.is_here:
            start = "one process on this machine's CPU"
        full = training.per_device_train_batch_size * training.gradient_accumulation_steps
        print(f"use {start}, per_device_train_batch_size {micro}, gradient_accumulation_steps {full // micro}")
    print(f"what lowers the peak: {', '.join(_memory_savers(job))} (give one as an option to plan with it)")
    used = found.best[0] if found.best else next(iter(found.memories))
    stored = sum(part.generated for part in work.rounds) * 9  # an id of eight bytes and a flag, before compression
    parts_of_all = machine.devices if used in SHARDED else 1
    saved = step.weights + found.memories[used].training.get("optimizer", 0) * parts_of_all
    contexts = f"contexts {_size(stored)} at most, " if stored else ""
    print(f"disk: {contexts}{count_checkpoints(job, work)} checkpoints of about {_size(saved)} each")
    for what, seconds in zip(("training", "generation"), found.seconds, strict=True):
        if seconds:
            print(f"{what}: {seconds / 3600:.2f} hours, at {args.device_tflops:g} TFLOP/s a device")
