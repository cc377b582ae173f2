"""`python -m gapbridge.tasks word_problems --split train --count 2000 --output FILE.jsonl`: rows of word problems."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import GapbridgeError
from ..files import write_text_atomic
from .word_problems import FORMS, ORDERS, SPLITS, problems


def main(argv: Sequence[str] | None = None) -> None:
    """Write the rows, one a line. Exits with 2 and a message where an option is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m gapbridge.tasks", description="Write a JSONL file of problems.", allow_abbrev=False
    )
    add = parser.add_argument
    add("task", choices=["word_problems"])
    add("--split", choices=SPLITS, required=True)
    add("--count", type=int, required=True, metavar="N", help="number of problems")
    add("--seed", type=int, default=0, metavar="N", help="another one, other problems (default: 0)")
    add("--steps", type=int, nargs="+", default=[4], metavar="N",
        help="operations of a problem, 1 to 6; several are taken in turn (default: 4)")  # fmt: skip
    add("--order", choices=ORDERS, default=ORDERS[0], help="where the result stands (default: %(default)s)")
    add("--validation", choices=("disjoint", "overlapping"), default="disjoint",
        help="whether training and validation share computations (default: %(default)s)")  # fmt: skip
    add("--form", choices=FORMS, default=FORMS[0], help="what a row holds (default: %(default)s)")
    add("--output", type=Path, required=True, metavar="FILE.jsonl")
    args = parser.parse_args(argv)
    options = {name: vars(args)[name] for name in ("count", "seed", "steps", "order", "form")}
    try:
        found = problems(args.split, validation_apart=args.validation == "disjoint", **options)
        rows = [json.dumps(problem.row(), ensure_ascii=False) + "\n" for problem in found]
        write_text_atomic(args.output, "".join(rows))
    except GapbridgeError as error:
        parser.error(str(error))
    print(f"{args.output}: {len(rows)} problems")


if __name__ == "__main__":
    main()
