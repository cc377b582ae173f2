"""Run the command line in a process of its own, and kill it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def gapbridge(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, "-m", "gapbridge.cli", *arguments],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert not check or process.returncode == 0, process.stderr[-3000:]
    return process


def kill_when(condition: Callable[[], bool], *arguments: str, timeout: float = 180) -> None:
    """Start a command and SIGKILL it as soon as `condition` holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gapbridge.cli", *arguments],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < deadline, "the condition never came"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}
