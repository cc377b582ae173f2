"""`gapbridge compare`."""

from pathlib import Path

from ...methods import names
from ..command import BaseCommand, Call, add_recipe
from ..parser import Parser, integer, number, positive, several


class Command(BaseCommand):
    takes = "RECIPE.yaml --methods A,B,… [options] [--KEY VALUE …]"
    summary = "train and evaluate methods and the control side by side, over seeds"
    examples = ("RECIPE.yaml --methods bash,rac --seeds 1,2,3 --dry-run", "--suite SUITE.yaml --workers 2")
    recipes = "optional"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add_recipe(parser, "your recipe, of any method; every arm trains its rows from its model")
        add("--methods", type=several(str), metavar="A,B,…",
            help=f"which of {', '.join(names())}; the control is always there")  # fmt: skip
        add("--seeds", type=several(integer), metavar="N,N,…", help="seeds of training (default: 1,2,3)")
        add("--match", metavar="KIND",
            help="what every arm has as much of: steps, tokens, compute or none (default: steps)")  # fmt: skip
        add("--suite", type=Path, metavar="SUITE.yaml", help="arms with settings of their own, in place of a recipe")
        add("--output_dir", type=Path, metavar="DIR", help="where it all goes; default: outputs/ and the suite's name")
        add("--workers", type=positive, default=1, metavar="N",
            help="seeds at once, each in a process (default: %(default)s)")  # fmt: skip
        add("--dry-run", action="store_true", help="say what would be done and how long it takes here; write nothing")
        group = parser.add_argument_group("evaluation, of every arm on the recipe's held-out data").add_argument
        group("--task", metavar="TASK",
            help="the grader, as for gapbridge eval; default: math, if the references mark their answers")  # fmt: skip
        group(
            "--max_completion_length", type=integer, metavar="N", help="most tokens of an answer; default: the task's"
        )
        group("--temperatures", type=several(number), metavar="T,T,…", help="0 is greedy (default: 0,1)")
        group("--limit", type=integer, metavar="N", help="the first so many held-out examples only")
        group("--gap", action="store_true", help="measure the gap as well, as gapbridge gap")
        group(
            "--slips", type=several(number), metavar="P,P,…", help="and force slips at these places, between 0 and 1"
        )

    def run(self, call: Call) -> object:
        from ...results.compare.command import run_compare
        from .. import run

        return run_compare(call.options, call.overrides, run)
