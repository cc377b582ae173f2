"""Does the way of the data scale? Seconds and memory of start, contexts, rows and resume, and their exponents.

    python benchmarks/scaling.py                              # all four axes, about ten minutes of CPU time
    python benchmarks/scaling.py --axes rows --rows 2000 20000
    python benchmarks/scaling.py --axes vocabulary --output benchmarks/results/scaling-vocabulary.json

Synthetic ids, a random model of one layer and BASH. Along `rows`, `length` and `processes` a stand-in draws the
contexts (the reference with a fifth of its tokens replaced at random): what is measured is the data's way and not the
model. Along `vocabulary` the model draws. Every start is a process of its own, or several:

    start     the data become examples, on disk
    contexts  they are drawn into the store
    rows      rows are made of both, on disk
    resume    another start, from nothing in memory to the end of the first training step, the model loaded

Seconds are CPU seconds of process 0 and its workers (of all processes for contexts), which other work on the machine
changes little; the wall seconds stand beside them in the JSON. Memory is the peak within a stage beyond what there is
with the model loaded, of the process that has most: `own` is what no other process can share (Private_Dirty of
/proc/self/smaps_rollup), `private` adds pages of files that no other process happens to map. The exponent is the slope
of log seconds over log tokens between the two largest sizes, below which fixed costs weigh.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from mixing import BASE, machine_and_versions, write_results
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gapbridge.data.arrow_files import chunk_rows, new_table, write_parts
from gapbridge.data.example import Example, ExampleSet
from gapbridge.data.serialization import load_saved_examples, save_examples
from gapbridge.methods.bash.trainer import BASHConfig, BASHTrainer
from gapbridge.store.generate_shards import Columns, GenerationSpec, Progress
from gapbridge.training.artifact_cache import (
    artifact_identity,
    built_once,
    cache_key_settings,
    examples_path,
)
from gapbridge.training.dataset_builder import build_and_cache_rows, generate_pending_contexts, open_context_stores


STAGES = ("start", "contexts", "rows", "resume")
SMALL_VOCABULARY = 512
WORDS = (40, 240)  # ids of the tokenizer that are words


class StandInTrainer(BASHTrainer):
    """BASH whose contexts cost nothing to draw."""

    @classmethod
    def generation_spec(cls, model: Any, tokenizer: Any, examples: ExampleSet, args: Any) -> GenerationSpec | None:
        real = super().generation_spec(model, tokenizer, examples, args)
        return None if real is None else replace(real, generate=_random_contexts)


def _random_contexts(examples: list[Example], on_finished: Progress) -> Columns:
    generator = np.random.default_rng(len(examples))
    tokens, sampled = [], []
    for example in examples:
        reference = np.array(example.completion_ids)
        sampling_mask = generator.random(len(reference)) < 0.2
        sampling_mask[-1] = False
        tokens.append(np.where(sampling_mask, generator.integers(*WORDS, len(reference)), reference).tolist())
        sampled.append(sampling_mask.tolist())
        on_finished(1)
    return {"id": [example.id for example in examples], "tokens": tokens, "sampled": sampled}


def synthetic_data(path: Path, rows: int, length: int, eos: int) -> None:
    """Rows of ids, a quarter of each the prompt."""
    generator = np.random.default_rng(0)
    prompt = length // 4

    def made() -> Iterator[dict[str, Any]]:
        for _ in range(rows):
            ids = generator.integers(*WORDS, length).tolist()
            ids[-1] = eos
            yield {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}

    features = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
    with new_table(path) as (file, _):
        write_parts(file, chunk_rows(made(), features), features.arrow_schema)


class Meter:
    """Seconds and peak memory of stages, one after the other."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}
        self._before, self._peak = _memory(), _memory()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._look()
            time.sleep(0.05)

    def _look(self) -> None:
        self._peak = {name: max(value, self._peak[name]) for name, value in _memory().items()}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._peak = _memory()
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        yield
        self._look()
        self.figures[name] = {
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": sum(os.times()[:4]) - cpu,
            **{f"{kind}_mib": value - self._before[kind] for kind, value in self._peak.items()},
        }


def _memory() -> dict[str, float]:
    """MiB that this process has to itself."""
    told = dict(re.findall(r"(Private_\w+):\s+(\d+)", Path("/proc/self/smaps_rollup").read_text()))
    own = int(told["Private_Dirty"]) / 1024
    return {"own": own, "private": own + int(told["Private_Clean"]) / 1024}


def measure(stage: str, args: argparse.Namespace) -> dict[str, Any]:
    """The stages of a first start, or a resume, in this process."""
    folder, length = Path(args.folder), args.length[0]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=args.vocabulary[0], max_position_embeddings=length, bos_token_id=None, **shape)
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    config = BASHConfig(
        str(folder / "run"), use_cpu=True, bf16=False, max_length=length, max_steps=1, report_to="none",
        save_strategy="no", per_device_train_batch_size=2, gradient_checkpointing=False, disable_tqdm=True,
        dataset_num_proc=args.workers,
    )  # fmt: skip
    method = BASHTrainer if args.generates_contexts else StandInTrainer
    data = Dataset.from_file(str(folder / "data.arrow"))
    meter = Meter()
    if stage == "resume":
        with meter.stage("resume"):
            trainer = method(model, args=config, train_dataset=data, processing_class=tokenizer)
            trainer.train()
        return meter.figures
    with meter.stage("start"):
        path = examples_path("train", data, artifact_identity(method, tokenizer, model, cache_key_settings(config)))
        with built_once(path, config, each_machine=True) as builds:
            if builds:
                read = method.load_examples(data, tokenizer, model, config, "train_dataset", max_length=length)
                save_examples(read, path)
        examples = load_saved_examples(path, method.example_set)
    with meter.stage("contexts"):
        generation = open_context_stores(method, model, tokenizer, {"train": examples}, config)["train"]
        generate_pending_contexts(generation, examples, config)
    with meter.stage("rows"):
        shared = artifact_identity(method, tokenizer, model, cache_key_settings(config))
        build_and_cache_rows(method, "train", examples, tokenizer, config, shared, generation)
    return meter.figures


