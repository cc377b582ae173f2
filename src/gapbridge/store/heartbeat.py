"""Signs of life between processes that work apart: each writes a mark into a shared directory.

    _contexts/.heartbeat-<rank>    {"start": …, "beat": n, "failed": null or a message}   0's: "lost": […]

Process 0 reads the marks of all others with each beat of its own, and its mark says which of them are lost; the others
read that one mark. P processes so read about P marks with a beat, not P².

While contexts are made no process waits in a collective, so no back end notices that one has died. A mark that no
longer changes tells it instead. Only changes count, timed by the reader's own clock: marks of an earlier start do not
change and so say nothing, and the clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from ..errors import RunError, describe
from ..files import write_json_atomic


HEARTBEAT_SECONDS = 5.0
HEARTBEAT_TIMEOUT_SECONDS = 180.0  # network file systems show a change up to a minute late
_ADVICE = "Start the run again to continue with what was made"


@contextmanager
def watch_processes(directory: Path, rank: int, world_size: int, timeout: float) -> Iterator[Callable[[], None]]:
    """A `HeartbeatMonitor` inside; the value is its `check`. A process alone watches nobody and writes nothing."""
    if rank == 0:  # what an earlier start with more processes left
        remaining = range(world_size) if world_size > 1 else ()
        for path in directory.glob(".heartbeat-*"):
            if path.name not in {f".heartbeat-{other}" for other in remaining}:
                path.unlink(missing_ok=True)
    if world_size == 1:
        yield lambda: None
        return
    with HeartbeatMonitor(directory, rank, world_size, timeout) as monitor:
        yield monitor.check


class HeartbeatMonitor:
    """This process's mark, and the marks of the others. A context manager: the mark beats inside.

    Args:
        directory: shared by all processes.
        rank, world_size: this process, and how many there are, two or more.
        timeout: seconds without a first sign of life after which a process is given up. After its first sign it is
        given up sooner, when its mark stands still for `HEARTBEAT_TIMEOUT_SECONDS`.
    """

    def __init__(self, directory: Path, rank: int, world_size: int, timeout: float) -> None:
        self._directory, self._path = directory, directory / f".heartbeat-{rank}"
        watched = range(1, world_size) if rank == 0 else range(1)
        self._watched = {other: directory / f".heartbeat-{other}" for other in watched}
        self._rank = rank
        self._timeout, self._patience = timeout, min(timeout, HEARTBEAT_TIMEOUT_SECONDS)
        self._start, self._beats = uuid.uuid4().hex, 0
        self._seen: dict[int, str] = {}
        self._changed: dict[int, float] = {}
        self._started: set[int] = set()
        self._lost: list[str] = []
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="gapbridge-alive", daemon=True)

    def __enter__(self) -> HeartbeatMonitor:
        self._seen = {rank: _read(path) for rank, path in self._watched.items()}
        self._changed = dict.fromkeys(self._watched, time.monotonic())
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._path.unlink(missing_ok=True)
        else:
            with suppress(RunError):  # the error that is on its way says more
                self._write(f"{type(error).__name__}: {error}".splitlines()[0])

    def check(self) -> None:
        """Look for lost processes.

        Raises:
            RunError: one of them failed or shows no sign of life any more. What is on disk is kept.
        """
        if errors := self._look():
            raise RunError(errors)

    def _look(self) -> list[str]:
        """Read the marks that this process watches; what is lost, the same from the first find on.

        Those that stop because another is lost are not lost themselves.
        """
        with self._looking:
            if self._lost:
                return self._lost
            now = time.monotonic()
            for rank, path in self._watched.items():
                text = _read(path)
                if text and text != self._seen[rank]:
                    self._seen[rank], self._changed[rank] = text, now
                    self._started.add(rank)
                failed, lost = _failure_message(text) if rank in self._started else (None, [])
                still = now - self._changed[rank]
                if lost:
                    self._lost += lost
                elif failed is not None:
                    self._lost.append(describe(f"process {rank}", f"a failure ({failed})", "none", _ADVICE))
                elif still > (self._patience if rank in self._started else self._timeout):
                    got, expected = f"no sign of life for {still:.0f} s", f"a mark every {HEARTBEAT_SECONDS:g} s"
                    self._lost.append(describe(f"process {rank}", got, expected, _ADVICE))
            return self._lost

    def _beat(self) -> None:
        while not self._stop.wait(min(HEARTBEAT_SECONDS, self._patience / 4)):
            if self._rank == 0:
                self._look()
            try:
                self._write()
            except RunError:  # a full disk: the shards, which matter, say so; the next beat may come through
                continue

    def _write(self, failed: str | None = None) -> None:
        self._beats += 1
        mark = {"start": self._start, "beat": self._beats, "failed": failed}
        if self._rank == 0:
            mark["lost"] = self._lost
        write_json_atomic(self._path, mark)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # not there yet, or being replaced on a network file system
        return ""


def _failure_message(text: str) -> tuple[str | None, list[str]]:
    """What a mark says: why its process failed, and which others are lost."""
    try:
        mark = json.loads(text)
        failed, lost = mark["failed"], mark.get("lost", [])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None, []
    return None if failed is None else str(failed), list(lost)
