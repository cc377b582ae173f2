"""`gapbridge compare`."""

from pathlib import Path

from ...methods import list_methods
from ..command import BaseCommand, Call, add_recipe
from ..parser import Parser, integer, number, positive, several


class Command(BaseCommand):
    takes = "RECIPE.yaml --methods A,B,… [options] [--KEY VALUE …]"
    summary = "train and evaluate several methods and a control over several seeds"
    examples = (
        "RECIPE.yaml --methods bash,rac --seeds 1,2,3 --dry_run",
        "--experiment_config EXPERIMENT.yaml --num_parallel_seeds 2",
    )
    recipes = "optional"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add_recipe(parser, "path of a recipe of any method; every variant uses its model and data")
        add("--methods", type=several(str), metavar="A,B,…",
            help=f"methods to compare: {', '.join(list_methods())}; the control is always included")  # fmt: skip
        add("--seeds", type=several(integer), metavar="N,N,…", help="training seeds (default: 1,2,3)")
        add("--budget", metavar="KIND",
            help="quantity that is equal in each variant and the control: steps, tokens, compute or none (default: "
                 "steps)")  # fmt: skip
        add("--experiment_config", type=Path, metavar="EXPERIMENT.yaml",
            help="YAML file with the settings of each variant, instead of a recipe")  # fmt: skip
        add("--output_dir", type=Path, metavar="DIR",
            help="output directory (default: outputs/compare, or outputs/ and the experiment's name)")  # fmt: skip
        add("--num_parallel_seeds", type=positive, default=1, metavar="N",
            help="number of seeds that run in parallel, each in a process (default: %(default)s)")  # fmt: skip
        add("--dry_run", action="store_true",
            help="print the planned runs and their estimated time, and write nothing")  # fmt: skip
        add("--delete_models", action="store_true",
            help="delete the model and checkpoints of each finished variant; its results remain")  # fmt: skip
        group = parser.add_argument_group("evaluation of every variant on the recipe's evaluation data").add_argument
        group("--task", metavar="TASK",
            help="task of gapbridge eval (default: math, if the references mark their answers)")  # fmt: skip
        group("--max_completion_length", type=positive, metavar="N",
            help="maximum number of tokens of a completion (default: the task's)")  # fmt: skip
        group("--temperatures", type=several(number), metavar="T,T,…",
            help="sampling temperatures; 0 is greedy (default: 0,1)")  # fmt: skip
        group(
            "--max_examples",
            type=positive,
            metavar="N",
            help="maximum number of evaluation examples (default: max_eval_examples of the recipe, or all)",
        )
        group("--gap", action="store_true", help="measure the gap of each variant as well, as gapbridge gap does")
        group("--error_positions", type=several(number), metavar="P,P,…",
            help="relative positions (0-1) at which one wrong token is inserted (default: none)")  # fmt: skip

    def run(self, call: Call) -> object:
        from ...compare.command import run_compare
        from .. import run

        return run_compare(call.options, call.overrides, run)
