r"""Text from data as a terminal may show it: control characters as `\x1b`, so that none moves the cursor."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


# C0 but the tab and the line break, DEL, C1, what turns the direction of writing, and halves of surrogate pairs, which
# no stream can encode.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""The text with `\x1b` for an escape character, and so on for every control character but "\n" and "\t"."""
    return _CONTROL.sub(lambda found: _escaped(ord(found[0])), str(text))


def say(*lines: object) -> None:
    """Print lines that may hold text from data."""
    print(*map(printable, lines), sep="\n", flush=True)


@contextmanager
def notice_if_slow(text: str, seconds: float = 5.0) -> Iterator[None]:
    """Print a line to stderr if what is done takes longer, so that no command is silent for long."""
    timer = threading.Timer(seconds, lambda: print(printable(text), file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class PrintableFormatter(logging.Formatter):
    """Log messages that may hold text from data, with the level of those that warn."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        return printable(level + super().format(record))


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
