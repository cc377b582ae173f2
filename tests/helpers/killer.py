"""Run the command line in a process of its own that counts what it does, and signals itself at a chosen count.

Events are what the interpreter and torch themselves report: audit events for files that are opened for writing,
renamed, linked, removed or made below the run's directory, torch's hooks for forward passes and optimizer steps.
Nothing of the package is replaced. Each event is a line of a log, so that a first, undisturbed run gives the points at
which later ones are killed.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from helpers import SERVER, begin


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Events:
    """Counts events into `log`; at number `at` (from 0) the process sends itself a signal.

    A file is flushed (kind `sync`) after it was written: a SIGKILL there leaves half of it, as in the middle of the
    write.
    """

    def __init__(self, run: Path, log: Path, at: int | None, signal_number: int) -> None:
        self.run, self.at, self.signal_number, self.count = str(run), at, signal_number, 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def happened(self, kind: str, path: str = "") -> None:
        place = re.sub(r"\.\d+\.tmp", ".tmp", os.path.relpath(path, self.run)) if path else ""
        os.write(self.log, f"{kind} {place}".strip().encode() + b"\n")
        self.count += 1
        if self.count - 1 == self.at:
            if kind == "sync" and self.signal_number == signal.SIGKILL:
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), self.signal_number)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._file("sync" if arguments[1] in ("r+", "rb+") else "open", arguments[0])
        elif event in ("os.rename", "os.link"):
            self._file(event.removeprefix("os."), arguments[1])
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self._file(event.removeprefix("os."), arguments[0])

    def _file(self, kind: str, path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.run + os.sep):
            self.happened(kind, os.fspath(path))


def work(arguments: list[str], run: str, output: str, log: str | None, at: int | None, signal_number: int) -> None:
    """What the process does."""
    begin(output, output)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from transformers import PreTrainedModel

    from gapbridge import cli

    if log is not None:
        events = Events(Path(run), Path(log), at, signal_number)

        def forward(module: torch.nn.Module, inputs: object) -> None:
            if isinstance(module, PreTrainedModel) and module.base_model is module:
                events.happened("forward" if module.training else "generate")

        register_module_forward_pre_hook(forward)
        register_optimizer_step_post_hook(lambda *_: events.happened("step"))
        sys.addaudithook(events.audit)
    cli.main(arguments)


def start(
    arguments: list[str],
    run: Path,
    output: Path,
    *,
    log: Path | None = None,
    at: int | None = None,
    signal_number: int = signal.SIGKILL,
) -> int:
    """Run a command to its end, or its death; return the exit code, negative for a signal."""
    given = (arguments, str(run), str(output), log and str(log), at, signal_number)
    process = SERVER.Process(target=work, args=given)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode
