"""Whether tiny runs still have the contexts, rows and weights that they had: hashes, compared with `exactness.json`.

    python tests/exactness.py              compare, exit code 1 where one differs
    python tests/exactness.py --write      make the file again

The reference is that of commit 9d159eb on a CPU with one thread, with the versions that the file names. Hashed is what
the files hold, column by column, not the files: formats and names of columns may change. Another kind of CPU sums in
another order, so that weights and what follows from them differ there: compare with what an older commit prints there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file


ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).with_suffix(".json")
ROUNDS = ["--num_rounds", "2"]
DRAFTS = ["--max_completion_length", "40"]
OPTIONS = {  # of a method
    "sft": [],
    "bash": [*ROUNDS, "--temperature", "1.2"],
    "rac": [*ROUNDS, *DRAFTS],
    "spin": [*ROUNDS, *DRAFTS],
    "pause": ["--pause_placement", "random"],
    "mtp": [],
}
VERSIONS = ("torch", "transformers", "trl")


def run(method: str, directory: Path) -> None:
    """Train the tiny recipe of a method from the embedded base, four steps a round."""
    options = {
        "model_name_or_path": "recipes/tiny/base", "output_dir": directory, "max_train_examples": 32,
        "max_eval_examples": 4, "per_device_train_batch_size": 8, "max_steps": 4, "save_strategy": "no",
        "logging_steps": 1,
    }  # fmt: skip
    line = [sys.executable, "-m", "gapbridge", method, "--config", f"recipes/tiny/{method}/config_full.yaml"]
    line += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_CACHE": str(directory.parent / "cache"),
    }  # fmt: skip
    subprocess.run([*line, *OPTIONS[method]], check=True, env=environment, cwd=ROOT, capture_output=True)


def hashes(directory: Path) -> dict[str, str]:
    """Contexts and rows of each round and part, and the weights of each round."""
    found: dict[str, Any] = {}
    for stage in sorted(directory.glob("round_*")):
        for folder in sorted(stage.glob("_*contexts")):
            shards = (pq.read_table(path) for path in sorted(folder.glob("shard-*")))
            found[f"{stage.name} {folder.name.strip('_')}"] = _columns(shards)
        for path in sorted((stage / "_rows").glob("*.arrow")):
            with pa.memory_map(str(path)) as source:
                found[f"{stage.name} rows {path.stem.split('-')[0]}"] = _columns(
                    [pa.ipc.open_stream(source).read_all()]
                )
        for path in sorted((stage / "model").glob("*.safetensors")):
            weights = [[name, weight.dtype.str, weight.tobytes()] for name, weight in sorted(load_file(path).items())]
            found[f"{stage.name} {path.name}"] = _digest(repr(entry).encode() for entry in weights)
    return found


def _columns(tables: Iterable[pa.Table]) -> str:
    table = pa.concat_tables(table.replace_schema_metadata() for table in tables)
    return _digest(json.dumps(column.to_pylist()).encode() for column in table.columns)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the reference again")
    parser.add_argument("--method", action="append", choices=OPTIONS, help="only this one")
    options = parser.parse_args()
    made: dict[str, Any] = {"versions": {name: metadata.version(name) for name in VERSIONS}}
    for method in options.method or OPTIONS:
        with TemporaryDirectory() as folder:
            run(method, Path(folder) / "run")
            made[method] = hashes(Path(folder) / "run")
    if options.write:
        REFERENCE.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        return
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    differing = [name for name, found in made.items() if found != reference[name]]
    for name in differing:
        print(f"{name}: got {json.dumps(made[name], indent=2)}, expected {json.dumps(reference[name], indent=2)}")
    print(f"{len(made) - len(differing)} of {len(made)} parts as in {REFERENCE.name}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
