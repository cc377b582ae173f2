"""One-line errors in the source, one at a time: which of them do the tests not notice?

    make mutants FOLDER=src/gapbridge/gap TESTS=tests/gap
    make mutants FOLDER=src/gapbridge/gap/forced_errors.py TESTS=tests/unit/gap/test_forced_errors.py COUNT=20 SEED=1

Each error goes into a copy of `src`, so the working tree stays as it is. The tests run in a process of their own and
end at the first failure. A survivor is a line whose effect no test holds, or a change that has no effect.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


ROOT = Path(__file__).parents[1]
_COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}
_DROPPED = (ast.Call, ast.AugAssign, ast.Raise)


@dataclass(frozen=True)
class Mutant:
    """A line of a file, and what stands in its place."""

    path: Path
    line: int
    text: str
    changed: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """The errors of a file: comparisons, sums, constants, conditions and statements that stand on one line."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()

    def with_text(node: ast.AST, text: str) -> Mutant:
        line = lines[node.lineno - 1]  # type: ignore[attr-defined]
        # Columns count bytes.
        start, end = (len(line.encode()[:at].decode()) for at in (node.col_offset, node.end_col_offset))  # type: ignore[attr-defined]
        return Mutant(path, node.lineno, line, line[:start] + text + line[end:])  # type: ignore[attr-defined]

    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.expr, ast.stmt)) or node.lineno != node.end_lineno:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            sign = _COMPARED[type(node.ops[0])]
            yield with_text(node, f"{ast.unparse(node.left)} {sign} {ast.unparse(node.comparators[0])}")
        elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
            sign = _COMPUTED[type(node.op)]
            yield with_text(node, f"({ast.unparse(node.left)} {sign} {ast.unparse(node.right)})")
        elif isinstance(node, ast.BoolOp):
            sign = " and " if isinstance(node.op, ast.Or) else " or "
            yield with_text(node, f"({sign.join(map(ast.unparse, node.values))})")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield with_text(node, ast.unparse(node.operand))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield with_text(node, str(not node.value))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield with_text(node, repr(node.value + 1))
        elif isinstance(node, ast.IfExp):
            yield with_text(node, f"({ast.unparse(node.body)})")
            yield with_text(node, f"({ast.unparse(node.orelse)})")
        elif isinstance(node, _DROPPED[1:]) or (isinstance(node, ast.Expr) and isinstance(node.value, _DROPPED[0])):
            yield with_text(node, "pass")


def survives(mutant: Mutant, tests: list[str], seconds: float) -> bool:
    """Whether the tests pass with the error. Tests that take longer than `seconds` have noticed it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        target = source / mutant.path.relative_to(ROOT / "src")
        lines = target.read_text(encoding="utf-8").splitlines()
        lines[mutant.line - 1] = mutant.changed
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-m", "not gpu and not nightly"]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*command, *tests], cwd=ROOT, env=environment, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder or a file of src")
    parser.add_argument("tests", nargs="+", help="the tests of that part")
    parser.add_argument("--count", type=int, help="how many errors are tried; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of so many")
    parser.add_argument("--seconds", type=float, default=600, help="the most that the tests may take")
    args = parser.parse_args()
    place = args.folder.resolve()
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    found = [mutant for path in files for mutant in mutants_of(path)]
    if args.count is not None and args.count < len(found):
        found = random.Random(args.seed).sample(found, args.count)
    survivors = []
    for mutant in tqdm(found, unit="fault"):
        if survives(mutant, args.tests, args.seconds):
            survivors.append(mutant)
            tqdm.write(f"{mutant.path.relative_to(ROOT)}:{mutant.line}\n- {mutant.text}\n+ {mutant.changed}")
    print(f"{len(survivors)} of {len(found)} errors go unnoticed")


if __name__ == "__main__":
    main()
