"""The whole pipeline on the embedded model: SFT → BASH and SFT → RAC, all evaluated, one table.

    python recipes/tiny/quickstart.py [--output_dir outputs]              (or: make quickstart)

Runs the recipes of this folder as the command line does, so it can be interrupted and started again. As a control the
SFT model also trains BASH's epochs on the reference contexts (BASH with mixture_coefficient 0 is SFT, exactly).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gapbridge.cli import run_guarded
from gapbridge.decoding import draft_answers
from gapbridge.evaluation.math import accuracy, correction_table
from gapbridge.examples import stop_tokens
from gapbridge.files import write_json_atomic, write_text_atomic
from gapbridge.loading import load_model
from gapbridge.pipeline import Job, load_examples, load_start, read_job, run_rounds_of, run_sft
from gapbridge.rac import correct
from gapbridge.report import read_metrics, write_report


HERE = Path(__file__).parent
MAX_COMPLETION_LENGTH = 128
COLUMNS = ("model", "direct, greedy", "direct, temperature 1", "corrected, greedy", "wrong→right", "right→wrong")
LOSSES = ("run", "loss on reference contexts", "loss on own contexts")


def job_for(method: str, *options: str) -> Job:
    return read_job(["--config", str(HERE / method / "config_full.yaml"), *options], method)


def evaluate(job: Job, path: Path, name: str) -> dict[str, Any]:
    """Accuracy of first and corrected answers on the held-out problems."""
    _, tokenizer = load_start(job, path)
    model = load_model(path, job.args)
    examples = list(load_examples(job, tokenizer, model)["eval"])
    references = [tokenizer.decode(example.reference, skip_special_tokens=True) for example in examples]
    prompts = [example.prompt for example in examples]
    options = {"max_completion_length": MAX_COMPLETION_LENGTH, "ids": [example.id for example in examples]}
    sampled = draft_answers(model, prompts, temperature=1.0, stop_tokens=stop_tokens(tokenizer, model), **options)
    answers = correct(model, tokenizer, prompts, **options)
    first, corrected = [a.first for a in answers], [a.corrected for a in answers]
    return {
        "model": name,
        "direct": accuracy(first, references),
        "sampled": accuracy([tokenizer.decode(d.tokens, skip_special_tokens=True) for d in sampled], references),
        "corrected": accuracy(corrected, references),
        "table": correction_table(first, corrected, references),
    }


def start_and_end(stage: Path, key: str) -> str:
    values = [entry[key] for entry in read_metrics(stage) if key in entry]
    return f"{values[0]:.4f} → {values[-1]:.4f}" if values else "–"


def show(console: Console, title: str, head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Print a table and return it as Markdown."""
    table = Table(title=title, title_justify="left")
    for column in head:
        table.add_column(column, justify="left" if column == head[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return [title, "", *lines, ""]


def quickstart(output: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    console = Console() if Console().is_terminal else Console(width=140)
    runs = {name: output / f"tiny-{name}" for name in ("sft", "sft-more", "bash", "rac")}
    start = ("--model_name_or_path", str(runs["sft"]))
    console.rule("1/5  SFT")
    run_sft(job_for("sft", "--output_dir", str(runs["sft"]), *overrides))
    console.rule("2/5  BASH: 20 % of the context positions from the model itself")
    run_rounds_of(job_for("bash", *start, "--output_dir", str(runs["bash"]), *overrides))
    console.rule("3/5  Control: SFT for BASH's epochs")
    control = ("--output_dir", str(runs["sft-more"]), "--mixture_coefficient", "0")
    run_rounds_of(job_for("bash", *start, *control, *overrides))
    console.rule("4/5  RAC: from the model's own answer to the reference")
    run_rounds_of(job_for("rac", *start, "--output_dir", str(runs["rac"]), *overrides))
    console.rule("5/5  Evaluation on held-out problems")
    names = {"sft": "SFT", "sft-more": "SFT → SFT (control)", "bash": "SFT → BASH", "rac": "SFT → RAC"}
    job = job_for("bash", *start, "--output_dir", str(runs["bash"]), *overrides)
    results = [evaluate(job, runs[key], name) for key, name in names.items()]
    cells = [
        [r["model"], str(r["direct"]), str(r["sampled"]), str(r["corrected"]), str(r["table"].wrong_to_right),
         str(r["table"].right_to_wrong)]
        for r in results
    ]  # fmt: skip
    count = results[0]["direct"].count
    lines = show(console, f"{count} held-out four-step problems: accuracy [95 % interval]", COLUMNS, cells)
    losses = [
        [names[key], *(start_and_end(runs[key] / "round_1", name) for name in ("eval_loss", "eval_own_loss"))]
        for key in ("sft-more", "bash", "rac")
    ]
    lines += show(console, "Held-out loss before → after, nats per token", LOSSES, losses)
    for key in ("bash", "rac"):
        report = write_report(runs[key])
        write_text_atomic(report, report.read_text(encoding="utf-8") + "\n## Evaluation\n\n" + "\n".join(lines))
    record = {r["model"]: {key: vars(r[key]) for key in ("direct", "sampled", "corrected", "table")} for r in results}
    write_json_atomic(output / "quickstart.json", record)
    minutes = (time.perf_counter() - started) / 60
    to_read = [
        runs["bash"] / "report.md",
        runs["bash"] / "loss.png",
        runs["rac"] / "report.md",
        output / "quickstart.json",
    ]
    console.print(f"{minutes:.1f} minutes. To read: {', '.join(map(str, to_read))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to every recipe.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"))
    args, overrides = parser.parse_known_args()
    run_guarded(lambda: quickstart(args.output_dir, overrides))


if __name__ == "__main__":
    main()
