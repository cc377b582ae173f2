"""What is made once and kept: one process makes it, the others wait for its file, and the next start opens it again.

    HF_DATASETS_CACHE/gapbridge/train-0123456789abcdef.arrow     the data as token ids
    output_dir/round_1/_rows/train-89abcdef01234567.arrow        the rows of a round; eval-…, eval_generated-…

A file is named by a hash of everything that determines it: data, tokenizer and template, settings, contexts, the
libraries that tokenise, and `DATA_VERSION`. What was made of something else has another name, and is not found.
Examples are made before a run is accepted, when nothing may be written into its directory: they lie in the cache of
`datasets`, one copy for each machine and for all runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets import Dataset, config
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.arrow_files import content_fingerprint, record_path
from ..data.special_tokens import stop_tokens
from ..files import directory_removed_on_error, locked
from ..store.fingerprint import tokenizer_fingerprint
from ..store.generate_shards import wait_until
from ..store.heartbeat import watch_processes
from .config import RUNTIME_ONLY_KEYS
from .hooks import MethodHooks


ROWS = "_rows"  # a leading underscore is left out of what is pushed to a hub
# Raised when this package makes other examples or rows of the same data. `test_data_version.py` finds out.
DATA_VERSION = 2
_LIBRARIES = ("transformers", "tokenizers", "trl", "jinja2")  # whose code makes tokens of text


def table_path(directory: Path, part: str, identity: Mapping[str, Any]) -> Path:
    """Where the table of a part (`train`, `eval`) lies; `identity`: everything that determines it."""
    made_by = {"data_version": DATA_VERSION, **{name: metadata.version(name) for name in _LIBRARIES}}
    payload = json.dumps({**identity, "made_by": made_by}, sort_keys=True, default=str)
    return directory / f"{part}-{hashlib.blake2b(payload.encode(), digest_size=8).hexdigest()}.arrow"


def cache_key_settings(args: Any) -> dict[str, Any]:
    """All of a configuration but what changes neither data nor weights: `read` and `rows` may look at any of it."""
    free = RUNTIME_ONLY_KEYS | args.runtime_only_keys() | {"local_rank"}
    return {entry.name: vars(args).get(entry.name) for entry in fields(args) if entry.name not in free}


def artifact_identity(
    method: type[MethodHooks],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | PeftModel | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What determines the tables of all parts besides data. A large tokenizer takes a while to hash: once for all."""
    return {
        "method": f"{method.__module__}.{method.__qualname__}",
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "stops": stop_tokens(tokenizer, model),
        "settings": settings,
    }


def examples_cache() -> Path:
    """Where examples are kept."""
    return Path(config.HF_DATASETS_CACHE) / "gapbridge"


def examples_path(part: str, dataset: Dataset, identity: Mapping[str, Any]) -> Path:
    """Where the examples of a part lie; `identity`: all that they depend on besides `dataset`."""
    return table_path(examples_cache(), part, {**identity, "data": content_fingerprint(dataset)})


@contextmanager
def built_once(path: Path, args: Any, *, each_machine: bool = False) -> Iterator[bool]:
    """Around code that makes the table at `path` where it gets True: in process 0, unless the table is there. The
    others wait for it when they leave.

    Args:
        each_machine: whether runs share the place of `path` and machines may not, so that the first process of each
            makes it.

    Raises:
        RunError: another process failed, or shows no sign of life any more.
    """
    if record_path(path).exists():
        yield False
        return
    rank, count, signs = args.process_index, args.world_size, path.parent
    if each_machine:
        rank, count = args.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", count))
        signs = path.with_name(f".{path.stem}-{socket.gethostname()}")  # of this machine alone
    with watch_processes(signs, rank, count, args.ddp_timeout) as check:
        if rank == 0 and each_machine:  # runs share the place: another one may be quicker
            with directory_removed_on_error(path.parent), locked(path.with_suffix(".lock")):
                yield not record_path(path).exists()
        else:
            yield rank == 0
        if rank > 0:
            what = f"process 0 to make {path.name}"
            wait_until(record_path(path).exists, what, check, count)
    if each_machine:
        with suppress(OSError):  # others are inside
            signs.rmdir()
