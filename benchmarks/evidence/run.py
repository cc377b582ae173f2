"""An experiment of the evidence, from nothing: the starting models of its seeds, then `gapbridge compare`.

    python benchmarks/evidence/run.py benchmarks/evidence/cpu/word_problems.yaml       (or: make evidence)
    python benchmarks/evidence/run.py EXPERIMENT.yaml --seeds 1 --dry_run
    python benchmarks/evidence/run.py EXPERIMENT.yaml --init_models_only

An experiment's `init_model` has shell commands with {seed} and {init_model} in them, which leave a model in
{init_model}. They write to a temporary name that becomes `directory` when the last one has ended well, so what is
there is whole and not made again. Other options are those of `gapbridge compare`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gapbridge.cli import guarded, run
from gapbridge.compare.experiment_config import Experiment, filled, read_experiment
from gapbridge.errors import RunError


def make_init_model(experiment: Experiment, seed: int) -> None:
    """The starting model of a seed, unless it is there.

    Raises:
        RunError: a command ended with another code than 0.
    """
    place = Path(experiment.init_model_directory(seed))
    if experiment.init_model is None or place.is_dir():
        return
    temporary = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    for command in experiment.init_model.commands:
        words = shlex.split(filled(command, seed, str(temporary)))
        words = [sys.executable if word == "python" else word for word in words]
        print(f"seed {seed}: {shlex.join(words)}", flush=True)
        code = subprocess.run(words, check=False).returncode
        if code:
            raise RunError(f"seed {seed}: {shlex.join(words)}: ended with code {code}; {place} is not made")
    temporary.replace(place)


def seeds_of(experiment: Experiment, options: Sequence[str]) -> Sequence[int]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=experiment.seeds)
    return list(parser.parse_known_args(options)[0].seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("experiment", type=Path, nargs="+")
    parser.add_argument("--init_models_only", action="store_true", help="make the starting models, and no more")
    args, options = parser.parse_known_args()

    def work() -> None:
        for path in args.experiment:
            experiment = read_experiment(path)
            for seed in seeds_of(experiment, options):
                make_init_model(experiment, seed)
            if not args.init_models_only:
                run(["compare", "--experiment_config", str(path), *options])

    with guarded():
        work()


if __name__ == "__main__":
    main()
