"""`gapbridge preview`."""

from ..command import BaseCommand, Call, add_recipe
from ..parser import Parser, non_negative, positive


class Command(BaseCommand):
    summary = "show the first training rows with their loss mask; writes nothing"
    examples = ("RECIPE.yaml", "RECIPE.yaml --num_rows 10 --mixture_coefficient 0.5")

    def add_options(self, parser: Parser) -> None:
        add_recipe(parser)
        parser.add_argument("--num_rows", type=positive, default=3, metavar="N",
            help="number of rows to show (default: %(default)s)")  # fmt: skip
        parser.add_argument(
            "--num_probe_examples", type=non_negative, default=0, metavar="N",
            help="number of training examples that estimate what training can gain, such as 32; "
            "it takes minutes with a real model (default: %(default)s, none)",
        )  # fmt: skip

    def run(self, call: Call) -> object:
        from ...gap.starting_model_check import run_probe
        from ...runs.preview import build_preview, run_preview
        from ...runs.run_config import read_job

        rows, examples = call.options.num_rows, call.options.num_probe_examples
        job = read_job(["--config", call.options.config, *call.overrides])
        first = build_preview(job, max(rows, examples), with_model=examples > 0)
        shown = run_preview(job, rows, first)
        if examples:
            run_probe(first, examples)
        return shown
