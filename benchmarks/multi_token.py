"""What do several predicted tokens cost in training, and what do they give in decoding?

    python benchmarks/multi_token.py memory                                   # random Llama, n = 1, 2, 4
    python benchmarks/multi_token.py decoding --model outputs/tiny-mtp        # a model with heads, word problems

`memory`: the most bytes that a training step (loss and gradients) has allocated at a time, weights and optimizer left
out, and its seconds; n = 1 is TRL's own SFT step. On a
CPU the bytes are those of every allocation that torch's profiler sees, on a GPU the allocator's. Seconds are the
process's on a CPU (with one thread those of the clock, on a machine that does nothing else), and the clock's on a GPU.

`decoding`: greedy answers by `generate_completions` and by `generate`, in turn, checked to be the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from mixing import BASE, machine_and_versions, write_results
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from gapbridge import MTPConfig, MTPTrainer
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.decoding import generate_completions
from gapbridge.methods.mtp.checkpoint import load
from gapbridge.methods.mtp.speculative import generate
from gapbridge.tasks.word_problems import problems


def random_model(vocabulary: int, hidden: int, layers: int) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False,
        )
    )  # fmt: skip


def started(device: str) -> Callable[[], float]:
    """A clock: the seconds since now."""
    if device != "cuda":
        begin = time.process_time()
        return lambda: time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()

    def passed() -> float:
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    return passed


def step(trainer: MTPTrainer, batch: dict[str, Any]) -> None:
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(1000))
    loss.backward()


def peak_bytes(trainer: MTPTrainer, batch: dict[str, Any]) -> int:
    """The most bytes that a step has allocated beyond what is there before it; gradients count, weights do not."""
    trainer.model.zero_grad(set_to_none=True)
    if trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(trainer, batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as traced:
        step(trainer, batch)
    assert traced.profiler is not None and traced.profiler.kineto_results is not None
    events = [event for event in traced.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    answer = "\n".join(problem.answer for problem in problems("train", count=8, steps=(4,)))
    rows = Dataset.from_list([{"prompt": f"{row}\n", "completion": answer} for row in range(args.rows)])
    for vocabulary in args.vocabularies:
        print(f"vocabulary {vocabulary}, hidden {args.hidden}, {args.layers} layers")
        print(f"{'n':>4}{'MiB':>10}{'× n = 1':>10}{'seconds':>10}")
        for n in (1, 2, 4):
            with tempfile.TemporaryDirectory() as folder:
                config = MTPConfig(
                    folder, num_future_tokens=n, use_cpu=args.device == "cpu",
                    bf16=args.device == "cuda", gradient_checkpointing=False, report_to="none", max_length=256,
                    per_device_train_batch_size=args.rows, truncate_overlong=True,
                )  # fmt: skip
                model = random_model(vocabulary, args.hidden, args.layers).to(args.device)
                trainer = MTPTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)
            trainer.model.train()
            batch = trainer.data_collator([trainer.train_dataset[at] for at in range(args.rows)])
            batch = {name: value.to(args.device) for name, value in batch.items()}
            peak, seconds = peak_bytes(trainer, batch), []
            for _ in range(args.repeats):
                trainer.model.zero_grad(set_to_none=True)
                clock = started(args.device)
                step(trainer, batch)
                seconds.append(clock())
            first = report.setdefault(f"vocabulary {vocabulary}, n 1", {"peak_bytes": peak})["peak_bytes"]
            tokens = int((batch["labels"] != -100).sum())
            report[f"vocabulary {vocabulary}, n {n}"] = {
                "peak_bytes": peak, "times_sft": peak / first, "seconds": statistics.median(seconds),
                "all_seconds": seconds, "tokens_with_loss": tokens, "tokens": batch["input_ids"].numel(),
            }  # fmt: skip
            print(f"{n:4}{peak / 2**20:10.0f}{peak / first:10.2f}{statistics.median(seconds):10.2f}")
    return report


def measure_decoding(args: argparse.Namespace) -> dict[str, Any]:
    model, tokenizer = load(args.model).to(args.device), AutoTokenizer.from_pretrained(args.model)
    asked = problems("test", count=args.rows, steps=(4,))
    prompts = [tokenizer(problem.prompt + "\n")["input_ids"] for problem in asked]
    stops = stop_tokens(tokenizer, model)
    report: dict[str, Any] = {}
    print(
        f"{'batch':>6}{'temperature':>12}{'plain s':>10}{'heads s':>10}{'faster':>8}{'passes/token':>14}{'equal':>10}"
    )
    for batch_size in args.batch_sizes:
        for temperature in (0.0, 1.0):
            options: dict[str, Any] = {
                "ids": list(range(len(prompts))), "max_completion_length": args.limit,
                "batch_size": batch_size, "temperature": temperature,
            }  # fmt: skip
            taken: dict[str, list[float]] = {"plain": [], "heads": []}
            for _ in range(args.repeats):
                clock = started(args.device)
                plain = generate_completions(model, prompts, stop_tokens=stops, **options)
                taken["plain"].append(clock())
                clock = started(args.device)
                completions, done = generate(model, prompts, tokenizer=tokenizer, **options)
                taken["heads"].append(clock())
            equal = sum(a == b for a, b in zip(completions, plain, strict=True))
            slow, fast = (statistics.median(taken[way]) for way in ("plain", "heads"))
            report[f"batch {batch_size}, temperature {temperature:g}"] = {
                "plain_seconds": taken["plain"], "heads_seconds": taken["heads"], "faster": slow / fast,
                "passes_per_token": done.passes_per_token, "passes": done.passes, "tokens": done.tokens,
                "acceptance": done.acceptance, "answers_equal": equal, "answers": len(prompts),
            }  # fmt: skip
            print(
                f"{batch_size:6}{temperature:12g}{slow:10.2f}{fast:10.2f}{slow / fast:8.2f}"
                f"{done.passes_per_token:14.3f}{f'{equal}/{len(prompts)}':>10}"
            )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("part", choices=("memory", "decoding"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows", type=int, default=None, help="rows of 256 tokens a step (default: 2), prompts (default: 64)"
    )
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32768, 131072])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--model", type=Path, default=Path("outputs/tiny-mtp"), help="a model with heads")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--limit", type=int, default=200, help="most tokens of an answer")
    parser.add_argument("--output", type=Path, default=None, help="also write the figures as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.rows = args.rows or (2 if args.part == "memory" else 64)
    machine, versions = machine_and_versions(args.device, args.threads)
    print(f"{machine}; {versions}")
    report = measure_memory(args) if args.part == "memory" else measure_decoding(args)
    write_results(args, machine, versions, report)


if __name__ == "__main__":
    main()
