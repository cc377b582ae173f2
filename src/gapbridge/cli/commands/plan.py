"""`gapbridge plan`."""

from ..command import BaseCommand, Call
from ..parser import Parser, number, positive


class Command(BaseCommand):
    summary = "count what a recipe takes before it is launched: memory, steps, tokens, time"
    examples = (
        "RECIPE.yaml --num_devices 8 --device_memory_gib 80 --device_tflops 150",
        "recipes/tiny/bash/config_full.yaml --num_devices 1 --benchmark",
    )

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--config", action="append", default=[], metavar="RECIPE.yaml",
            help="the recipe; its name without --config is the same")  # fmt: skip
        add("--num_devices", type=positive, metavar="N",
            help="devices, one process each (default: 8; this machine's CPU for use_cpu: true)")  # fmt: skip
        add("--device_memory_gib", type=number, metavar="GIB",
            help="memory of a device (default: 80, or what this machine has)")  # fmt: skip
        add(
            "--device_tflops",
            type=number,
            metavar="T",
            help="what a device computes in a second, for the time it takes",
        )
        add(
            "--num_train_examples",
            type=positive,
            metavar="N",
            help="rows of the training data, where they are not here",
        )
        add(
            "--mean_sequence_length", type=number, metavar="N", help="their mean length in tokens; default: max_length"
        )
        add("--benchmark", action="store_true", help="take a few steps of the actual model here, for the time")

    def run(self, call: Call) -> object:
        from ...planning.command import run_plan

        return run_plan(call.options, call.overrides)
