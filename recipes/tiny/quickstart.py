"""The whole pipeline on the embedded model: SFT → BASH and SFT → RAC, evaluated, their gap measured, one report.

    python recipes/tiny/quickstart.py [--output_dir outputs]              (or: make quickstart)

Runs what the command line runs, so it can be interrupted and started again. As a control the SFT model also trains
BASH's epochs on the reference contexts (BASH with mixture_coefficient 0 is SFT, exactly).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from gapbridge.cli import run, run_guarded


HERE = Path(__file__).parent
GAP_EXAMPLES = 200


def train(method: str, *options: str) -> None:
    run([method, str(HERE / method / "config_full.yaml"), *options])


def quickstart(output: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    console = Console()
    runs = {name: str(output / f"tiny-{name}") for name in ("sft", "sft-more", "bash", "rac")}
    start = ("--model_name_or_path", runs["sft"])
    console.rule("1/7  SFT")
    train("sft", "--output_dir", runs["sft"], *overrides)
    console.rule("2/7  BASH: 20 % of the context positions from the model itself")
    train("bash", *start, "--output_dir", runs["bash"], *overrides)
    console.rule("3/7  Control: SFT for BASH's epochs")
    control = ("--output_dir", runs["sft-more"], "--mixture_coefficient", "0")
    train("bash", *start, *control, *overrides)
    console.rule("4/7  RAC: from the model's own answer to the reference")
    train("rac", *start, "--output_dir", runs["rac"], *overrides)
    models = [part for run in runs.values() for part in ("--model", run)]
    shared = [*models, "--config", str(HERE / "rac" / "config_full.yaml"), "--output_dir", str(output)]
    shared += ["--max_completion_length", "128"]
    console.rule("5/7  First and corrected answers to held-out problems")
    run(["eval", "--task", "word_problems", "--mode", "both", *shared, *overrides])
    console.rule("6/7  The gap: how much each model is disturbed by its own words")
    gap = run(["gap", *shared, "--limit", str(GAP_EXAMPLES), *overrides]).with_name("gap.png")
    console.rule("7/7  Report")
    report = run(["report", *runs.values(), "--results", str(output), "--output_dir", str(output / "report")])
    minutes = (time.perf_counter() - started) / 60
    console.print(f"{minutes:.1f} minutes. To read: {report} and {gap}", soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to every recipe.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"))
    args, overrides = parser.parse_known_args()
    run_guarded(lambda: quickstart(args.output_dir, overrides))


if __name__ == "__main__":
    main()
