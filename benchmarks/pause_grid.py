"""Does a delay pay? {standard, pause} pretraining × {standard, pause} fine-tuning, and M at inference, on tiny models.

    python benchmarks/pause_grid.py --output benchmarks/results/pause-grid-tiny-cpu.json --plot docs/images/pause.png

The task is a sum whose working is not written down:

    pretraining, with running totals:    7 1 4 9 3 8 : 7 8 12 21 24 32 = 32
    fine-tuning, the total alone:        7 1 4 9 3 8 =        →  32

Each seed pretrains a model from nothing in both ways, and fine-tunes either in both ways. Models that are there are
not trained again: start it again to continue.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from mixing import machine_and_versions, write_results
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gapbridge.cli import guarded
from gapbridge.data.pauses import pause_id
from gapbridge.decoding import generate_completions
from gapbridge.files import write_json_atomic
from gapbridge.intervals import mean_interval, paired_difference
from gapbridge.methods.pause.inference import paused_prompt
from gapbridge.methods.pause.trainer import PauseConfig, PauseTrainer
from gapbridge.methods.sft.trainer import GapSFTConfig, GapSFTTrainer
from gapbridge.tasks.word_problems import hash_eighth


END = "<|end|>"
WAYS = ("standard", "pause")


def problems(split: str, count: int, seed: int, length: int) -> list[list[int]]:
    """Digits to add; no row of digits is in two splits."""
    rng = random.Random(f"{split}/{seed}")
    found: list[list[int]] = []
    while len(found) < count:
        digits = rng.choices(range(10), k=length)
        if {0: "test", 1: "validation"}.get(hash_eighth(question(digits)), "train") == split:
            found.append(digits)
    return found


def question(digits: list[int]) -> str:
    return " ".join(map(str, digits))


def texts(found: list[list[int]], *, working: bool) -> Dataset:
    """Problems as prompts and completions, with the running totals before the total or without them."""
    rows = []
    for number, digits in enumerate(found):
        totals = " ".join(map(str, itertools.accumulate(digits)))
        prompt, completion = (f"{question(digits)} :", f" {totals} =") if working else (f"{question(digits)} =", "")
        rows.append({"id": str(number), "prompt": prompt, "completion": f"{completion} {sum(digits)} {END}"})
    return Dataset.from_list(rows)


def new_model(directory: Path, args: argparse.Namespace, seed: int) -> Path:
    """Random weights and a tokenizer of single symbols, saved."""
    words = ["<|pad|>", END, ":", "=", *map(str, range(9 * args.length + 1))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<|pad|>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token=END)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.hidden_size, intermediate_size=args.hidden_size * 11 // 4,
        num_hidden_layers=args.layers, num_attention_heads=args.hidden_size // 32, max_position_embeddings=256,
        num_key_value_heads=args.hidden_size // 32, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    for part in (LlamaForCausalLM(config), tokenizer):
        part.save_pretrained(directory)
    return directory


def trained(directory: Path, start: Path, data: Dataset, seed: int, **options: Any) -> Path:
    """The model `start` trained on `data`, with pauses where the options ask for some; or what was trained before."""
    if (directory / "config.json").exists():
        return directory
    common: dict[str, Any] = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": 64, "max_length": 128, "save_strategy": "no", "logging_steps": 100,
        "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": 0.05, "seed": seed,
    }  # fmt: skip
    pauses = options.keys() & {"num_pause_tokens", "pause_placement"}
    config, trainer = (PauseConfig, PauseTrainer) if pauses else (GapSFTConfig, GapSFTTrainer)
    run = trainer(
        model=AutoModelForCausalLM.from_pretrained(start),
        args=config(str(directory.with_suffix(".run")), **common, **options),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    run.prepare_dataset()
    started = time.process_time()
    run.train()
    loss, spent = run.state.log_history[-1]["train_loss"], time.process_time() - started
    print(f"{directory}: {spent:.0f} s, loss {loss:.3f}", flush=True)
    run.save_model(str(directory))
    return directory


def right(directory: Path, counts: list[int], args: argparse.Namespace) -> dict[str, list[bool]]:
    """Which test problems a model adds right after so many pauses, greedily, for each number in `counts`."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    found = problems("test", args.test_problems, 0, args.length)
    asked = [tokenizer(f"{question(digits)} =")["input_ids"] for digits in found]
    pause = pause_id(tokenizer)
    graded = {}
    for count in counts:
        completions = generate_completions(
            model,
            [paused_prompt(tokenizer, ids, count) for ids in asked] if pause is not None else asked,
            ids=list(range(len(asked))),
            max_completion_length=3,
            stop_tokens=[tokenizer.eos_token_id],
            suppress_tokens=() if pause is None else (pause,),
            temperature=0.0,
            batch_size=256,
        )
        answers = [tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions]
        graded[str(count)] = [answer == str(sum(digits)) for answer, digits in zip(answers, found, strict=True)]
    return graded


