"""Bounds for chat templates: a faulty one raises anything, never ends, or fills the memory.

A template that has not been rendered before is tried in a process of its own, whose seconds and memory the operating
system bounds: nothing in Python stops one long operation, such as a power of large numbers. Later renderings have a
bound of seconds alone.
"""

from __future__ import annotations

import functools
import math
import os
import resource
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from ..errors import ConfigError, DataError, GapbridgeError


MAX_SECONDS = 10  # of processor time, for one rendering
MAX_CHARACTERS = 50_000_000
_MAX_BYTES = 1 << 30  # that a first rendering may take
_TIMEOUT_SECONDS = 60  # seconds of waiting, after which a process that does not compute is given up

# What a template can raise, its own `raise_exception` among them.
RENDER_ERRORS = (
    TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError, RuntimeError,
    MemoryError,
)  # fmt: skip

_TOO_LARGE, _TOO_LONG = 3, 4  # exit codes of the process that tries a template
_EXCESSES = {
    _TOO_LARGE: "a rendering that takes more than 1 GiB of memory",
    _TOO_LONG: f"a rendering with more than {MAX_CHARACTERS:,} characters",
    -signal.SIGXCPU: f"a rendering that takes more than {MAX_SECONDS} seconds",
    -signal.SIGKILL: "a rendering that takes more memory than the machine has",
    -signal.SIGSEGV: "a rendering that nests too deep",
}
_EXPECTED = "a text about as long as the turns"


class _OutOfTime(Exception):
    """A rendering used its seconds."""


@contextmanager
def bounded_rendering() -> Iterator[None]:
    """Around a rendering: what the template raises becomes an error of this package, and its processor time is bounded
    in the main thread. Elsewhere there are no signals to do so.

    Raises:
        ConfigError: it took more than `MAX_SECONDS`, or is no Jinja. DataError: it refuses the row.
    """
    has_signals = threading.current_thread() is threading.main_thread()

    def stop(*_: Any) -> None:
        raise _OutOfTime

    if has_signals:
        handler = signal.signal(signal.SIGVTALRM, stop)
        before = signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
    try:
        yield
    except _OutOfTime as error:
        raise ConfigError("chat_template", _EXCESSES[-signal.SIGXCPU], _EXPECTED, "Correct the template") from error
    except GapbridgeError:
        raise
    except TemplateSyntaxError as error:
        place = f"chat_template, line {error.lineno}"
        raise ConfigError(place, error, "a Jinja template", "Correct chat_template") from error
    except RENDER_ERRORS as error:
        said = isinstance(error, (TemplateError, ValueError, TypeError)) and str(error)
        got = f"a row that the template refuses ({said or f'{type(error).__name__} {error}'.strip()})"
        raise DataError(
            "chat template", got, "one that it renders", "Change the row, or use another template"
        ) from error
    finally:
        if has_signals:
            signal.setitimer(signal.ITIMER_VIRTUAL, *before)
            signal.signal(signal.SIGVTALRM, handler)


def try_once(source: str, render: Callable[[], str]) -> None:
    """Render with a template for the first time in this process: in a child, under bounds.

    What the template raises is not looked at: it raises that again.

    Raises:
        ConfigError: it takes too many seconds or bytes, or gives too many characters.
    """
    if error := _EXCESSES.get(_exit_code(_Trial(source, render))):
        raise ConfigError("chat_template", error, _EXPECTED, "Correct the template")


@dataclass(frozen=True)
class _Trial:
    """A first rendering with a template. Two are the same where the template is."""

    source: str
    render: Callable[[], str] = field(compare=False)


@functools.lru_cache(maxsize=256)
def _exit_code(trial: _Trial) -> int:
    """How a child ends that renders: 0 also for one that had to be given up without having computed."""
    reading, writing = os.pipe()  # the child's end closes when it is gone, however it ends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads: the child uses none of what they hold
        child = os.fork()
    if not child:
        os._exit(_in_child(trial.render))
    os.close(writing)
    ended, *_ = select.select([reading], [], [], _TIMEOUT_SECONDS)
    os.close(reading)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else 0


def _in_child(render: Callable[[], str]) -> int:
    sys.unraisablehook = lambda _: None  # what a bound breaks off says nothing on the terminal
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(MAX_SECONDS), math.ceil(MAX_SECONDS) + 1))
    used = Path("/proc/self/statm")
    if used.exists():  # Linux
        room = int(used.read_text().split()[0]) * resource.getpagesize() + _MAX_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard == resource.RLIM_INFINITY or room < hard:
            resource.setrlimit(resource.RLIMIT_AS, (room, hard))
    try:
        return _TOO_LONG if len(render()) > MAX_CHARACTERS else 0
    except MemoryError:
        return _TOO_LARGE
    except RENDER_ERRORS:
        return 0
