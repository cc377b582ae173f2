"""`gapbridge plan`."""

from ..command import BaseCommand, Call
from ..parser import Parser, number, positive


class Command(BaseCommand):
    summary = "count what a recipe takes before it is launched: memory, steps, tokens, time"
    examples = (
        "RECIPE.yaml --gpus 8 --gpu_memory 80 --tflops 150",
        "recipes/tiny/bash/config_full.yaml --gpus 1 --measure",
    )

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--config", action="append", default=[], metavar="RECIPE.yaml",
            help="the recipe; its name without --config is the same")  # fmt: skip
        add("--gpus", type=positive, metavar="N",
            help="devices, one process each (default: 8; this machine's CPU for use_cpu: true)")  # fmt: skip
        add("--gpu_memory", "--gpu-memory", type=number, metavar="GIB",
            help="memory of a device (default: 80, or what this machine has)")  # fmt: skip
        add("--tflops", type=number, metavar="T", help="what a device computes in a second, for the time it takes")
        add("--rows", type=positive, metavar="N", help="rows of the training data, where they are not here")
        add("--row_tokens", type=number, metavar="N", help="their mean length in tokens; default: max_length")
        add("--measure", action="store_true", help="take a few steps of the actual model here, for the time")

    def run(self, call: Call) -> object:
        from ...planning.command import run_plan

        return run_plan(call.options, call.overrides)
