"""What a pretrained model costs here beside transformers and TRL: CPU seconds of one thread, side by side in one run.

    python benchmarks/real_model.py MODEL                                  # word problems, some minutes
    python benchmarks/real_model.py MODEL --data data/gsm8k --parts contexts completions

MODEL is a model's folder. DIR holds `train.jsonl` with the columns `prompt` and `completion`, as
recipes/smollm2-135m/make_data.py writes it. The parts:

contexts      `mix_contexts` against a plain forward pass over the same rows
completions   `generate_completions` against `model.generate`, on batches of prompts sorted by length, greedy
training      the SFT trainer of this package against TRL's, each in processes of its own: imports and loading,
              tokenization, steps, peak memory, a checkpoint, and the way from a checkpoint to the next step

Each part runs in turn with what it is compared with; medians are printed. A process's first step is left out.
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
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from drafting import ours, padded_generate
from mixing import Rows, machine_and_versions, reference_as_draft, teacher_forced, write_results
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from gapbridge import build_examples
from gapbridge.data.example import ExampleSet
from gapbridge.tasks.word_problems import problems


SIDES = ("TRL", "gapbridge")
MAX_LENGTH = 1024
PRECISIONS = ("autocast", "float32", "bfloat16")  # autocast: bfloat16 over weights in float32
Figures = dict[str, float]


def read_data(folder: Path | None, count: int) -> Dataset:
    """The first rows of a folder, or word problems, as one turn of the user and one of the assistant."""
    if folder is None:
        return Dataset.from_list([problem.row() for problem in problems("train", count=count)])
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    roles = {"prompt": "user", "completion": "assistant"}
    return Dataset.from_list(
        [{column: [{"role": role, "content": row[column]}] for column, role in roles.items()} for row in rows]
    )


def read_examples(args: argparse.Namespace, tokenizer: Any) -> ExampleSet:
    data = read_data(args.data, args.rows)
    return build_examples(data, tokenizer, stops=[tokenizer.eos_token_id], max_length=MAX_LENGTH)


def load_model(args: argparse.Namespace) -> Any:
    dtype = torch.bfloat16 if args.precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    with torch.no_grad(), autocast(args):
        model(input_ids=torch.ones(1, 8, dtype=torch.int64))  # what the first pass of a process takes is paid here
    return model


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "autocast")


def in_turn(ways: dict[str, Callable[[], Any]], args: argparse.Namespace) -> tuple[dict[str, list[float]], list[Any]]:
    """CPU seconds of each way in each repeat, and the last result of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            started = time.process_time()
            with autocast(args):
                results[name] = way()
            seconds[name].append(time.process_time() - started)
    return seconds, list(results.values())


def contexts(args: argparse.Namespace) -> dict[str, Any]:
    model, tokenizer = load_model(args), AutoTokenizer.from_pretrained(args.model)
    examples = read_examples(args, tokenizer)
    rows = Rows([list(e.prompt) for e in examples], [list(e.completion_ids) for e in examples], 0.2)
    seconds, (_, mixed) = in_turn(
        {
            "forward pass": lambda: teacher_forced(model, rows, args.batch_size),
            "mix_contexts": lambda: reference_as_draft(model, rows, args.batch_size, 16),
        },
        args,
    )
    size = sum(map(len, rows.references))
    replaced = sum(a != b for x, y in zip(mixed, rows.references, strict=True) for a, b in zip(x, y, strict=True))
    print(f"contexts: {len(examples)} rows, {size} tokens of references, {replaced / size:.1%} of them replaced")
    return {"seconds": seconds, "replaced": replaced / size}


def completions(args: argparse.Namespace) -> dict[str, Any]:
    model, tokenizer = load_model(args), AutoTokenizer.from_pretrained(args.model)
    examples, stops = read_examples(args, tokenizer), [tokenizer.eos_token_id]
    prompts = [list(example.generation_prompt_ids) for example in examples]
    options = (model, prompts, args.max_completion_length, stops, args.batch_size)
    seconds, found = in_turn(
        {"generate": lambda: padded_generate(*options), "generate_completions": lambda: ours(*options)}, args
    )
    lengths = [len(completion) for completion in found[0]]
    equal = sum(a == b for a, b in zip(*found, strict=True))
    print(
        f"completions: {len(prompts)} prompts of {statistics.mean(map(len, prompts)):.0f} tokens, completions of "
        f"{statistics.mean(lengths):.0f} tokens (longest {max(lengths)}), {equal} of them equal"
    )
    return {"seconds": seconds, "tokens": sum(lengths), "equal": equal}


