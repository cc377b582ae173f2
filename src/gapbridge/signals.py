"""SIGTERM and Ctrl-C: stop where nothing is lost, and say so by an exit code of its own.

Two handlers, and the one that was installed last counts. The command line installs `stop_at_once`: loading, generation
and whatever lies between stages stop where they are, since what has its name on disk is whole. Training installs
`stop_after_step` on top: the running step ends, a checkpoint is saved, then the run stops. A second signal stops at
once there, too. Batch systems and terminals deliver one request more than once (to the process, and again through its
launcher), so signals that follow each other within `SAME_REQUEST_SECONDS` are one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: start it again
SAME_REQUEST_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop. What is whole on disk is kept; the same command continues."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)


@dataclass
class StopRequest:
    """Which signal came, and when; 0 for none."""

    signal_number: int = 0
    seconds: float = 0.0


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C raise `Interrupted`."""
    process = os.getpid()

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker has nothing to put in order
            signal.signal(signal_number, signal.SIG_DFL)
            os.kill(os.getpid(), signal_number)
            return
        raise Interrupted(signal_number)

    with _handled_by(handle):
        yield


@contextmanager
def stop_after_step(*, announce: bool = True) -> Iterator[StopRequest]:
    """Within it the first signal is noted in the request, for `gapbridge.training.checkpoints.SaveAndStop`; a second
    raises `Interrupted`."""
    request, process = StopRequest(), os.getpid()

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a terminal signals the workers of a data loader, too: they end with the training
            return
        now = time.monotonic()
        if request.signal_number and now - request.seconds > SAME_REQUEST_SECONDS:
            raise Interrupted(signal_number)
        if not request.signal_number:
            request.signal_number, request.seconds = signal_number, now
            if announce:  # written past Python's buffers: the signal may have come while they were locked
                name = signal.Signals(signal_number).name
                os.write(2, f"\n{name}: the step ends and a checkpoint is saved; again: stop at once\n".encode())

    with _handled_by(handle):
        yield request


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
