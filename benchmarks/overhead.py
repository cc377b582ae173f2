"""What does a method cost beside SFT? Wall seconds and peak memory, generation and training apart, ratios to SFT.

    python benchmarks/overhead.py                                      # recipes/tiny/base on the CPU, some minutes
    python benchmarks/overhead.py --model random-25m --rows 64         # random weights: answers run to the limit
    python benchmarks/overhead.py --model pythia-1b --device cuda      # random weights of that shape, bf16
    python benchmarks/overhead.py --ways SFT "BASH" --rows 512

Every way trains one epoch on the same word problems with the same batches, in a process of its own, one after the
other, `--repeats` times in turn; medians are printed, ratios with their range. `generation` is what is drawn before
training; SCS, GKD and SDFT draw inside their steps. `tokens` are those of the rows that were ready before training,
`padded` what an epoch's steps compute for them. Peak memory is that of the process less what it had with the model
loaded (CPU), or the device's allocator's peak (GPU). TRL's GKD and SDFT, the nearest relatives, are experimental
there: they run where the installed TRL has them. GKD's teacher is a copy of the model, all of its rows are drawn
(lmbda 1); SDFT's teacher sees the reference. `RAC, by length` trains rows of like length together
(`train_sampling_strategy: group_by_length`): half of RAC's rows are twice as long as the others, and a batch of both
is padded to the longest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from mixing import machine_and_versions, write_results
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
)


BASE = Path(__file__).resolve().parents[1] / "recipes" / "tiny" / "base"
# way: (method folder, its own options)
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("sft", {}),
    "SCS, 1 pass": ("scheduled_sampling", {"num_sampling_passes": "1"}),
    "SCS, exact": ("scheduled_sampling", {"num_sampling_passes": "exact"}),
    "BASH": ("bash", {}),
    "RAC": ("rac", {"max_completion_length": 128}),
    "RAC, by length": ("rac", {"max_completion_length": 128, "train_sampling_strategy": "group_by_length"}),
    "SPIN": ("spin", {"max_completion_length": 128}),
}
THEIRS = ("GKD", "SDFT")
SHAPES = {
    "random-25m": lambda: LlamaConfig(
        vocab_size=4096, hidden_size=512, intermediate_size=1408, num_hidden_layers=7, num_attention_heads=8
    ),
    "pythia-1b": lambda: GPTNeoXConfig(
        vocab_size=50304, hidden_size=2048, num_hidden_layers=16, num_attention_heads=8, intermediate_size=8192
    ),
    "mistral-7b": lambda: MistralConfig(sliding_window=None),
}


def load_model(name: str, device: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == "tiny":
        return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).to(device)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return AutoModelForCausalLM.from_config(SHAPES[name](), dtype=dtype).to(device)


def word_problems(count: int, steps: int) -> Dataset:
    from gapbridge.tasks.word_problems import problems

    return Dataset.from_list([problem.row() for problem in problems("train", count=count, steps=(steps,))])


class Peak:
    """Peak memory in MiB beyond what there is when it is made."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._before = self._now()

    def _now(self) -> float:
        if self._cuda:
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def mebibytes(self) -> float:
        return self._now() - self._before


def measure(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """One epoch of one way, in this process."""
    model, tokenizer = load_model(args.model, args.device), AutoTokenizer.from_pretrained(BASE)
    data = word_problems(args.rows, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder, "use_cpu": args.device == "cpu", "bf16": False, "report_to": "none", "seed": 1,
            "per_device_train_batch_size": args.batch_size, "num_train_epochs": 1, "gradient_checkpointing": False,
            "save_strategy": "no", "logging_steps": 1000, "disable_tqdm": True, "learning_rate": 1e-4,
        }  # fmt: skip
        peak = Peak(args.device)
        started = time.perf_counter()
        trainer = make_trainer(
            way, model, tokenizer, data, common, new_model=lambda: load_model(args.model, args.device)
        )
        len(trainer.train_dataset)  # contexts and rows are made for this
        constructed = time.perf_counter() - started
        drawn_peak = peak.mebibytes()
        started = time.perf_counter()
        trainer.train()
        training = time.perf_counter() - started
        seconds = Path(folder) / "_contexts" / "timing.json"
        generation = json.loads(seconds.read_text())["seconds"] if seconds.exists() else 0.0
        examples = len(trainer.train_dataset)
        fed, padded = tokens_of(trainer) if "input_ids" in trainer.train_dataset.column_names else (0, 0)
    return {
        "generation": generation,
        "training": training,
        "preparation": constructed - generation,
        "rows": examples,
        "tokens": fed,
        "padded_tokens": padded,
        "peak_generation_mib": drawn_peak,
        "peak_mib": peak.mebibytes(),
    }


def tokens_of(trainer: Any) -> tuple[int, int]:
    """How many tokens an epoch trains on, without padding and with it."""
    masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)