def seed_of(args: argparse.Namespace, seed: int) -> dict[str, dict[str, list[bool]]]:
    """What one seed's four cells add right, by the number of pauses at inference."""
    place = args.output_dir / f"seed-{seed}"
    start = new_model(place / "start", args, seed)
    read = texts(problems("train", args.pretraining_rows, seed, args.length), working=True)
    asked = texts(problems("train", args.fine_tuning_rows, seed + 1000, args.length), working=False)
    first = {"max_steps": args.pretraining_steps, "learning_rate": args.pretraining_rate}
    second = {"max_steps": args.fine_tuning_steps, "learning_rate": args.fine_tuning_rate}
    found: dict[str, dict[str, list[bool]]] = {}
    for before, after in itertools.product(WAYS, WAYS):
        random_pauses = {"pause_placement": "random"} if before == "pause" else {}
        base = trained(place / f"{before}-pretrained", start, read, seed, **first, **random_pauses)
        pauses = {"num_pause_tokens": args.pauses} if after == "pause" else {}
        model = trained(place / f"{before}-{after}", base, asked, seed, **second, **pauses)
        cache = place / f"{before}-{after}.answers.json"
        if not cache.exists():
            write_json_atomic(cache, right(model, args.sweep if after == "pause" else [0], args))
        found[f"{before}, {after}"] = json.loads(cache.read_text())
    return found


def grid(args: argparse.Namespace) -> None:
    seeds = [seed_of(args, seed) for seed in args.seeds]
    machine, versions = machine_and_versions("cpu", 1)
    print(f"seeds {args.seeds}; {machine}; {versions}; right in % with 95 % interval over problems {{seeds}}")
    report: dict[str, Any] = {}
    base = np.mean([found["standard, standard"]["0"] for found in seeds], axis=0)
    for cell in seeds[0]:
        for count in sorted(seeds[0][cell], key=int):
            every = [found[cell][count] for found in seeds]
            mean = np.mean(every, axis=0)  # a problem is resampled with its answers of every seed
            row = {
                "right": vars(mean_interval(mean)),
                "less_standard": vars(paired_difference(base, mean)),
                "by_seed": [float(np.mean(one)) for one in every],
            }
            report[f"{cell}, {count} pauses"] = row
            of_seeds = ", ".join(f"{100 * one:.1f}" for one in row["by_seed"])
            cells = [f"{100 * row[k]['mean']:5.1f} [{100 * row[k]['low']:.1f}, {100 * row[k]['high']:.1f}]"
                     for k in ("right", "less_standard")]  # fmt: skip
            print(f"{cell:>20} {count:>4} pauses  {cells[0]} {{{of_seeds}}}   less standard, standard {cells[1]}")
    write_results(args, machine, versions, report)
    if args.plot:
        plot(seeds, args)


def plot(seeds: list[dict[str, dict[str, list[bool]]]], args: argparse.Namespace) -> None:
    """The share of right totals over the pauses at inference; a line a cell, thin ones the seeds."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    for colour, cell in zip(("C0", "C2", "C1", "C3"), seeds[0], strict=True):
        counts = sorted(int(count) for count in seeds[0][cell])
        shares = 100 * np.array([[np.mean(found[cell][str(count)]) for count in counts] for found in seeds])
        before, after = cell.split(", ")
        label = f"{before} pretraining, {after} fine-tuning"
        if len(counts) == 1:
            axes.axhline(shares.mean(), color=colour, linestyle="--", label=f"{label} (no pauses)")
            continue
        axes.plot(counts, shares.T, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(counts, shares.mean(0), color=colour, marker="o", label=label)
    axes.axvline(args.pauses, color="grey", linewidth=0.6)
    axes.set_xlabel(f"pauses at inference ({args.pauses} in training)")
    axes.set_ylabel("right totals, %")
    axes.legend(fontsize=7, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.tight_layout()
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.plot, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("outputs/pause-grid"), help="models and answers")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--length", type=int, default=12, help="digits to add")
    add("--layers", type=int, default=2)
    add("--hidden_size", type=int, default=64)
    add("--pretraining_rows", type=int, default=10000)
    add("--pretraining_steps", type=int, default=400)
    add("--pretraining_rate", type=float, default=2e-3)
    add("--fine_tuning_rows", type=int, default=6000)
    add("--fine_tuning_steps", type=int, default=300)
    add("--fine_tuning_rate", type=float, default=1e-3)
    add("--pauses", type=int, default=10, help="M in fine-tuning")
    add("--sweep", type=int, nargs="+", default=[0, 2, 5, 8, 9, 10, 11, 12, 15, 20], help="M at inference")
    add("--test_problems", type=int, default=500)
    add("--output", type=Path, default=None, help="write the figures as JSON to this file")
    add("--plot", type=Path, default=None, help="draw the sweep over M")
    args = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with guarded():
        grid(args)


if __name__ == "__main__":
    main()
