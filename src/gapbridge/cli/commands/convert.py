"""`gapbridge convert`."""

from pathlib import Path

from ..command import BaseCommand, Call
from ..parser import Parser


class Command(BaseCommand):
    takes = "--from SFT.yaml --method NAME [--output FILE.yaml]"
    summary = "turn your own SFT recipe into one for another method, beside it"
    examples = ("--from my-sft.yaml --method bash",)
    recipes = "none"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--from", dest="source", type=Path, required=True, metavar="SFT.yaml", help="the recipe to start from")
        add("--method", required=True, metavar="NAME", help="what it becomes a recipe for")
        add("--output", type=Path, metavar="FILE.yaml", help="where it goes; default: beside the source")

    def run(self, call: Call) -> object:
        from ...handbook.convert_recipe import run_convert

        return run_convert(call.options.source, call.options.method, call.options.output)
