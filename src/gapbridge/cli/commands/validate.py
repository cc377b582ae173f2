"""`gapbridge validate`."""

import logging

from ...methods import list_methods
from ..command import BaseCommand, Call
from ..parser import Parser


class Command(BaseCommand):
    takes = "RECIPE.yaml … [options] [--KEY VALUE …]"
    summary = "check recipes and report all errors"
    examples = ("recipes/tiny/*/config_full.yaml", "RECIPE.yaml --check_all_rows")
    recipes = "many"

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--config", action="extend", nargs="+", default=[], metavar="RECIPE.yaml",
            help="paths of recipes; may also be given as positional arguments")  # fmt: skip
        add("--method", metavar="NAME", help=f"method of recipes without the key method: {', '.join(list_methods())}")
        add("--check_all_rows", action="store_true", help="check all rows of the data (default: the first 64)")
        add("--offline", action="store_true",
            help="use no network; tiny models and data replace those that are not on this machine")  # fmt: skip
        add("--smoke_test", action="store_true",
            help="also train each recipe for two steps, with a tiny model and tiny data")  # fmt: skip

    def run(self, call: Call) -> None:
        logging.getLogger("gapbridge").setLevel(logging.WARNING)  # notes are printed below the recipe
        options = call.options
        if call.smoke_test or options.offline:
            from ...planning.smoke_test import validate_offline

            validate_offline(
                options.config,
                call.overrides,
                method=options.method,
                all_rows=options.check_all_rows,
                steps=call.smoke_test,
            )
        else:
            from ...runs.validate import run_validate

            run_validate(options.config, call.overrides, method=options.method, all_rows=options.check_all_rows)
