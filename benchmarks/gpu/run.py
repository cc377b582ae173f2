"""Every figure that needs a GPU, in one command that fits the minutes that there are.

    python benchmarks/gpu/run.py --budget_minutes 8 --output benchmarks/results/gpu
    python benchmarks/gpu/run.py --device cpu --scale tiny --budget_minutes 3 --output outputs/gpu-dry

The steps run in the order of their worth, each in a process of its own with a time limit. Each writes `STEP.json`
after every case, so what was measured is kept whatever happens later. A step that fails or takes too long is recorded,
and the next one runs. The whole never takes longer than the budget. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# In the order of their worth, with the most seconds that each may take on a GPU.
STEPS = {
    "smoke": 100, "contexts": 60, "completions": 110, "method_cost": 110, "peak_memory": 60, "multi_token": 50,
    "sharding": 110, "kernels": 40,
}  # fmt: skip
_LEAST_SECONDS = 10  # with less time left no step is started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("--budget_minutes", type=float, default=8, help="the most minutes of the whole")
    parser.add_argument("--output", type=Path, required=True, help="a folder for STEP.json of each step")
    parser.add_argument("--wheels", type=Path, help="wheels of the packages that this machine lacks")
    parser.add_argument("--steps", default=",".join(STEPS), help="which, by commas (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--worker", choices=tuple(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        run_step(args)
        return
    deadline = time.monotonic() + 60 * args.budget_minutes
    names = args.steps.split(",")
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        parser.error(f"--steps: got {', '.join(unknown)}, expected some of {', '.join(STEPS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    paths = [str(ROOT / "src"), *filter(None, [environment.get("PYTHONPATH")])]
    if args.wheels:
        paths.insert(0, install(args.wheels, args.output.resolve() / "site"))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    errors = 0
    for name in names:
        left = deadline - time.monotonic()
        if left < _LEAST_SECONDS:
            close_record(args, name, "not started: the budget is spent")
            errors += 1
            continue
        state = in_a_process(name, args, environment, min(left, STEPS[name]))
        errors += state != "done"
        print(f"{name}: {state}, {deadline - time.monotonic():.0f} s left", flush=True)
    sys.exit(1 if errors else 0)


def run_step(args: argparse.Namespace) -> None:
    sys.path.insert(0, str(HERE))
    from common import Setup

    setup = Setup(args.worker, args.device, args.scale, args.output)
    setup.write("running")
    importlib.import_module(f"steps.{args.worker}").run(setup)
    faulty = [case for case, found in setup.cases.items() if "error" in found]
    setup.write(f"errors in {', '.join(faulty)}" if faulty else "done")


def in_a_process(name: str, args: argparse.Namespace, environment: dict[str, str], seconds: float) -> str:
    """Run a step in a session of its own, so that all of its processes end with it; return its state."""
    command = [sys.executable, __file__, "--worker", name, "--output", str(args.output)]
    command += ["--device", args.device, "--scale", args.scale]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return close_record(args, name, f"ended after {seconds:.0f} s: its time was over")
    if process.returncode:
        return close_record(args, name, f"failed with exit code {process.returncode}")
    state: str = json.loads((args.output / f"{name}.json").read_text())["state"]
    return state


def close_record(args: argparse.Namespace, name: str, state: str) -> str:
    """Write how a step ended beside what it has measured."""
    path = args.output / f"{name}.json"
    record = json.loads(path.read_text()) if path.exists() and not state.startswith("not started") else {"step": name}
    path.write_text(json.dumps({**record, "state": state}, indent=1) + "\n")
    return state


def install(wheels: Path, target: Path) -> str:
    """Unpack those of the wheels whose packages this machine lacks; what it has stays as it is."""
    missing = [path for path in sorted(wheels.glob("*.whl")) if not is_installed(path.name.split("-")[0])]
    if missing:
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, missing)], check=True)
    return str(target)


def is_installed(name: str) -> bool:
    wanted = re.sub(r"[-_.]+", "-", name).lower()
    return any(re.sub(r"[-_.]+", "-", found.name).lower() == wanted for found in importlib.metadata.distributions())


if __name__ == "__main__":
    main()
