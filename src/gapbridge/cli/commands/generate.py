"""`gapbridge generate`."""

from pathlib import Path

from ..command import BaseCommand, Call, add_amounts, add_mode, add_recipe, add_server
from ..parser import Parser, number, positive


class Command(BaseCommand):
    summary = "generate completions of a recipe's evaluation prompts as JSONL"
    examples = (
        "RECIPE.yaml",
        "RECIPE.yaml --model outputs/tiny-rac --decoding_mode single_pass --decoding_mode self_correct --output "
        "completions.jsonl",
    )

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add_recipe(parser)
        add("--model", metavar="MODEL", help="path or hub id of the model (default: the recipe's finished run)")
        add_mode(parser)
        add("--output", type=Path, metavar="FILE.jsonl",
            help="output file (default: completions/completions.jsonl in the run)")  # fmt: skip
        add("--max_completion_length", type=positive, default=256, metavar="N",
            help="maximum number of tokens of a completion (default: %(default)s)")  # fmt: skip
        add("--temperature", type=number, default=0.0, metavar="T",
            help="sampling temperature; 0 is greedy (default: %(default)s)")  # fmt: skip
        add_amounts(parser)
        add_server(parser)

    def run(self, call: Call) -> object:
        from ...generation.command import run_generate

        return run_generate(call.options, call.overrides)
