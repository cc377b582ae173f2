"""`gapbridge copy-into`."""

from pathlib import Path

from ..command import BaseCommand, Call
from ..parser import Parser


class Command(BaseCommand):
    takes = "FORK [--recipe MODEL]"
    summary = "copy scripts and recipes as new files into an alignment-handbook fork"
    examples = ("../my-fork --recipe zephyr-7b-beta",)
    recipes = "none"

    def add_options(self, parser: Parser) -> None:
        parser.add_argument("fork", type=Path, metavar="FORK", help="top directory of the fork")
        parser.add_argument("--recipe", metavar="MODEL",
            help="folder in the fork's recipes, for one model (default: all with an SFT recipe)")  # fmt: skip

    def run(self, call: Call) -> object:
        from ...handbook.export import run_copy_into

        return run_copy_into(call.options.fork, call.options.recipe)
