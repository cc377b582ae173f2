"""The hypotheses of docs/research/evidence-plan.md, tested on what the suites of `benchmarks/evidence/cpu` left.

    python benchmarks/evidence/hypotheses.py --output benchmarks/results/evidence-cpu.json

Seeds whose base is right in fewer than `--gate` of the validation problems (its `check.json`) are named and left out.
The file holds every arm's score of every seed, so that the tables can be made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from summary import read_record, replaced, where_made

from gapbridge.cli import run_guarded
from gapbridge.errors import RunError
from gapbridge.files import write_json_atomic
from gapbridge.results.compare.statistics import Difference, difference
from gapbridge.results.compare.suite import read_suite


SUITES = {"answer_first": Path("outputs/answer-first"), "word_problems": Path("outputs/word-problems")}
FOLDER = Path(__file__).with_name("cpu")
GREEDY, SAMPLED = "accuracy, greedy", "accuracy, T = 1"
BEHIND, OWN, RESULT = "slips.tokens_recovered", "own_slips.tokens_recovered", "slips.final_right"
MARGIN = 0.03  # differences within it on both sides are called equal


@dataclass(frozen=True)
class Hypothesis:
    """second less first, arms written `arm` or `arm/mode`, expected to be `higher`, `lower` or `equal`."""

    name: str
    suite: str
    first: str
    second: str
    score: str
    expected: str


HYPOTHESES = (
    Hypothesis("H1", "answer_first", "rac", "rac/corrected", GREEDY, "higher"),
    Hypothesis("H2", "answer_first", "sft", "rac/corrected", GREEDY, "higher"),
    Hypothesis("H3", "word_problems", "sft", "bash_0.2", OWN, "higher"),
    Hypothesis("H4", "word_problems", "sft", "bash_0.2", BEHIND, "equal"),
    Hypothesis("H5", "word_problems", "sft", "bash_0.2", SAMPLED, "lower"),
    Hypothesis("H6", "word_problems", "sft", "noise", RESULT, "higher"),
    Hypothesis("H7", "word_problems", "sft", "noise", SAMPLED, "lower"),
)


def values(record: dict[str, Any], arm: str, score: str, seeds: Collection[int]) -> dict[int, dict[str, float]]:
    """seed → example → value."""
    name, _, mode = arm.partition("/")
    found = {}
    for cell in record["cells"]:
        if cell["arm"] == name and cell["seed"] in seeds:
            figures = {key: figure["by_example"] for key, figure in cell["figures"].items() if "by_example" in figure}
            found[cell["seed"]] = {**figures, **cell["scores"].get(mode or "direct", {})}[score]
    return found


def tested(hypothesis: Hypothesis, record: dict[str, Any], seeds: Collection[int]) -> Difference:
    """Raises RunError where there is nothing to compare."""
    first, second = (values(record, arm, hypothesis.score, seeds) for arm in (hypothesis.first, hypothesis.second))
    found = difference(first, second)
    if found is None:
        raise RunError(f"{hypothesis.name}: no seed has both {hypothesis.first} and {hypothesis.second}")
    return found


def verdict(hypothesis: Hypothesis, found: Difference) -> str:
    """Whether both intervals say what was expected."""
    if hypothesis.expected != "equal":
        return "confirmed" if found.verdict == hypothesis.expected else f"not confirmed ({found.verdict})"
    intervals = [found.over_examples, found.over_seeds]
    inside = all(i is not None and -MARGIN < i.low and i.high < MARGIN for i in intervals)
    return "confirmed" if inside else f"not confirmed ({found.verdict})"


def accuracies(suite: str) -> dict[int, float]:
    """Of each seed's base: the share of validation problems that it answers rightly."""
    found = {}
    settings = read_suite(FOLDER / f"{suite}.yaml")
    for seed in settings.seeds:
        path = Path(settings.base_directory(seed)) / "check.json"
        if path.exists():
            found[seed] = float(json.loads(path.read_text(encoding="utf-8"))["correct"])
    return found


def report(args: argparse.Namespace) -> None:
    records, gates = {}, {}
    for suite, folder in SUITES.items():
        records[suite] = read_record(folder)
        gates[suite] = accuracies(suite)
    kept = {suite: [seed for seed, right in gates[suite].items() if right >= args.gate] for suite in SUITES}
    print(f"bases, share of validation problems right: {gates['word_problems']}; kept: {kept['word_problems']}\n")
    print("| | difference | score | points | over problems | over seeds | expected | found |")
    print("|---|---|---|---|---|---|---|---|")
    found = {}
    for hypothesis in HYPOTHESES:
        result = tested(hypothesis, records[hypothesis.suite], kept[hypothesis.suite])
        found[hypothesis.name] = {"hypothesis": asdict(hypothesis), "difference": asdict(result)}
        intervals = [result.over_examples, result.over_seeds]
        ends = [f"[{100 * i.low:+.1f}, {100 * i.high:+.1f}]" if i else "–" for i in intervals]
        cells = [hypothesis.name, f"{hypothesis.second} − {hypothesis.first}", hypothesis.score]
        cells += [f"{100 * result.mean:+.1f}", *ends, hypothesis.expected, verdict(hypothesis, result)]
        print(f"| {' | '.join(cells)} |")
    shares = replaced(SUITES["word_problems"], records["word_problems"])
    print("\nshare of the tokens with loss that were replaced, mean over seeds:")
    print(", ".join(f"{arm} {100 * fmean(by_seed.values()):.2f} %" for arm, by_seed in shares.items()))
    if args.output:
        write_json_atomic(
            args.output,
            {
                "settings": {"gate": args.gate, "bases": gates, "kept": kept},
                **where_made(records["word_problems"]),
                "hypotheses": found,
                "replaced": shares,
                "rows": {suite: record["rows"] for suite, record in records.items()},
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", type=float, default=0.6)
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    run_guarded(lambda: report(args))


if __name__ == "__main__":
    main()
