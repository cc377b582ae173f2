"""`python -m gapbridge.tasks NAME --split train --count 2000 --output FILE.jsonl`: the data of a procedural task."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import GapbridgeError
from ..files import write_text_atomic
from .procedural import SPLITS, add_options, chosen_options
from .task import PROCEDURAL


def main(argv: Sequence[str] | None = None) -> None:
    """Write the rows, one a line, in TRL's conversational prompt/completion form. Exits with 2 and a message where an
    option is wrong."""
    parser = argparse.ArgumentParser(prog="python -m gapbridge.tasks", description="Write a JSONL file of problems.")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="NAME")
    for name, task in PROCEDURAL.items():
        command = tasks.add_parser(name, help=f"--{' --'.join(task.options.__dataclass_fields__)}", allow_abbrev=False)
        command.add_argument("--split", choices=SPLITS, required=True)
        command.add_argument("--count", type=int, required=True, metavar="N", help="number of problems")
        command.add_argument("--seed", type=int, default=0, metavar="N", help="another one, other problems")
        add_options(command, task)
        command.add_argument("--output", type=Path, required=True, metavar="FILE.jsonl")
    args = parser.parse_args(argv)
    task = PROCEDURAL[args.task]
    try:
        found = task.problems(args.split, count=args.count, seed=args.seed, **chosen_options(task, args))
        rows = [json.dumps(problem.row(), ensure_ascii=False) + "\n" for problem in found]
        write_text_atomic(args.output, "".join(rows))
    except GapbridgeError as error:
        parser.error(str(error))
    print(f"{args.output}: {len(rows)} problems")


if __name__ == "__main__":
    main()
