"""RAC and BASH in minutes on the embedded model: two comparisons, one figure, one page.

    python recipes/tiny/quickstart.py [--output_dir outputs/quickstart]              (or: make quickstart)

`answer_first`: word problems whose result stands before its reasoning; RAC, first and corrected answer, against SFT at
equal compute. `word_problems`: the reasoning first; BASH against SFT and against random tokens, generated freely and
after forced errors. Each is a `gapbridge compare --experiment_config` of `benchmarks/evidence/quickstart` in its own
process. An interrupted one resumes when it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from gapbridge.cli import guarded
from gapbridge.errors import RunError
from gapbridge.files import write_json_atomic, write_text_atomic
from gapbridge.reporting.page import PAGE_MARK
from gapbridge.reporting.plots import COLOURS, new_figure, save


EXPERIMENTS = ("answer_first", "word_problems")
FOLDER = Path("benchmarks") / "evidence" / "quickstart"
Rows = dict[str, dict[str, float]]  # variant, and mode where it is another than direct → score → mean


def compare(output: Path, overrides: list[str], console: Console) -> None:
    """Both comparisons, side by side where there are two cores; the lines that say what is going on are shown.

    Raises:
        RunError: one of them failed, as its log says.
    """
    cores = os.cpu_count() or 1
    at_once = min(cores, len(EXPERIMENTS))
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // at_once // 2))}
    waiting = list(EXPERIMENTS)
    running: dict[str, tuple[subprocess.Popen[bytes], Path, int]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            log = output / f"{name}.log"
            words = [
                "compare",
                "--experiment_config",
                str(FOLDER / f"{name}.yaml"),
                "--output_dir",
                str(output / name),
            ]
            with open(log, "w", encoding="utf-8") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "gapbridge", *words, "--disable_tqdm", "true", *overrides],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            running[name] = (process, log, 0)
        time.sleep(1)
        for name, (process, log, shown) in list(running.items()):
            code = process.poll()
            steps = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if _is_step(line)]
            for line in steps[shown:]:
                console.print(f"{name}: {line}", highlight=False)
            running[name] = (process, log, len(steps))
            if code:
                for other, _, _ in running.values():
                    other.terminate()
                raise RunError(f"{name}: ended with code {code}; see {log}. The same command continues")
            if code == 0:
                del running[name]


def _is_step(line: str) -> bool:
    return line.startswith("seed ")


def means(record: dict[str, Any]) -> Rows:
    rows: Rows = {}
    for row in record["rows"]:
        variant = (
            row["variant"] if row["decoding_mode"] == "single_pass" else f"{row['variant']}, {row['decoding_mode']}"
        )
        rows[variant] = {key: entry["mean"] for key, entry in {**row["scores"], **row["figures"]}.items()}
    return rows


def in_words(first: Rows, worked: Rows) -> str:
    """The conclusion in words, from the measured values alone."""

    def per_cent(rows: Rows, variant: str, score: str) -> float:
        return 100 * rows[variant][score]

    greedy, sampled = "accuracy, greedy", "accuracy, T = 1"
    shared, own, result = (
        "forced_errors.tokens_recovered",
        "own_forced_errors.tokens_recovered",
        "forced_errors.final_right",
    )
    gain = per_cent(first, "rac, self_correct", greedy) - per_cent(first, "rac", greedy)

    def beside(score: str) -> str:
        bash, sft, noise = (per_cent(worked, variant, score) for variant in ("bash", "sft", "noise"))
        return f"{bash:.1f} % (SFT {sft:.1f}, random tokens {noise:.1f})"

    return (
        f"**Result before its reasoning.** SFT answers {per_cent(first, 'sft', greedy):.1f} % of the problems "
        f"correctly, RAC's first answer {per_cent(first, 'rac', greedy):.1f} %, and its corrected answer "
        f"{per_cent(first, 'rac, self_correct', greedy):.1f} % ({gain:+.1f} points). The generated completion "
        f"contains "
        "the reasoning that the first number needs. A model that may write its reasoning first needs no RAC: SFT "
        f"alone has {per_cent(worked, 'sft', greedy):.1f} % correct there.\n\n"
        "**Reasoning before the result.** After a forced wrong token, the same for all models, BASH continues as the "
        f"reference does in {beside(shared)} of the tokens and reaches the correct result in {beside(result)}. After "
        f"wrong tokens of its own choice it recovers {beside(own)} of the tokens: a method can change which errors a "
        f"model makes without changing what follows them. Without an error it is correct in {beside(greedy)} greedily "
        f"and in {beside(sampled)} at temperature 1.\n\n"
        "This is one seed, and another seed moves the figures by several points. `docs/research/results.md` has the "
        "confirmed results."
    )


def draw(first: Rows, worked: Rows, path: Path) -> None:
    figure, (left, right) = new_figure(1, 2)
    bars = {
        "SFT": first["sft"], "RAC, first answer": first["rac"], "RAC, corrected": first["rac, self_correct"],
    }  # fmt: skip
    heights = [100 * row["accuracy, greedy"] for row in bars.values()]
    left.bar(list(bars), heights, color=[COLOURS[6], COLOURS[5], COLOURS[0]], width=0.6)
    left.axhline(100 * worked["sft"]["accuracy, greedy"], color="0.4", ls="--", lw=1)
    left.text(-0.4, 100 * worked["sft"]["accuracy, greedy"] + 1.5, "SFT, reasoning first", fontsize=8, color="0.3")
    left.set_title("Result before its reasoning", fontsize=10)
    left.set_ylabel("correct answers, % (higher is better)")
    left.set_ylim(0, 100)
    for at, height in enumerate(heights):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # it may lie on the dashed line
        left.text(at, height + 1.5, f"{height:.0f}", ha="center", fontsize=9, bbox=box)
    measures = {
        "recovered tokens\nafter a\nforced error": "forced_errors.tokens_recovered",
        "correct result\nafter a\nforced error": "forced_errors.final_right",
        "correct,\ngreedy": "accuracy, greedy",
        "correct,\ntemperature 1": "accuracy, T = 1",
    }
    for number, (variant, label) in enumerate({"sft": "SFT", "noise": "random tokens", "bash": "BASH"}.items()):
        values = [100 * worked[variant][measure] for measure in measures.values()]
        places = [at + 0.27 * (number - 1) for at in range(len(measures))]
        right.bar(places, values, width=0.25, label=label, color=[COLOURS[6], COLOURS[4], COLOURS[1]][number])
        for place, value in zip(places, values, strict=True):
            right.text(place, value + 1, f"{value:.0f}", ha="center", fontsize=8)
    right.set_xticks(range(len(measures)), list(measures), fontsize=9)
    right.set_title("Reasoning before the result", fontsize=10)
    right.set_ylabel("% (higher is better)")
    right.legend(frameon=False, fontsize=9, loc="upper center", ncols=3)
    right.set_ylim(0, 100)
    save(figure, path)


def quickstart(output: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    console = Console(soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    compare(output, overrides, console)
    records = {name: json.loads((output / name / "compare.json").read_text(encoding="utf-8")) for name in EXPERIMENTS}
    first, worked = (means(record) for record in records.values())
    figures = {name: {"settings": record["settings"], "rows": record["rows"]} for name, record in records.items()}
    environment = records[EXPERIMENTS[0]]["environment"]
    versions = {**environment["packages"], "python": environment["python"]}
    machine = {"machine": f"{platform.machine()} CPU", "versions": versions}
    write_json_atomic(
        output / "quickstart.json", {"settings": {"experiments": list(EXPERIMENTS)}, **machine, **figures}
    )
    draw(first, worked, output / "quickstart.png")
    words = in_words(first, worked)
    tables = [
        (output / name / "compare.md")
        .read_text(encoding="utf-8")
        .removeprefix(f"{PAGE_MARK}\n")
        .replace("](", f"]({name}/")
        for name in EXPERIMENTS
    ]
    page = "\n\n".join(["# Quickstart", words, "![quickstart](quickstart.png)", *(f"#{text}" for text in tables)])
    write_text_atomic(output / "report.md", page)
    console.print(Markdown(words))
    minutes = (time.perf_counter() - started) / 60
    console.print(f"{minutes:.1f} minutes. To read: {output / 'report.md'} and {output / 'quickstart.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options are recipe keys.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/quickstart"))
    args, overrides = parser.parse_known_args()
    os.chdir(Path(__file__).resolve().parents[2])  # the experiments name files from there
    with guarded():
        quickstart(args.output_dir, overrides)


if __name__ == "__main__":
    main()