def in_processes(stage: str, folder: Path, count: int, args: argparse.Namespace, **size: int) -> list[dict[str, Any]]:
    """The figures of each of `count` processes that work together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--worker", stage, "--folder", str(folder)]
    command += ["--length", str(size["length"]), "--vocabulary", str(size["vocabulary"])]
    command += ["--threads", str(args.threads), *(["--draws"] if args.generates_contexts else [])]
    command += ["--workers", str(args.workers)] if args.workers else []
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    started = []
    for rank in range(count):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"} if count > 1 else {}
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **own}
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    figures = []
    for process in started:
        output = process.communicate()[0]
        lines = [line for line in output.splitlines() if line.startswith('{"')]
        if process.returncode or not lines:
            raise SystemExit(f"{stage} of {size} in {count} processes: exit code {process.returncode}")
        figures.append(json.loads(lines[-1]))
    return figures


def measure_size(args: argparse.Namespace, rows: int, length: int, processes: int, vocabulary: int) -> dict[str, Any]:
    """A first start and a resume of one size."""
    size = {"rows": rows, "length": length, "processes": processes, "vocabulary": vocabulary}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        synthetic_data(folder / "data.arrow", rows, length, AutoTokenizer.from_pretrained(BASE).eos_token_id)
        found: dict[str, Any] = {**size, "tokens": rows * length, "stages": {}}
        for start in ("first", "resume"):
            for rank, figures in enumerate(in_processes(start, folder, processes, args, **size)):
                for name, row in figures.items():
                    before = found["stages"].setdefault(name, row)
                    kinds = ("own_mib", "private_mib")
                    found["stages"][name] = {**before, **{kind: max(before[kind], row[kind]) for kind in kinds}}
                    if rank and name == "contexts":  # all draw; the rest is the work of process 0
                        found["stages"][name]["cpu_seconds"] += row["cpu_seconds"]
    parts = [
        f"{name} {row['cpu_seconds']:.1f} s ({row['wall_seconds']:.1f}), own {row['own_mib']:.0f} MiB"
        for name, row in found["stages"].items()
    ]
    print(f"{rows} × {length}, {processes} process(es), vocabulary {vocabulary}: {'; '.join(parts)}", flush=True)
    return found


def fitted(found: list[dict[str, Any]], along: str) -> dict[str, dict[str, float]]:
    """Of each stage the exponent of CPU seconds, and bytes of memory per unit added, between the two largest sizes."""
    small, large = sorted(found, key=lambda size: size[along])[-2:]
    ratio = math.log(large[along] / small[along])
    fits = {}
    for name in STAGES:
        a, b = small["stages"][name], large["stages"][name]
        more = large[along] - small[along]
        fits[name] = {
            "exponent": round(math.log(b["cpu_seconds"] / a["cpu_seconds"]) / ratio, 3),
            "own_bytes": round((b["own_mib"] - a["own_mib"]) * 2**20 / more, 2),
            "private_bytes": round((b["private_mib"] - a["private_mib"]) * 2**20 / more, 2),
        }
    return fits


def scaling(args: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    args.generates_contexts = False
    middle = args.rows[0]
    if "rows" in args.axes:
        found["rows"] = [measure_size(args, rows, args.row_length, 1, SMALL_VOCABULARY) for rows in args.rows]
    if "length" in args.axes:
        found["length"] = [measure_size(args, middle, length, 1, SMALL_VOCABULARY) for length in args.length]
    if "processes" in args.axes:
        found["processes"] = [
            measure_size(args, 4 * middle, args.row_length, count, SMALL_VOCABULARY) for count in args.processes
        ]
    if "vocabulary" in args.axes:
        args.generates_contexts = True
        found["vocabulary"] = [measure_size(args, args.drawn_rows, 64, 1, size) for size in args.vocabulary]
    unit = {"rows": "tokens", "length": "tokens", "vocabulary": "vocabulary"}
    fits = {axis: fitted(found[axis], unit[axis]) for axis in found if axis in unit and len(found[axis]) > 1}
    for axis, stages in fits.items():
        print(f"\n| along {axis} | exponent of CPU seconds | own bytes a {unit[axis]} | private |\n|---|---|---|---|")
        for name, fit in stages.items():
            print(f"| {name} | {fit['exponent']:.2f} | {fit['own_bytes']:.2f} | {fit['private_bytes']:.2f} |")
    machine, versions = machine_and_versions("cpu", args.threads)
    print(f"{machine}; {versions}")
    write_results(args, machine, versions, {"sizes": found, "fits": fits})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("--axes", nargs="+", default=["rows", "length", "processes", "vocabulary"])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--row_length", type=int, default=500, help="along rows and processes")
    parser.add_argument("--length", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_768, 131_072, 262_144])
    parser.add_argument("--drawn_rows", type=int, default=64, help="along vocabulary, where the model draws")
    parser.add_argument("--workers", type=int, help="dataset_num_proc")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="a directory with room for 40 bytes a token")
    parser.add_argument("--output", type=Path, help="a JSON file")
    parser.add_argument("--worker", choices=["first", "resume"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--draws", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        with contextlib.redirect_stdout(sys.stderr):
            figures = measure(args.worker, args)
        print(json.dumps(figures))
    else:
        scaling(args)


if __name__ == "__main__":
    main()
