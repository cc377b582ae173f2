"""A comparison without its single answers, small enough to keep: settings, versions, every variant's score of every
seed.

    python benchmarks/evidence/summary.py outputs/noise-share --output benchmarks/results/noise-share-tiny-cpu.json

The folder is one that `gapbridge compare` left.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from gapbridge.cli import guarded
from gapbridge.errors import RunError
from gapbridge.files import write_json_atomic


def read_record(folder: Path) -> dict[str, Any]:
    """Raises RunError where no comparison has ended in `folder`."""
    path = folder / "compare.json"
    if not path.exists():
        raise RunError(
            f"{path}: is not there; run benchmarks/evidence/run.py with the experiment of that folder first"
        )
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def replaced(folder: Path, record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """variant → seed → the share of the tokens with loss that another token replaced, where contexts were drawn
    once."""
    found: dict[str, dict[str, float]] = {}
    for cell in record["cells"]:
        path = folder / f"seed_{cell['seed']}" / cell["variant"] / "round_1" / "generation_stats.json"
        counts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if counts.get("replaced"):
            found.setdefault(cell["variant"], {})[str(cell["seed"])] = counts["replaced"] / counts["tokens"]
    return found


def where_made(record: dict[str, Any]) -> dict[str, Any]:
    environment = record["environment"]
    return {
        "machine": f"{platform.machine()} CPU",
        "versions": {**environment["packages"], "python": environment["python"]},
    }


def summary(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    return {
        "settings": record["settings"],
        **where_made(record),
        "replaced": replaced(folder, record),
        "rows": record["rows"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    args = parser.parse_args()
    with guarded():
        write_json_atomic(args.output, summary(args.folder))


if __name__ == "__main__":
    main()
