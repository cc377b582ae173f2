"""A script in a process without GPUs: DeepSpeed compiles a communication kernel for CPUs that no step needs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import deepspeed


if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
    runpy.run_path(sys.argv[0], run_name="__main__")
