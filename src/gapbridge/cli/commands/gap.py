"""`gapbridge gap`."""

from ..command import BaseCommand, Call, add_models
from ..parser import Parser, integer, number, positive


PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
ERROR_POSITIONS = (0.15, 0.35, 0.55, 0.75)


class Command(BaseCommand):
    takes = "RECIPE.yaml --model MODEL [--model MODEL …] [options] [--KEY VALUE …]"
    summary = "measure how much the loss rises and the accuracy falls after model-generated prefixes"
    examples = ("RECIPE.yaml --model outputs/sft --model outputs/bash --max_examples 200",)
    recipes = "optional"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add_models(parser)
        add("--prefix_lengths", type=integer, nargs="+", default=list(PREFIX_LENGTHS), metavar="K",
            help="numbers of model-generated prefix tokens before the reference continues "
            f"(default: {' '.join(map(str, PREFIX_LENGTHS))})")  # fmt: skip
        add("--error_positions", type=number, nargs="*", default=list(ERROR_POSITIONS), metavar="P",
            help="relative positions (0-1) at which one wrong token is inserted; without values the test is off "
            f"(default: {' '.join(map(str, ERROR_POSITIONS))})")  # fmt: skip
        add("--error_source", metavar="MODEL",
            help="model whose errors are inserted for all models, or self for each model's own (default: the "
                 "first)")  # fmt: skip
        add("--completions_from", metavar="MODEL",
            help="model whose completions are the generated prefixes of all models (default: each model's "
                 "own)")  # fmt: skip
        add("--max_completion_length", type=positive, default=256, metavar="N",
            help="maximum number of tokens of a completion (default: %(default)s)")  # fmt: skip
        add("--temperature", type=number, default=1.0, metavar="T",
            help="sampling temperature; 0 is greedy (default: %(default)s)")  # fmt: skip

    def run(self, call: Call) -> object:
        from ...gap.command import run_gap

        return run_gap(call.options, call.overrides)
