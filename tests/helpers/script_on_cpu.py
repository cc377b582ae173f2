"""A script in a process without GPUs, where two things are otherwise: DeepSpeed compiles a communication kernel for
CPUs that no step needs, and gloo's threads can abort an interpreter that ends just after its last collective."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import deepspeed


if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.stdout.flush()
    sys.stderr.flush()
    # The thread that ran the last collective lets go of its tensors when it can, for which it needs the interpreter;
    # torch ends the process with SIGABRT where that is being torn down. The handbook's scripts end with an evaluation.
    os._exit(0)
