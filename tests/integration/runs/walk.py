"""How far it is from a command to `Trainer.train`: the package's functions that are entered, their files and depth.

    python tests/integration/runs/walk.py bash --config recipes/tiny/bash/config_full.yaml --output_dir outputs/walk …

That recipe's way with an empty cache of examples: 388 functions in 83 files, 17 deep; of a run that goes
on with its contexts and rows, 256 in 64, 14 deep.

Generator expressions, comprehensions and lambdas are parts of the functions that they stand in.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from transformers import Trainer

import gapbridge
from gapbridge.cli import main


PACKAGE = str(Path(gapbridge.__file__).parent)


class Arrived(BaseException):
    """`Trainer.train` is called."""


class Walk:
    """The functions that were entered, in their order, and the most of them that stood on the stack at once."""

    def __init__(self) -> None:
        self.entered: dict[CodeType, None] = {}
        self.depth = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        if frame.f_code is Trainer.train.__code__:
            sys.setprofile(None)
            raise Arrived
        if not self._counts(frame):
            return
        self.entered.setdefault(frame.f_code)
        depth, above = 0, frame
        while above is not None:
            depth += self._counts(above)
            above = above.f_back
        self.depth = max(self.depth, depth)

    def _counts(self, frame: FrameType) -> bool:
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")  # no module, no class
        return bool(is_function) and code.co_filename.startswith(PACKAGE)


def walk(arguments: list[str]) -> Walk:
    """What a command enters before it trains."""
    found = Walk()
    sys.setprofile(found)
    try:
        main(arguments)
    except Arrived:
        return found
    finally:
        sys.setprofile(None)
    raise RuntimeError("the command did not train")


if __name__ == "__main__":
    made = walk(sys.argv[1:])
    for code in made.entered:
        print(f"{Path(code.co_filename).relative_to(PACKAGE)}, line {code.co_firstlineno}: {code.co_name}")
    print(
        f"{len(made.entered)} functions in {len({code.co_filename for code in made.entered})} files, {made.depth} deep"
    )
