"""Where a decode step and a training step spend their time: kernels, launches and waits, from torch's profiler."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Setup, digit_rows, tokenizer, trainer_options
from drafting import ours as drafted
from torch.profiler import ProfilerActivity, profile

from gapbridge import BASHConfig, BASHTrainer


def run(setup: Setup) -> None:
    (shape,) = setup.shapes("1b")
    model = setup.model(shape)
    count, limit = setup.choose(64, 4), setup.choose(32, 6)
    prompts = torch.randint(2, 500, (count, 32), generator=torch.Generator().manual_seed(0)).tolist()
    draw = partial(drafted, model, prompts, limit, [], count, temperature=1.0)
    with setup.case(f"drafts, {limit} tokens of {count} rows") as found:
        draw()
        found |= profiled(setup, draw)
    with setup.case("BASH training step") as found, tempfile.TemporaryDirectory() as folder:
        options = trainer_options(setup, folder, max_steps=1, bf16=False, mixture_coefficient=0.0)
        args = BASHConfig(**options, max_length=1024)
        rows = digit_rows(4, 32, setup.choose(256, 16))
        trainer = BASHTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer())
        trainer.train()
        batch = {
            name: value.to(setup.device)
            for name, value in trainer.data_collator([trainer.train_dataset[at] for at in range(4)]).items()
            if isinstance(value, torch.Tensor)
        }

        def step() -> None:
            trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(1000)).backward()

        step()
        found |= profiled(setup, step)


def profiled(setup: Setup, run: Callable[[], object]) -> dict[str, Any]:
    """Kernel seconds, launches and waits on a GPU; on a CPU operators and their seconds."""
    on_gpu = setup.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as traced:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    events = traced.key_averages()
    if not on_gpu:
        return {
            "operators": sum(event.count for event in events),
            "operator_seconds": sum(event.self_cpu_time_total for event in events) / 1e6,
        }
    counts = {event.key: event.count for event in events}
    top = sorted(events, key=lambda event: -event.self_device_time_total)[:8]
    return {
        "kernel_seconds": sum(event.self_device_time_total for event in events) / 1e6,
        "launches": sum(count for key, count in counts.items() if "LaunchKernel" in key or "GraphLaunch" in key),
        "waits": sum(count for key, count in counts.items() if "Synchronize" in key),
        "longest_kernels": {event.key[:80]: event.self_device_time_total / 1e6 for event in top},
    }
