"""`gapbridge plan`."""

from ..command import BaseCommand, Call
from ..parser import Parser, positive, positive_number


class Command(BaseCommand):
    summary = "estimate memory, steps, tokens and time of a recipe before it is launched"
    examples = ("RECIPE.yaml --num_devices 8 --device_memory_gib 80 --device_tflops 150",)

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--config", action="append", default=[], metavar="RECIPE.yaml",
            help="path of the recipe; may also be given as a positional argument")  # fmt: skip
        add("--num_devices", type=positive, metavar="N",
            help="number of devices, one process each (default: 8, or this machine's CPU with use_cpu: "
                 "true)")  # fmt: skip
        add("--device_memory_gib", type=positive_number, metavar="GIB",
            help="memory of one device in GiB (default: 80, or that of this machine)")  # fmt: skip
        add("--device_tflops", type=positive_number, metavar="T",
            help="throughput that one device achieves, in TFLOP/s; without it no time is estimated")  # fmt: skip
        add("--num_train_examples", type=positive, metavar="N",
            help="number of training examples (default: that of the data, if known)")  # fmt: skip
        add("--mean_sequence_length", type=positive_number, metavar="N",
            help="mean number of tokens of an example (default: max_length)")  # fmt: skip

    def run(self, call: Call) -> object:
        from ...planning.command import run_plan

        return run_plan(call.options, call.overrides)
