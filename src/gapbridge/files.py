"""Files that are either whole or not there: write under a temporary name, flush to disk, rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import RunError, describe, first_line


logger = logging.getLogger(__name__)

_LOCK_LOOKS, _LOCK_PAUSE_SECONDS = 20, 0.1
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)\.tmp")
_CONTINUE = "and repeat the command, which continues from the complete files"
_WAYS_OUT = {
    errno.ENOSPC: f"Make room on the disk {_CONTINUE}",
    errno.EDQUOT: f"Make room within the quota {_CONTINUE}",
    errno.EFBIG: f"Raise the limit on file sizes (ulimit -f) {_CONTINUE}",
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to fill inside; then it is flushed to disk and renamed to `path`.

    After a crash at any moment `path` holds the old content, the new content, or does not exist; it is never partial.
    """
    path = Path(path)
    with os_errors_as_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def os_errors_as_run_error(path: Path) -> Iterator[None]:
    """Around code that writes `path`: what the operating system refuses becomes a `RunError` with the way out."""
    try:
        yield
    except (OSError, ValueError) as error:
        # The writer of `datasets` closes its file a second time, and so hides what was refused.
        refused = error.__context__ if isinstance(error, ValueError) else error
        if (
            not isinstance(refused, OSError) or refused.errno is None
        ):  # not of the operating system: a hub's answer, say
            raise
        advice = _WAYS_OUT.get(refused.errno, "Choose an output_dir that can be written")
        raise RunError(_describe_write(path, refused.strerror, advice)) from error
    except SafetensorError as error:  # its writer is not Python's, and keeps the reason in its text
        raise RunError(_describe_write(path, error, _WAYS_OUT[errno.ENOSPC])) from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):  # of torch.save
            raise
        raise RunError(_describe_write(path, first_line(error), _WAYS_OUT[errno.ENOSPC])) from error


def _describe_write(path: Path, reason: object, advice: str) -> str:
    return describe(path, f"a file that cannot be written ({reason})", "a writable one", advice)


@contextmanager
def directory_removed_on_error(path: Path) -> Iterator[None]:
    """Make a directory; after an exception inside it is gone again, with the parents made for it, unless it holds
    something.

    Raises:
        RunError: it cannot be made.
    """
    with os_errors_as_run_error(path):
        made = [place for place in (path, *path.parents) if not place.exists()]  # the innermost first
        path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for place in made:
            if not place.exists() or any(place.iterdir()):
                break
            place.rmdir()
        raise


@contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """`directory_removed_on_error`, and inside no other process of this machine is inside, too.

    The system gives the directory free when the process ends, however it ends: nothing is left on disk that says
    otherwise. File systems that know no locks, as some of networks, give no protection.

    Raises:
        RunError: another process uses the directory.
    """
    with directory_removed_on_error(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for _ in range(_LOCK_LOOKS):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # what a killed process had started may end a moment after it
                    time.sleep(_LOCK_PAUSE_SECONDS)
                except OSError as error:
                    logger.warning("%s cannot be locked (%s). Start no second run in it.", path, error.strerror)
                    break
            else:
                got, advice = "a directory that another process is using", "choose another output_dir"
                raise RunError(f"output_dir {path}", got, "a free one", f"Wait until that run ends, or {advice}")
            yield
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process is inside for the same lock file; file systems that know no locks keep nobody out."""
    with os_errors_as_run_error(path), open(path, "a") as file:
        with suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def remove_leftovers(directories: Iterable[Path]) -> None:
    """Delete the temporary files that `atomic_file` of a killed process left in `directories`."""
    for directory in directories:
        for path in directory.glob(".*.tmp"):
            name = _TEMPORARY.fullmatch(path.name)
            if name is not None and path.is_file() and not _is_another_process(int(name["process"])):
                path.unlink(missing_ok=True)


def _is_another_process(process: int) -> bool:
    """Whether a process with this number runs and is not this one (which has written nothing yet)."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or a directory's entries, to disk, so that it or a rename in it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