def make_trainer(
    way: str,
    model: PreTrainedModel,
    tokenizer: Any,
    data: Dataset,
    common: dict[str, Any],
    *,
    new_model: Callable[[], PreTrainedModel],
    max_length: int = 512,
    limit: int = 128,
) -> Any:
    """A way's trainer of conversational `data`.

    Args:
        new_model: makes a teacher.
        limit: the most tokens of what it draws.
    """
    if way in OURS:
        from gapbridge import methods

        name, options = OURS[way]
        method = methods.get_method(name)
        completions = {"max_completion_length": limit} if "max_completion_length" in options else {}
        config = method.config_class(**common, max_length=max_length, **{**options, **completions})
        return method(model, args=config, train_dataset=data, processing_class=tokenizer)
    if way == "GKD":
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        config = GKDConfig(**common, max_length=max_length, max_new_tokens=limit, lmbda=1.0)
        rows = data.map(lambda row: {"messages": row["prompt"] + row["completion"]}, remove_columns=data.column_names)
        return GKDTrainer(
            model,
            teacher_model=new_model(),
            args=config,
            train_dataset=rows,
            processing_class=tokenizer,
        )
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    if not model.name_or_path:  # its teacher is loaded from where the model is from
        model.save_pretrained(Path(common["output_dir"]) / "start")
        model.config._name_or_path = str(Path(common["output_dir"]) / "start")
    config = SDFTConfig(**common, max_completion_length=limit, num_generations=1, num_iterations=1)
    rows = data.map(
        lambda row: {"prompt": row["prompt"], "privileged_context": row["completion"][0]["content"]},
        remove_columns=data.column_names,
    )
    return SDFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)


def in_a_process(way: str, args: argparse.Namespace) -> dict[str, Any] | str:
    """The figures of one way from a process of its own, or why there are none."""
    command = [sys.executable, __file__, "--worker", way]
    for name in ("model", "device", "rows", "batch_size", "steps", "threads"):
        command += [f"--{name}", str(vars(args)[name])]
    environment = {**os.environ, "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode or not lines:
        return result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"exit code {result.returncode}"
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def overhead(args: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in args.ways}
    reasons: dict[str, str] = {}
    for _ in range(args.repeats):
        for way in args.ways:
            if way in reasons:
                continue
            figures = in_a_process(way, args)
            if isinstance(figures, str):
                reasons[way] = figures
                print(f"{way}: skipped, {figures}", flush=True)
            else:
                found[way].append(figures)
    machine, versions = machine_and_versions(args.device, args.threads)
    print(f"{args.model}, {args.rows} rows of {args.steps} steps, batch {args.batch_size}; {machine}; {versions}")
    table = [
        ["way", "generation", "training", "sum, ms an example", "× SFT", "rows", "tokens", "padded", "peak MiB"],
        *([way, *row] for way, row in rows_of(found, args.rows).items()),
    ]
    lines = [f"| {' | '.join(map(str, row))} |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    print("\n".join(lines))
    report = {"ways": found, "skipped": reasons, "table": table}
    write_results(args, machine, versions, report)
    if args.output:
        draw(args.output.with_suffix(".png"), found, args.rows)


def rows_of(found: dict[str, list[dict[str, Any]]], examples: int) -> dict[str, list[Any]]:
    """The cells of each way: medians over the repeats, milliseconds an example; ratios are to SFT in the same turn.

    What disturbs the machine for a while falls on the ways of a turn alike, so the ratios vary less than the times.
    """
    rows = {}
    for way, runs in found.items():
        if not runs:
            continue
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        totals = [run["generation"] + run["training"] for run in runs]
        ratios = [total / base["training"] for total, base in zip(totals, found.get("SFT", []), strict=False)]
        spread = f" ({min(ratios):.2f} – {max(ratios):.2f})" if len(ratios) > 1 and way != "SFT" else ""
        seconds = (medians["generation"], medians["training"], statistics.median(totals))
        rows[way] = [
            *(f"{1000 * value / examples:.1f}" for value in seconds),
            f"{statistics.median(ratios):.2f}{spread}" if ratios else "–",
            int(medians["rows"]),
            *(f"{medians[key]:.0f}" if medians[key] else "–" for key in ("tokens", "padded_tokens")),
            f"{medians['peak_mib']:.0f}",
        ]
    return rows


def draw(path: Path, found: dict[str, list[dict[str, Any]]], examples: int) -> None:
    """Bars of milliseconds an example, generation and training on top of each other."""
    from matplotlib.figure import Figure

    rows = {way: [float(cell) for cell in row[:2]] for way, row in rows_of(found, examples).items()}
    figure = Figure(figsize=(7.5, 0.45 * len(rows) + 1.4), layout="constrained")
    axis = figure.subplots()
    names = list(rows)[::-1]
    sampled, trained = [rows[name][0] for name in names], [rows[name][1] for name in names]
    axis.barh(names, sampled, color="#E69F00", label="drawn before training")
    axis.barh(names, trained, left=sampled, color="#0072B2", label="training steps")
    for at, name in enumerate(names):
        axis.text(sum(rows[name]), at, f" {sum(rows[name]):.0f}", va="center", fontsize=9)
    axis.set_xlabel("milliseconds an example, one epoch (lower is better)")
    axis.legend(frameon=False, loc="lower right")
    axis.margins(x=0.1)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=["tiny", *SHAPES], default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ways", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="operations in a word problem, 1 to 6: longer answers")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a JSON file; a picture goes beside it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        with contextlib.redirect_stdout(sys.stderr):
            figures = measure(args.worker, args)
        print(json.dumps(figures))
    else:
        overhead(args)


if __name__ == "__main__":
    main()
