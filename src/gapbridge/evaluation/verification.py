"""math-verify in processes of its own, so that an answer on which it hangs costs a timeout and nothing else.

Its own timeouts use signals, which work in the main thread only and otherwise give wrong verdicts silently; they are
off here, and a process that takes too long is killed.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from tqdm.auto import tqdm

from ..errors import ConfigError


TIMEOUT_SECONDS = 10.0
LONGEST = 20_000  # characters of an answer that are parsed, from its end


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
        ConfigError: math-verify is not installed.
    """
    missing = missing_packages()
    if missing:
        raise ConfigError(f'grading mathematics needs {" and ".join(missing)}: pip install "gapbridge[eval]"')
    from pebble import ProcessExpired, ProcessPool

    # Spawned: a fork of a process with PyTorch's threads can hang.
    context = multiprocessing.get_context("spawn")
    verdicts = []
    with ProcessPool(max_workers=workers, initializer=_quiet, context=context) as pool:
        futures = [
            pool.schedule(verify, args=(answer[-LONGEST:], reference[-LONGEST:]), timeout=timeout)
            for answer, reference in zip(answers, references, strict=True)
        ]
        for future in tqdm(futures, desc="math-verify", delay=2):
            try:
                verdicts.append(future.result())
            except (FutureTimeout, ProcessExpired):  # too slow, or the process died on it
                verdicts.append(Verification(correct=False, parsed=False, timed_out=True))
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


def _quiet() -> None:
    """math-verify warns at each call that its own timeouts are off."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
