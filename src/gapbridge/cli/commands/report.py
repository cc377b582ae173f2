"""`gapbridge report`."""

from pathlib import Path

from ..command import BaseCommand, Call
from ..parser import Parser


class Command(BaseCommand):
    takes = "RUN [RUN …] [--extra_results_dir DIR …] [--output_dir DIR] [--open]"
    summary = "write one report that compares finished runs"
    examples = (
        "outputs/sft outputs/bash outputs/rac",
        "outputs/sft outputs/bash --extra_results_dir outputs --output_dir outputs/report",
    )
    recipes = "none"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("runs", nargs="+", type=Path, metavar="RUN", help="output directory of a finished run")
        add("--extra_results_dir", type=Path, nargs="+", default=[], metavar="DIR",
            help="further directories with eval/ or gap/ results")  # fmt: skip
        add("--output_dir", type=Path, default=Path("outputs/report"), metavar="DIR",
            help="directory for report.md and report.html (default: %(default)s)")  # fmt: skip
        add("--open", action="store_true", help="open report.html in the default web browser")

    def run(self, call: Call) -> object:
        from ...reporting.runs import run_report

        return run_report(call.options)
