"""`vllm serve` on this machine, from the environment that `tests/vllm_env.sh` makes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import ROOT


ENVIRONMENT = Path(os.environ.get("GAPBRIDGE_VLLM", ROOT / ".venv-vllm"))
VLLM = ENVIRONMENT / "bin" / "vllm"
START_SECONDS = 600  # of a machine with other work


@contextmanager
def serving(model: Path | str, folder: Path, *options: str) -> Iterator[str]:
    """The address of a server of the model, in float32; its log is `folder/vllm.log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [VLLM, "serve", model, "--dtype", "float32", "--host", "127.0.0.1", "--port", port, *options]
    command.append("--enforce-eager")  # compiling takes minutes
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = folder / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command)], stdout=output, stderr=output, env=environment, cwd=ROOT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_up(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-5000:]
            time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return int(response.status) == 200
    except OSError:
        return False
