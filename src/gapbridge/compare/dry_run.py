"""`gapbridge compare --dry_run`: what a comparison would run and write."""

from __future__ import annotations

from ..reporting.tables import Table, print_table
from ..tasks.task import EvalTask
from .experiment_plan import ExperimentPlan


def run_dry(comparison: ExperimentPlan, task: EvalTask) -> None:
    """Print the runs of the comparison that are left, and where everything would be written; nothing is written."""
    experiment, head = comparison.experiment, ("variant", "method", "initial model", "runs left")
    rows = [
        (variant.name, variant.method, comparison.start_of(variant, experiment.seeds[0]),
         sum(not comparison.result_file(seed, variant.name).exists() for seed in experiment.seeds))
        for variant in experiment.variants.values()
    ]  # fmt: skip
    seeds = ", ".join(map(str, experiment.seeds))
    title = f"{experiment.name}: graded as {task.name}, budget {experiment.budget}, seeds {seeds}"
    print_table(Table(head, rows, title, texts=3))
    for seed in experiment.seeds:
        print(f"would write {comparison.place(seed)}: {', '.join(experiment.variants)}")
    names = ("experiment.json", "compare.json", "compare.md", "compare.html", "plots")
    print(f"would write {', '.join(str(comparison.directory / name) for name in names)}")
