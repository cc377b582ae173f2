"""math-verify in processes of its own, so that an answer on which it hangs costs a timeout and nothing else.

Its own timeouts use signals, which work in the main thread only and otherwise give wrong verdicts silently; they are
off here, and a process that takes too long is killed. A process ends with the one that started it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from tqdm.auto import tqdm

from ..errors import ConfigError, RunError


TIMEOUT_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1  # of prctl(2)
MAX_ANSWER_LENGTH = 20_000  # characters of an answer that are parsed, from its end


@dataclass(frozen=True)
class Verification:
    """math-verify's verdict; `parsed` is whether it found an answer at all, `timed_out` whether it was stopped."""

    correct: bool
    parsed: bool
    timed_out: bool = False


def missing_packages() -> list[str]:
    """What is needed and not installed."""
    return [name for name in ("math_verify", "pebble") if importlib.util.find_spec(name) is None]


def verify_answers(
    answers: Sequence[str], references: Sequence[str], *, timeout: float = TIMEOUT_SECONDS, workers: int = 2
) -> list[Verification]:
    """Let math-verify compare each answer with its reference.

    Args:
        answers, references: texts, or the expressions alone where they are known.
        timeout: seconds for one pair; after that it counts as wrong and as timed out.
        workers: processes.

    Raises:
        ConfigError: math-verify is not installed. RunError: the processes end as soon as they start.
    """
    missing = missing_packages()
    if missing:
        got = f"no {' and '.join(missing)}"
        raise ConfigError("grading", got, "the packages for mathematics", "Install `gapbridge[eval]`")
    from pebble import ProcessExpired, ProcessPool

    # Spawned: a fork of a process with PyTorch's threads can hang.
    context = multiprocessing.get_context("spawn")
    verdicts = []
    with ProcessPool(max_workers=workers, initializer=_prepare, context=context) as pool:
        futures = [
            pool.schedule(verify, args=(answer[-MAX_ANSWER_LENGTH:], reference[-MAX_ANSWER_LENGTH:]), timeout=timeout)
            for answer, reference in zip(answers, references, strict=True)
        ]
        for future in tqdm(futures, desc="math-verify", delay=2):
            try:
                verdicts.append(future.result())
            except (FutureTimeout, ProcessExpired):  # too slow, or the process died on it
                verdicts.append(Verification(correct=False, parsed=False, timed_out=True))
            except BrokenExecutor as error:
                pool.stop()
                got = f"processes that end as they start ({error})"
                advice = "Start the command from a script with a main guard and with enough memory"
                raise RunError("math-verify", got, f"{workers} that grade", advice) from error
    return verdicts


def verify(answer: str, reference: str) -> Verification:
    """One comparison, in this process and without a timeout."""
    import math_verify
    from sympy import nan, zoo

    gold = math_verify.parse(reference, parsing_timeout=None)
    given = math_verify.parse(answer, parsing_timeout=None)
    if not given:
        return Verification(correct=False, parsed=False)
    # Divisions by zero (`6:00` read as a ratio) are equal to each other and to nothing.
    values = [[value for value in side if isinstance(value, str) or not value.has(zoo, nan)] for side in (gold, given)]
    correct = all(values) and math_verify.verify(*values, allow_set_relation_comp=True, timeout_seconds=None)
    return Verification(correct=correct, parsed=True)


def _prepare() -> None:
    """End with the parent process; and math-verify warns at each call that its own timeouts are off."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if sys.platform == "linux":  # a power of large numbers lets no thread run
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
