"""What do RAC's choices do on the tiny task? `sft_fraction`, the request, one round or two, three seeds.

    python benchmarks/rac_ablation.py --output benchmarks/results/rac-ablation-tiny-cpu.json

Each seed has its own SFT run (recipes/tiny/sft) and, for each choice, one RAC run of two rounds (recipes/tiny/rac);
the model of round 1 is what a run of one round gives. Every model answers the held-out problems greedily and corrects
its answers; `corrected - direct` is the paired difference over problems and seeds. Runs that are complete are not
repeated: start again to continue.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixing import machine_and_versions, write_results

from gapbridge.cli import guarded
from gapbridge.evaluation.math import correction_table, is_correct
from gapbridge.files import write_json_atomic
from gapbridge.intervals import mean_interval, paired_difference
from gapbridge.methods.rac.config import CORRECTION_PROMPT
from gapbridge.methods.rac.correct import correct
from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train


CUES = {"check": CORRECTION_PROMPT, "again": "Answer again."}
REFERENCE_ROWS = (0.0, 0.25, 0.5)
ROUNDS = (1, 2)


def answers(recipe: list[str], model_path: Path, cue: str, cache: Path) -> dict[str, list[str]]:
    """First and corrected answers of a model to the held-out problems, kept in `cache`."""
    if cache.exists():
        remaining: dict[str, list[str]] = json.loads(cache.read_text(encoding="utf-8"))
        return remaining
    job = read_job(recipe)
    model, tokenizer = load_initial_model(job, model_path)
    examples = list(load_examples(job, tokenizer, model)["eval"])
    corrections = correct(
        model,
        tokenizer,
        [example.prompt for example in examples],
        ids=[example.id for example in examples],
        correction_prompt=cue,
        max_completion_length=128,
    )
    record = {
        "reference": [tokenizer.decode(example.completion_ids, skip_special_tokens=True) for example in examples],
        "first": [correction.first for correction in corrections],
        "corrected": [correction.corrected for correction in corrections],
    }
    write_json_atomic(cache, record)
    return record


def train_and_answer(output: Path, seed: int, overrides: list[str]) -> dict[tuple[float, str, int], dict[str, Any]]:
    """Every choice for one seed → its answers."""
    sft = output / f"seed-{seed}" / "sft"
    common = [
        "--seed",
        str(seed),
        "--report_to",
        "none",
        "--disable_tqdm",
        "true",
        "--eval_strategy",
        "no",
        *overrides,
    ]
    train(read_job(["--config", "recipes/tiny/sft/config_full.yaml", "--output_dir", str(sft), *common]))
    found = {}
    for share, name in itertools.product(REFERENCE_ROWS, CUES):
        run = output / f"seed-{seed}" / f"rac-{share}-{name}"
        recipe = ["--config", "recipes/tiny/rac/config_full.yaml", "--model_name_or_path", str(sft)]
        recipe += ["--output_dir", str(run), "--sft_fraction", str(share), "--correction_prompt", CUES[name]]
        recipe += ["--num_rounds", str(max(ROUNDS)), *common, "--eval_on_start", "false"]
        train(read_job(recipe))
        evaluated = [*recipe, "--eval_strategy", "epoch"]
        for rounds in ROUNDS:
            cache = output / f"seed-{seed}" / f"answers-{share}-{name}-{rounds}.json"
            found[share, name, rounds] = answers(evaluated, run / f"round_{rounds}" / "model", CUES[name], cache)
    return found


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy over the problems of all seeds, per seed, and what the correction did."""

    def graded(record: dict[str, Any], key: str) -> list[bool]:
        return [is_correct(a, y) for a, y in zip(record[key], record["reference"], strict=True)]

    first, second = [graded(r, "first") for r in records], [graded(r, "corrected") for r in records]
    tables = [correction_table(a, b) for a, b in zip(first, second, strict=True)]
    # The problems are the same for all seeds: a problem is resampled with its answers of every seed.
    mean_first, mean_second = np.mean(first, axis=0), np.mean(second, axis=0)
    return {
        "direct": vars(mean_interval(mean_first)),
        "corrected": vars(mean_interval(mean_second)),
        "difference": vars(paired_difference(mean_first, mean_second)),
        "direct_by_seed": [float(np.mean(one)) for one in first],
        "corrected_by_seed": [float(np.mean(one)) for one in second],
        "wrong_to_right": [table["wrong_to_right"] for table in tables],
        "right_to_wrong": [table["right_to_wrong"] for table in tables],
    }


def ablation(args: argparse.Namespace, overrides: list[str]) -> None:
    found = [train_and_answer(args.output_dir, seed, overrides) for seed in args.seeds]
    machine, versions = machine_and_versions("cpu", args.threads)
    print(f"recipes/tiny, seeds {args.seeds}; {machine}; {versions}; accuracy in % with 95 % interval")
    print(f"{'sft_fraction':>14} {'request':>8} {'rounds':>6} {'direct':>22} {'corrected':>22} "
          f"{'corrected - direct':>22} {'wrong→right':>14} {'right→wrong':>14}")  # fmt: skip
    report = {}
    for share, name, rounds in itertools.product(REFERENCE_ROWS, CUES, ROUNDS):
        row = summary([of_seed[share, name, rounds] for of_seed in found])
        report[f"sft_fraction {share}, request {name}, rounds {rounds}"] = row
        cells = [f"{100 * row[k]['mean']:.1f} [{100 * row[k]['low']:.1f}, {100 * row[k]['high']:.1f}]"
                 for k in ("direct", "corrected", "difference")]  # fmt: skip
        counts = [", ".join(map(str, row[k])) for k in ("wrong_to_right", "right_to_wrong")]
        print(f"{share:>14} {name:>8} {rounds:>6} {cells[0]:>22} {cells[1]:>22} {cells[2]:>22} "
              f"{counts[0]:>14} {counts[1]:>14}")  # fmt: skip
    write_results(args, machine, versions, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to every recipe.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/rac-ablation"), help="runs and answers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="also write the figures as JSON to this file")
    args, overrides = parser.parse_known_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with guarded():
        ablation(args, overrides)


if __name__ == "__main__":
    main()
