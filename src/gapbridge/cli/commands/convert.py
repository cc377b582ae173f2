"""`gapbridge convert`."""

from pathlib import Path

from ..command import BaseCommand, Call
from ..parser import Parser


class Command(BaseCommand):
    takes = "--from SFT.yaml --method NAME [--output FILE.yaml]"
    summary = "convert an SFT recipe to another method and write a new file"
    examples = ("--from my-sft.yaml --method bash",)
    recipes = "none"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--from", dest="source", type=Path, required=True, metavar="SFT.yaml", help="path of the SFT recipe")
        add("--method", required=True, metavar="NAME", help="method of the new recipe")
        add("--output", type=Path, metavar="FILE.yaml", help="path of the new recipe (default: next to the source)")

    def run(self, call: Call) -> object:
        from ...handbook.convert_recipe import run_convert

        return run_convert(call.options.source, call.options.method, call.options.output)
