"""The hypotheses of docs/research/evidence-plan.md, tested on what the experiments of `benchmarks/evidence/cpu` left.

    python benchmarks/evidence/hypotheses.py --output benchmarks/results/evidence-cpu.json

Seeds whose base is right in fewer than `--gate` of the validation problems (its `check.json`) are named and left out.
The file holds every variant's score of every seed, so that the tables can be made again.
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

from gapbridge.cli import guarded
from gapbridge.compare.experiment_config import read_experiment
from gapbridge.compare.statistics import Difference, difference
from gapbridge.errors import RunError
from gapbridge.files import write_json_atomic


EXPERIMENTS = {"answer_first": Path("outputs/answer-first"), "word_problems": Path("outputs/word-problems")}
FOLDER = Path(__file__).with_name("cpu")
GREEDY, SAMPLED = "accuracy, greedy", "accuracy, T = 1"
BEHIND, OWN, RESULT = (
    "forced_errors.tokens_recovered",
    "own_forced_errors.tokens_recovered",
    "forced_errors.final_right",
)
MARGIN = 0.03  # differences within it on both sides are called equal


@dataclass(frozen=True)
class Hypothesis:
    """second less first, variants written `variant` or `variant/mode`, expected to be `higher`, `lower` or `equal`."""

    name: str
    experiment: str
    first: str
    second: str
    score: str
    expected: str


HYPOTHESES = (
    Hypothesis("H1", "answer_first", "rac", "rac/self_correct", GREEDY, "higher"),
    Hypothesis("H2", "answer_first", "sft", "rac/self_correct", GREEDY, "higher"),
    Hypothesis("H3", "word_problems", "sft", "bash_0.2", OWN, "higher"),
    Hypothesis("H4", "word_problems", "sft", "bash_0.2", BEHIND, "equal"),
    Hypothesis("H5", "word_problems", "sft", "bash_0.2", SAMPLED, "lower"),
    Hypothesis("H6", "word_problems", "sft", "noise", RESULT, "higher"),
    Hypothesis("H7", "word_problems", "sft", "noise", SAMPLED, "lower"),
)


def values(record: dict[str, Any], variant: str, score: str, seeds: Collection[int]) -> dict[int, dict[str, float]]:
    """seed → example → value."""
    name, _, mode = variant.partition("/")
    found = {}
    for cell in record["cells"]:
        if cell["variant"] == name and cell["seed"] in seeds:
            figures = {key: figure["by_example"] for key, figure in cell["figures"].items() if "by_example" in figure}
            found[cell["seed"]] = {**figures, **cell["scores"].get(mode or "single_pass", {})}[score]
    return found


def tested(hypothesis: Hypothesis, record: dict[str, Any], seeds: Collection[int]) -> Difference:
    """Raises RunError where there is nothing to compare."""
    first, second = (
        values(record, variant, hypothesis.score, seeds) for variant in (hypothesis.first, hypothesis.second)
    )
    found = difference(first, second)
    if found is None:
        raise RunError(f"{hypothesis.name}: no seed has both {hypothesis.first} and {hypothesis.second}")
    return found


def verdict(hypothesis: Hypothesis, found: Difference) -> str:
    """Whether both intervals say what was expected."""
    expected = found.is_expected(hypothesis.expected, MARGIN)
    return "confirmed" if expected else f"not confirmed ({found.verdict})"


def accuracies(experiment: str) -> dict[int, float]:
    """Of each seed's base: the share of validation problems that it answers rightly."""
    found = {}
    settings = read_experiment(FOLDER / f"{experiment}.yaml")
    for seed in settings.seeds:
        path = Path(settings.init_model_directory(seed)) / "check.json"
        if path.exists():
            found[seed] = float(json.loads(path.read_text(encoding="utf-8"))["correct"])
    return found


def report(args: argparse.Namespace) -> None:
    records, gates = {}, {}
    for experiment, folder in EXPERIMENTS.items():
        records[experiment] = read_record(folder)
        gates[experiment] = accuracies(experiment)
    remaining = {
        experiment: [seed for seed, right in gates[experiment].items() if right >= args.gate]
        for experiment in EXPERIMENTS
    }
    print(f"bases, share of validation problems right: {gates['word_problems']}; kept: {remaining['word_problems']}\n")
    print("| | difference | score | points | over problems | over seeds | expected | found |")
    print("|---|---|---|---|---|---|---|---|")
    found = {}
    for hypothesis in HYPOTHESES:
        result = tested(hypothesis, records[hypothesis.experiment], remaining[hypothesis.experiment])
        found[hypothesis.name] = {"hypothesis": asdict(hypothesis), "difference": asdict(result)}
        intervals = [result.over_examples, result.over_seeds]
        ends = [f"[{100 * i.low:+.1f}, {100 * i.high:+.1f}]" if i else "–" for i in intervals]
        cells = [hypothesis.name, f"{hypothesis.second} − {hypothesis.first}", hypothesis.score]
        cells += [f"{100 * result.mean:+.1f}", *ends, hypothesis.expected, verdict(hypothesis, result)]
        print(f"| {' | '.join(cells)} |")
    shares = replaced(EXPERIMENTS["word_problems"], records["word_problems"])
    print("\nshare of the tokens with loss that were replaced, mean over seeds:")
    print(", ".join(f"{variant} {100 * fmean(by_seed.values()):.2f} %" for variant, by_seed in shares.items()))
    if args.output:
        write_json_atomic(
            args.output,
            {
                "settings": {"gate": args.gate, "bases": gates, "kept": remaining},
                **where_made(records["word_problems"]),
                "hypotheses": found,
                "replaced": shares,
                "rows": {experiment: record["rows"] for experiment, record in records.items()},
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", type=float, default=0.6)
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    with guarded():
        report(args)


if __name__ == "__main__":
    main()
