"""The hypotheses of docs/research/evidence-plan-smollm2.md, and all measures over seeds, from what was measured.

    python benchmarks/evidence/real/findings.py --compare outputs/scitldr-cpu --own 'outputs/gap-own/seed_{seed}' \\
        --same 'outputs/gap-same/seed_{seed}' --output benchmarks/results/scitldr-cpu.json

`--compare` is the folder that `gapbridge compare` left: its scores. `--own` and `--same` are the output folders of
`gapbridge gap` for each seed, with each model's own completions and, with `--completions_from`, after those of the
model that all start from. The first `--model` of a measurement is that model; the others are named by their folder.
A difference is a mean over seeds with two 95 % intervals: over examples (paired bootstrap) and over seeds (Student).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gapbridge.cli import run_guarded
from gapbridge.compare.run_records import read_figures
from gapbridge.compare.statistics import Difference, difference, pooled_mean
from gapbridge.errors import ConfigError
from gapbridge.files import write_json_atomic


START = "start"  # the model that all variants start from
OWN, SAME = "own completions", "same completions"
AFTER = "losses.overall.fitted_temperature.after_generated"
Values = dict[str, dict[str, dict[int, dict[str, float]]]]  # measure → model → seed → example → value


@dataclass(frozen=True)
class Hypothesis:
    """second less first, expected to be `higher`, `lower` or `equal` (both intervals within ±`margin`)."""

    name: str
    first: str
    second: str
    measure: str
    expected: str
    margin: float = 0.0


HYPOTHESES = (
    Hypothesis("S1", START, "sft", f"{OWN}: recovery", "higher"),
    Hypothesis("S2", "sft", "bash_0.2", f"{OWN}: recovery", "lower"),
    Hypothesis("S3", "sft", "bash_0.2", f"{SAME}: {AFTER}", "lower"),
    Hypothesis("S4", "sft", "bash_0.2", "rouge1, T = 1", "lower"),
    Hypothesis("S5", "sft", "bash_0.2_masked", f"{SAME}: {AFTER}", "lower"),
    Hypothesis("S6", "sft", "bash_0.2_masked", "rouge1, T = 1", "equal", 0.015),
    Hypothesis("S7", "sft", "bash_0.2_masked", "rouge2, greedy", "higher"),
    Hypothesis("S9", "random", "bash_0.2", f"{SAME}: {AFTER}", "lower"),
)


def read_scores(folder: Path) -> Values:
    """The single-pass scores of a comparison."""
    found: Values = {}
    for cell in _record(folder / "compare.json")["cells"]:
        for measure, by_example in cell["scores"]["single_pass"].items():
            found.setdefault(measure, {}).setdefault(cell["variant"], {})[cell["seed"]] = by_example
    return found


def read_gaps(pattern: str, kind: str, seeds: list[int]) -> Values:
    """The figures with one value for each example, of one measurement for each seed."""
    found: Values = {}
    for seed in seeds:
        models = _record(Path(pattern.replace("{seed}", str(seed))) / "gap" / "gap.json")["models"]
        for at, model in enumerate(models):
            name = START if at == 0 else Path(model["model"]).name
            for measure, figure in read_figures(model).items():
                if "by_example" in figure:
                    by_model = found.setdefault(f"{kind}: {measure}", {})
                    by_model.setdefault(name, {})[seed] = figure["by_example"]
    return found


def _record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: got no file, expected a measurement. Measure this seed first")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def verdict(hypothesis: Hypothesis, found: Difference) -> str:
    """Whether both intervals say what is expected."""
    if hypothesis.expected != "equal":
        return "as expected" if found.verdict == hypothesis.expected else f"not as expected ({found.verdict})"
    intervals = [found.over_examples, found.over_seeds]
    inside = all(i is not None and -hypothesis.margin < i.low and i.high < hypothesis.margin for i in intervals)
    return "as expected" if inside else f"not as expected ({found.verdict})"


def show(found: Difference, scale: float) -> str:
    """A difference with its intervals over [examples] and {seeds}."""
    text = f"{scale * found.mean:+.3g}"
    for interval, (left, right) in ((found.over_examples, "[]"), (found.over_seeds, "{}")):
        if interval is not None:
            text += f" {left}{scale * interval.low:+.3g}, {scale * interval.high:+.3g}{right}"
    return text


def table(values: Values, control: str) -> list[str]:
    """Every measure of every model, and its difference from the control, as Markdown."""
    lines = [f"| measure | model | mean | difference from {control} |", "|---|---|---|---|"]
    for measure, by_model in values.items():
        scale = _scale(measure)
        for model, by_seed in by_model.items():
            less = difference(by_model[control], by_seed) if control in by_model and model != control else None
            cells = [measure, model, f"{scale * pooled_mean(by_seed):.4g}", show(less, scale) if less else "–"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _scale(measure: str) -> float:
    """Scores are shown in points, losses in nats."""
    return 1.0 if measure.startswith((OWN, SAME)) else 100.0


def tested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The hypotheses whose models and measures are there, printed as Markdown."""
    found = {}
    print("| | difference | measure | found | expected | |\n|---|---|---|---|---|---|")
    for hypothesis in HYPOTHESES:
        by_model = values.get(hypothesis.measure, {})
        if hypothesis.first in by_model and hypothesis.second in by_model:
            result = difference(by_model[hypothesis.first], by_model[hypothesis.second])
            if result is not None:
                says = verdict(hypothesis, result)
                found[hypothesis.name] = {
                    "hypothesis": asdict(hypothesis),
                    "difference": asdict(result),
                    "found": says,
                }
                cells = [hypothesis.name, f"{hypothesis.second} − {hypothesis.first}", hypothesis.measure]
                cells += [show(result, _scale(hypothesis.measure)), hypothesis.expected, says]
                print(f"| {' | '.join(cells)} |")
    return found


def report(args: argparse.Namespace) -> None:
    values = read_scores(args.compare)
    seeds = args.seeds or sorted({seed for by_model in values.values() for by in by_model.values() for seed in by})
    for pattern, kind in ((args.own, OWN), (args.same, SAME)):
        if pattern:
            values |= read_gaps(pattern, kind, seeds)
    print(f"seeds {', '.join(map(str, seeds))}; [ ] over examples, {{ }} over seeds\n")
    found = tested(values)
    print("\n" + "\n".join(table(values, args.control)))
    if args.output:
        means = {
            measure: {
                model: {str(seed): sum(by.values()) / len(by) for seed, by in by_seed.items()}
                for model, by_seed in by_model.items()
            }
            for measure, by_model in values.items()
        }
        write_json_atomic(args.output, {"seeds": seeds, "hypotheses": found, "means_by_seed": means})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--compare", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--own", help="folder of each seed's gap after own completions, with {seed} in it")
    parser.add_argument("--same", help="folder of each seed's gap after the same completions, with {seed} in it")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the comparison")
    parser.add_argument("--control", default="sft")
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    run_guarded(lambda: report(args))


if __name__ == "__main__":
    main()
