"""What is made once and kept: one process makes it, the others wait for its file, and the next start opens it again.

    _examples/train-0123456789abcdef.arrow          the data as token ids
    round_1/_rows/train-89abcdef01234567.arrow      the rows of a round; eval-…, eval_own-…

A file is named by a hash of everything that determines it: data, tokenizer and template, settings, contexts, and the
code itself. What was made of other data, with another option or by another version has another name, and is not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.arrow_files import content_fingerprint, record_path
from ..data.example import ExampleSet
from ..data.serialization import load_saved_examples, save_examples
from ..data.special_tokens import stop_tokens
from ..files import missing_directories, remove_empty
from ..store.fingerprint import tokenizer_fingerprint
from ..store.generate_shards import poll_seconds, wait_until
from ..store.heartbeat import HeartbeatMonitor
from .config import RUNTIME_ONLY_KEYS
from .hooks import MethodHooks


Opened = TypeVar("Opened")
EXAMPLES = "_examples"  # a leading underscore is left out of what is pushed to a hub
ROWS = "_rows"
_VERSIONS = ("transformers", "tokenizers", "trl", "jinja2")  # whose code makes tokens of text


def table_path(directory: Path, part: str, identity: Mapping[str, Any]) -> Path:
    """Where the table of a part (`train`, `eval`) lies; `identity`: everything that determines it."""
    payload = json.dumps({**identity, "code": _code()}, sort_keys=True, default=str)
    return directory / f"{part}-{hashlib.blake2b(payload.encode(), digest_size=8).hexdigest()}.arrow"


def cache_key_settings(args: Any) -> dict[str, Any]:
    """All of a configuration but what changes neither data nor weights: `read` and `rows` may look at any of it."""
    free = RUNTIME_ONLY_KEYS | args.runtime_only_keys() | {"local_rank"}
    return {entry.name: vars(args).get(entry.name) for entry in fields(args) if entry.name not in free}


def artifact_identity(
    method: type[MethodHooks], tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What determines the tables of all parts. A large tokenizer takes a while to hash: once for all of them."""
    return {"method": method_name(method), "tokenizer": tokenizer_fingerprint(tokenizer), "settings": settings}


def examples_identity(
    method: type[MethodHooks], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, args: Any
) -> dict[str, Any]:
    """What examples depend on besides the data."""
    shared = artifact_identity(method, tokenizer, cache_key_settings(args))
    return {**shared, "stops": stop_tokens(tokenizer, model)}


def get_or_build(path: Path, args: Any, make: Callable[[], None], open_it: Callable[[], Opened]) -> Opened:
    """What `open_it` gives of the table at `path`, which process 0 makes (`make`) unless it is there; the others wait.

    All go on together: whoever is refused afterwards takes back a file that all have opened, and no sign of life is
    left beside it.

    Raises:
        RunError: another process failed, or shows no sign of life any more.
    """
    if not record_path(path).exists():
        with HeartbeatMonitor(path.parent, args.process_index, args.world_size, args.ddp_timeout) as monitor:
            if args.process_index == 0:
                make()
            else:
                wait_until(
                    record_path(path).exists,
                    lambda: f"process 0 to make {path.parent.name}",
                    monitor.check,
                    poll_seconds(args.world_size),
                )
    opened = open_it()
    if args.world_size > 1:
        PartialState().wait_for_everyone()
    return opened


def get_or_build_examples(
    method: type[MethodHooks],
    directory: Path,
    part: str,
    dataset: Dataset,
    identity: Mapping[str, Any],
    args: Any,
    read: Callable[[], ExampleSet],
) -> ExampleSet:
    """The examples of a part, read by process 0 and mapped into memory by all; those of an earlier start where they
    were made of the same.

    Args:
        dataset: what `read` reads; `identity`: all else that it depends on.

    Raises:
        GapbridgeError: what `read` raises; in the other processes a RunError that names it.
        StoreError: what is there is damaged.
    """
    path = table_path(directory, part, {**identity, "data": content_fingerprint(dataset)})
    return get_or_build(
        path,
        args,
        lambda: save_examples(read(), path),
        lambda: load_saved_examples(path, method.example_set, check=args.process_index == 0),
    )


def method_name(method: type[MethodHooks]) -> str:
    return f"{method.__module__}.{method.__qualname__}"


def prune_stale_artifacts(directory: Path, examples: Mapping[str, ExampleSet]) -> None:
    """Delete the examples in `directory` that are none of these."""
    remaining = {Path(file["filename"]).stem for part in examples.values() for file in part.table.cache_files}
    for path in directory.glob("*-*"):
        if path.stem not in remaining and path.suffix in (".arrow", ".json") and not path.name.startswith("."):
            path.unlink(missing_ok=True)


class RollbackOnError:
    """Around what may still be refused: after an exception the files that came into `directory` are gone again, with
    the directories that were made for them, unless `commit` was called.

    `active`: whether this process is the one that writes them.
    """

    def __init__(self, directory: Path, *, active: bool) -> None:
        self._directory, self._active = directory, active

    def __enter__(self) -> RollbackOnError:
        self._made = missing_directories(self._directory)
        self._before = set(self._files())
        PartialState().wait_for_everyone()  # each has looked before one makes anything
        return self

    def commit(self) -> None:
        self._active = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._active:
            return
        for path in set(self._files()) - self._before:
            path.unlink(missing_ok=True)
        remove_empty(self._made)

    def _files(self) -> list[Path]:
        return list(self._directory.glob("[!.]*"))  # hidden: the signs of life that others may still read


@cache
def _code() -> str:
    """A hash of this package's sources and of the versions of what it tokenises with."""
    digest = hashlib.blake2b(json.dumps([metadata.version(name) for name in _VERSIONS]).encode(), digest_size=16)
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()
