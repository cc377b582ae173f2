"""The hypotheses of docs/research/evidence-plan-smollm2.md, and all measures over seeds, from what was measured.

    at=outputs/scitldr-cpu-measured/seed_{seed}
    python benchmarks/evidence/real/findings.py --greedy $at/greedy --sampled $at/sampled --own $at/own \\
        --same $at/same --output benchmarks/results/scitldr-cpu.json    (or: measure.sh)

`--greedy` and `--sampled` are output folders of `gapbridge eval`, at temperature 0 and 1. `--own` and `--same` are
those of `gapbridge gap`, with each model's own completions and, with `--completions_from`, after those of the model
that all start from. The first `--model` of a measurement is that model; the others are named by their folders, as in
seed_21/sft.
With {seed} in its name there is one folder for each seed.
A difference is a mean over seeds with two 95 % intervals: over examples (paired bootstrap) and over seeds (Student).
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gapbridge.cli import guarded
from gapbridge.compare.run_records import read_figures
from gapbridge.compare.statistics import Difference, difference, pooled_mean
from gapbridge.errors import ConfigError
from gapbridge.evaluation.rouge import ROUGE_METRICS
from gapbridge.files import write_json_atomic
from gapbridge.generation.decoding_modes import SINGLE_PASS
from gapbridge.reporting.samples import read_samples


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
    Hypothesis("S8", "rac", "rac, self_correct", "rouge1, greedy", "equal", 0.015),
    Hypothesis("S9", "random", "bash_0.2", f"{SAME}: {AFTER}", "lower"),
)


def read_scores(patterns: list[str], decoding: str, seeds: list[int]) -> Values:
    """The ROUGE scores of evaluations, one for each seed or one for all; `decoding` names their temperature."""
    found: Values = {}
    for seed, pattern in itertools.product(seeds, patterns):
        folder = Path(pattern.replace("{seed}", str(seed)))
        for sample in read_samples(_existing(folder / "eval" / "summarization.samples.jsonl")):
            model = model_name(Path(sample["model"]), seed)
            if model is None:
                continue
            if sample["decoding_mode"] != SINGLE_PASS:
                model = f"{model}, {sample['decoding_mode']}"
            for metric in ROUGE_METRICS:
                by_seed = found.setdefault(f"{metric}, {decoding}", {}).setdefault(model, {})
                by_seed.setdefault(seed, {})[str(sample["id"])] = float(sample[metric])
    return found


def read_gaps(pattern: str, kind: str, seeds: list[int]) -> Values:
    """The figures with one value for each example, of one measurement for each seed or of one for all."""
    found: Values = {}
    for seed in seeds:
        path = _existing(Path(pattern.replace("{seed}", str(seed))) / "gap" / "gap.json")
        for model in json.loads(path.read_text(encoding="utf-8"))["models"]:
            name = model_name(Path(model["model"]), seed)
            if name is None:
                continue
            by_length = {
                f"losses.by_prefix_length.{temperature}.{k}": figure
                for temperature, by_k in model["losses"]["by_prefix_length"].items()
                for k, figure in by_k.items()
            }
            for measure, figure in {**read_figures(model), **by_length}.items():
                if "by_example" in figure:
                    by_model = found.setdefault(f"{kind}: {measure}", {})
                    by_model.setdefault(name, {})[seed] = figure["by_example"]
    return found


def model_name(folder: Path, seed: int) -> str | None:
    """A model's name in the tables, from its folder, as in seed_21/sft; None for a model of another seed."""
    if not folder.parent.name.startswith("seed_"):
        return START
    return folder.name if folder.parent.name == f"seed_{seed}" else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(path, "no file", "a measurement", "Measure these models first")
    return path


def verdict(hypothesis: Hypothesis, found: Difference) -> str:
    """Whether both intervals say what is expected."""
    expected = found.is_expected(hypothesis.expected, hypothesis.margin)
    return "as expected" if expected else f"not as expected ({found.verdict})"


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
    values: Values = {}
    for folders, decoding in ((args.greedy, "greedy"), (args.sampled, "T = 1")):
        if folders:
            values |= read_scores(folders, decoding, args.seeds)
    for pattern, kind in ((args.own, OWN), (args.same, SAME)):
        if pattern:
            values |= read_gaps(pattern, kind, args.seeds)
    print(f"seeds {', '.join(map(str, args.seeds))}; [ ] over examples, {{ }} over seeds\n")
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
        record = {
            "settings": {key: value for key, value in vars(args).items() if key != "output"},
            "machine": f"{platform.machine()} CPU",
            "versions": {name: metadata.version(name) for name in ("gapbridge", "torch", "transformers", "trl")},
            "hypotheses": found,
            "means_by_seed": means,
        }
        write_json_atomic(args.output, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--greedy", nargs="+", help="folders of evaluations at temperature 0, {seed} stands for the seed"
    )
    parser.add_argument("--sampled", nargs="+", help="folders of evaluations at temperature 1")
    parser.add_argument("--own", help="folder of the gap after own completions")
    parser.add_argument("--same", help="folder of the gap after the same completions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--control", default="sft")
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    with guarded():
        report(args)


if __name__ == "__main__":
    main()
