"""The whole pipeline on the embedded model: SFT → BASH, both evaluated, one table.

    python recipes/tiny/quickstart.py [--output_dir outputs]              (or: make quickstart)

Runs the recipes of this folder through the command line's own functions, so it can be interrupted and started again.
As a control the SFT model also trains the same epochs once more on the reference contexts (BASH with
mixture_coefficient 0 is SFT, exactly).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gapbridge.cli import run_guarded
from gapbridge.evaluation.answers import generate_answers
from gapbridge.evaluation.math import Accuracy, accuracy
from gapbridge.files import write_json_atomic, write_text_atomic
from gapbridge.loading import load_model
from gapbridge.pipeline import Job, load_examples, load_start, read_job, run_rounds_of, run_sft
from gapbridge.report import read_metrics, write_report


HERE = Path(__file__).parent
MAX_COMPLETION_LENGTH = 128


def job_for(method: str, recipe: str, *options: str) -> Job:
    return read_job(["--config", str(HERE / recipe / "config_full.yaml"), *options], method)


def evaluate(job: Job, model_path: Path) -> dict[str, Accuracy]:
    """Greedy and sampled accuracy on the held-out problems."""
    _, tokenizer = load_start(job, model_path)
    model = load_model(model_path, job.args)
    examples = list(load_examples(job, tokenizer, model)["eval"])
    references = [tokenizer.decode(example.reference, skip_special_tokens=True) for example in examples]
    result = {}
    for name, temperature in (("greedy", 0.0), ("temperature 1", 1.0)):
        answers = generate_answers(
            model, tokenizer, [example.prompt for example in examples],
            max_completion_length=MAX_COMPLETION_LENGTH, temperature=temperature,
            description=f"{model_path.name}, {name}",
        )  # fmt: skip
        result[name] = accuracy(answers, references)
    return result


def losses(stage: Path, *, at_start: bool) -> tuple[float, float | None]:
    """Held-out loss on reference and on own contexts, at the start or the end of a stage."""
    entries = read_metrics(stage)
    entries = entries if not at_start else entries[::-1]
    reference = next(entry["eval_loss"] for entry in reversed(entries) if "eval_loss" in entry)
    return reference, next((entry["eval_own_loss"] for entry in reversed(entries) if "eval_own_loss" in entry), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"))
    args, overrides = parser.parse_known_args()
    run_guarded(lambda: quickstart(args.output_dir, overrides))


def quickstart(output: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    console = Console()
    sft, bash, control = output / "tiny-sft", output / "tiny-bash", output / "tiny-sft-more"
    console.rule("1/4  SFT")
    run_sft(job_for("sft", "sft", "--output_dir", str(sft), *overrides))
    console.rule("2/4  BASH on top: 20 % of the context positions from the model itself")
    start = ("--model_name_or_path", str(sft))
    run_rounds_of(job_for("bash", "bash", *start, "--output_dir", str(bash), *overrides))
    console.rule("3/4  Control: SFT for the same epochs instead")
    run_rounds_of(
        job_for("bash", "bash", *start, "--output_dir", str(control), "--mixture_coefficient", "0", *overrides)
    )
    console.rule("4/4  Evaluation on held-out problems")
    job = job_for("bash", "bash", *start, "--output_dir", str(bash), *overrides)
    before, after = losses(bash / "round_1", at_start=True), losses(bash / "round_1", at_start=False)
    rows = [
        ("SFT", evaluate(job, sft), before),
        ("SFT → SFT (control)", evaluate(job, control), (losses(control / "round_1", at_start=False)[0], None)),
        ("SFT → BASH", evaluate(job, bash), after),
    ]
    table = Table(title="Held-out four-step problems: accuracy with 95 % interval, loss in nats per token")
    for column in ("model", "greedy", "temperature 1", "loss, reference contexts", "loss, own contexts"):
        table.add_column(column, justify="left" if column == "model" else "right")
    cells = [
        [name, str(acc["greedy"]), str(acc["temperature 1"]), f"{reference:.4f}", "–" if own is None else f"{own:.4f}"]
        for name, acc, (reference, own) in rows
    ]
    for row in cells:
        table.add_row(*row)
    console.print(table)
    console.print(
        "own contexts: held-out answers into which the SFT model mixed its own tokens (β = 0.2), the same for both "
        "models"
    )
    lines = [
        "| model | greedy | temperature 1 | loss, reference contexts | loss, own contexts |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    report = write_report(bash)
    write_text_atomic(report, report.read_text(encoding="utf-8") + "\n## Evaluation\n\n" + "\n".join(lines) + "\n")
    record = {name: {key: vars(value) for key, value in acc.items()} for name, acc, _ in rows}
    write_json_atomic(output / "quickstart.json", record)
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"{minutes:.1f} minutes. Report: {report}   Loss curves: {bash / 'loss.png'}   Figures: "
        f"{output / 'quickstart.json'}"
    )


if __name__ == "__main__":
    main()