class Clock(TrainerCallback):
    """CPU seconds of the process at the beginning and the end of each step, and after a checkpoint."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.saved = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.begins.append(time.process_time())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(time.process_time())

    def on_save(self, *_: object, **__: object) -> None:
        self.saved = time.process_time() - self.ends[-1]


def train(side: str, args: argparse.Namespace) -> Figures:
    """Some steps of one trainer in this process; one more after its checkpoint where there is one."""
    from trl import SFTConfig, SFTTrainer

    from gapbridge.methods.sft.trainer import GapSFTConfig, GapSFTTrainer

    make_config, make_trainer = (SFTConfig, SFTTrainer) if side == "TRL" else (GapSFTConfig, GapSFTTrainer)
    model, tokenizer = load_model(args), AutoTokenizer.from_pretrained(args.model)
    loaded = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = args.work / f"checkpoint-{args.steps}"
    resumes = checkpoint.is_dir()
    steps = args.steps + resumes
    config = make_config(
        str(args.work), use_cpu=True, bf16=args.precision == "autocast", gradient_checkpointing=False,
        per_device_train_batch_size=args.train_batch_size, max_steps=steps, save_strategy="steps", save_steps=steps,
        save_total_limit=1, max_length=MAX_LENGTH, report_to="none", disable_tqdm=True, seed=1, learning_rate=1e-5,
    )  # fmt: skip
    data, clock = read_data(args.data, args.tokenized_rows), Clock()
    started = time.process_time()
    trainer = make_trainer(model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock])
    assert len(trainer.train_dataset) == len(data)
    tokenized = time.process_time() - started
    trainer.train(resume_from_checkpoint=str(checkpoint) if resumes else None)
    if resumes:
        return {"resumed: to the first step": clock.begins[0]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "imports and loading": loaded,
        f"tokenization of {len(data)} rows": tokenized,
        "to the first step": clock.begins[0],
        "step": statistics.median(end - begin for begin, end in zip(clock.begins[1:], clock.ends[1:], strict=True)),
        "checkpoint": clock.saved,
        "peak memory, GB": peak / 1e6,  # in kB on Linux
        "peak memory beyond the model, GB": (peak - before) / 1e6,
    }


def training(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[Figures]] = {side: [] for side in SIDES}
    for _ in range(args.training_repeats):
        for side in SIDES:
            with tempfile.TemporaryDirectory() as folder:  # in which nothing was tokenized before
                command = [sys.executable, *sys.argv, "--worker", side, "--work", f"{folder}/run"]
                environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"}
                figures: Figures = {}
                for _ in ("start", "resume"):
                    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
                    figures |= json.loads(result.stdout.splitlines()[-1])
                found[side].append(figures)
    return {side: {name: [run[name] for run in runs] for name in runs[0]} for side, runs in found.items()}


def print_table(title: str, columns: dict[str, dict[str, list[float]]]) -> None:
    """Medians of two columns, and the median of their ratios in the same turn."""
    (left, first), (right, second) = columns.items()
    print(f"\n| {title} | {left} | {right} | {right} ÷ {left} |\n|---|---|---|---|")
    for name, values in first.items():
        ratio = statistics.median(b / a for a, b in zip(values, second[name], strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {statistics.median(second[name]):.2f} | {ratio:.2f} |")


PARTS = {"contexts": contexts, "completions": completions, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--data", type=Path, metavar="DIR", help="default: word problems")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="autocast: bfloat16 over float32"
    )
    parser.add_argument("--rows", type=int, default=32, help="of contexts and completions (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="of the same (default: %(default)s)")
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--train_batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tokenized_rows", type=int, default=500)
    parser.add_argument("--training_repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON to this file")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        with contextlib.redirect_stdout(sys.stderr):
            figures = train(args.worker, args)
        print(json.dumps(figures))
        return
    found = {part: PARTS[part](args) for part in args.parts}
    machine, versions = machine_and_versions("cpu", args.threads)
    print(f"{args.model}, {args.precision}; {machine}; {versions}; CPU seconds")
    for part, figures in found.items():
        columns = figures if part == "training" else {n: {part: taken} for n, taken in figures["seconds"].items()}
        print_table(part, columns)
    write_results(args, machine, versions, found)


if __name__ == "__main__":
    main()
