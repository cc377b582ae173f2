"""Write the figures of the last GPU run into the docs, or `not measured`.

python benchmarks/gpu/tables.py           # docs/research/cost.md, docs/research/memory-estimates.md
python benchmarks/gpu/tables.py --check   # exit code 1 where a file does not hold what the run says
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
ABSENT = "not measured"
_GIB = 2**30
_WAYS = ("SFT", "SCS, 1 pass", "SCS, exact", "BASH", "RAC", "SPIN", "GKD", "SDFT")
_METHODS = ("sft", "bash", "rac", "dpo", "mtp")


def cases_of(step: str, results: Path) -> dict[str, Any]:
    """The cases that a step measured on a GPU; none where it has not run."""
    path = results / f"{step}.json"
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("settings", {}).get("device") != "cuda":
        return {}
    return {name: case for name, case in record["cases"].items() if "error" not in case}


def machine_of(step: str, results: Path) -> str:
    if not cases_of(step, results):
        return "Not measured on GPU."
    record = json.loads((results / f"{step}.json").read_text(encoding="utf-8"))
    return f"{record['machine']}; {record['versions']}."


def cost_table(results: Path) -> str:
    """× SFT of every way, by the length of answers."""
    cases = cases_of("method_cost", results)

    def cell(way: str, answer: int) -> str:
        case = cases.get(f"{way}, answers of {answer} tokens")
        return ABSENT if case is None else f"{case['times_sft']:.2f}"

    lines = ["| × SFT on a GPU, 1 B parameters | answers of 64 tokens | answers of 512 tokens |", "|---|---|---|"]
    lines += [f"| {way} | {cell(way, 64)} | {cell(way, 512)} |" for way in _WAYS]
    return "\n".join([machine_of("method_cost", results), "", *lines])


def plan_table(results: Path) -> str:
    """GiB that are planned, and that a run took."""
    cases = cases_of("peak_memory", results)

    def cells(shape: str, name: str) -> str:
        case = cases.get(f"{shape}: {name}")
        if case is None:
            return f"{ABSENT} | {ABSENT}"
        return f"{case['planned_bytes'] / _GIB:.2f} | {case['measured_bytes'] / _GIB:.2f}"

    lines = ["| run on a GPU | plan, GiB | measured, GiB |", "|---|---|---|"]
    lines += [f"| {name}, {shape} | {cells(shape, name)} |" for shape in ("135m", "1b") for name in _METHODS]
    return "\n".join([machine_of("peak_memory", results), "", *lines])


TABLES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "docs/research/cost.md": ("method_cost", cost_table),
    "docs/research/memory-estimates.md": ("peak_memory", plan_table),
}  # fmt: skip


def filled(text: str, step: str, table: str) -> str:
    """The page with the table between its two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- gpu/{step}.json -->", f"<!-- /gpu/{step}.json -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"got no {begin}, expected a place for the table")
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    stale = []
    for name, (step, table) in TABLES.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        wanted = filled(text, step, table(RESULTS))
        if wanted != text:
            stale.append(name)
            if not args.check:
                path.write_text(wanted, encoding="utf-8")
    print(", ".join(stale) or "nothing to write")
    sys.exit(1 if stale and args.check else 0)


if __name__ == "__main__":
    main()
