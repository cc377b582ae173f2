"""`gapbridge compare`."""

from pathlib import Path

from ...methods import list_methods
from ..command import BaseCommand, Call, add_recipe
from ..parser import Parser, integer, number, positive, several


class Command(BaseCommand):
    takes = "RECIPE.yaml --methods A,B,… [options] [--KEY VALUE …]"
    summary = "train and evaluate methods and the control side by side, over seeds"
    examples = (
        "RECIPE.yaml --methods bash,rac --seeds 1,2,3 --dry_run",
        "--experiment_config EXPERIMENT.yaml --num_parallel_seeds 2",
    )
    recipes = "optional"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add_recipe(parser, "your recipe, of any method; every variant trains its rows from its model")
        add("--methods", type=several(str), metavar="A,B,…",
            help=f"which of {', '.join(list_methods())}; the control is always there")  # fmt: skip
        add("--seeds", type=several(integer), metavar="N,N,…", help="seeds of training (default: 1,2,3)")
        add("--budget", metavar="KIND",
            help="what every variant has as much of: steps, tokens, compute or none (default: steps)")  # fmt: skip
        add(
            "--experiment_config",
            type=Path,
            metavar="EXPERIMENT.yaml",
            help="variants with settings of their own, in place of a recipe",
        )
        add(
            "--output_dir",
            type=Path,
            metavar="DIR",
            help="where it all goes; default: outputs/ and the experiment's name",
        )
        add("--num_parallel_seeds", type=positive, default=1, metavar="N",
            help="seeds at once, each in a process (default: %(default)s)")  # fmt: skip
        add("--dry_run", action="store_true", help="say what would be done and how long it takes here; write nothing")
        group = parser.add_argument_group("evaluation, of every variant on the recipe's held-out data").add_argument
        group("--task", metavar="TASK",
            help="the grader, as for gapbridge eval; default: math, if the references mark their answers")  # fmt: skip
        group(
            "--max_completion_length", type=integer, metavar="N", help="most tokens of an answer; default: the task's"
        )
        group("--temperatures", type=several(number), metavar="T,T,…", help="0 is greedy (default: 0,1)")
        group("--max_examples", type=integer, metavar="N", help="the first so many held-out examples only")
        group("--gap", action="store_true", help="measure the gap as well, as gapbridge gap")
        group(
            "--error_positions",
            type=several(number),
            metavar="P,P,…",
            help="and force forced errors at these places, between 0 and 1",
        )

    def run(self, call: Call) -> object:
        from ...compare.command import run_compare
        from .. import run

        return run_compare(call.options, call.overrides, run)
