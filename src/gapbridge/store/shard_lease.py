"""Which process makes which shard: each claims one at a time with a file, and the next when that one is written.

    _contexts/.claim-00003-of-00015    {"host": …, "pid": …, "process": …}

A claim is created exclusively and goes when its shard has its name. It only keeps two processes from the same work: a
shard that is made twice is written twice with the same bytes, since no context depends on who generates it. The sign
of life of its owner is the mark of `HeartbeatMonitor`. A killed process does not release its lease; the next start
takes it over.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc

from ..data.example import ExampleSet
from ..files import os_errors_as_run_error
from .context_store import ContextStore


LARGEST_SHARD = 512
SHARDS_PER_PROCESS = 8  # a process at a third of the others' speed then delays the end by about a quarter


def shard_size_for(rows: int, processes: int, batch_size: int) -> int:
    """Rows in a shard where none are asked for: every process gets up to eight shards of at most 512 rows.

    It gets fewer where its share holds fewer passes of `batch_size` rows: thin passes cost as much as full ones. One
    process does not share the store and has shards of 512.
    """
    if processes == 1:
        return LARGEST_SHARD
    passes = -(-rows // (processes * batch_size))
    shards = processes * max(1, min(SHARDS_PER_PROCESS, passes))
    return max(1, min(LARGEST_SHARD, -(-rows // shards)))


def lease_order(
    shards: Sequence[int], store: ContextStore, examples: ExampleSet, rank: int, world_size: int
) -> list[int]:
    """Shards in the order in which a process claims them.

    The one with most tokens comes first, so that a long one does not begin when the others are done. A process begins
    with every `world_size`-th of them and goes on with the others', so that processes seldom reach for the same.
    """
    if world_size == 1:
        return list(shards)
    table = examples.table.with_format("arrow")

    def tokens(shard: int) -> int:
        start, end = store.shard_range(shard)
        part = table[start:end]
        return sum(pc.sum(pc.list_value_length(part[name])).as_py() or 0 for name in ("prompt", "completion_ids"))

    longest_first = sorted(shards, key=tokens, reverse=True)
    own = set(longest_first[rank::world_size])
    return sorted(longest_first, key=lambda shard: shard not in own)  # stable: longest first in both halves


class ShardLeases:
    """One process's claims on the shards of a store. A process alone writes none."""

    def __init__(self, store: ContextStore, rank: int, world_size: int) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size

    def path(self, shard: int) -> Path:
        return self._store.directory / f".claim-{shard:05d}-of-{self._store.num_shards:05d}"

    def release_stale(self) -> None:
        """Before the first claim: delete those of this process from earlier starts.

        Process 0 deletes those of processes that there are no more, too, and those that have no owner.
        """
        for path in self._store.directory.glob(".claim-*"):
            owner = _owner(path)
            gone = owner is None or owner >= self._world_size
            if owner == self._rank or (gone and self._rank == 0):
                path.unlink(missing_ok=True)

    def poll(self, shards: Sequence[int]) -> tuple[list[int], list[int]]:
        """Those of `shards` that are not made yet, and those of them that have no lease: one listing."""
        try:
            names = set(os.listdir(self._store.directory))
        except FileNotFoundError:
            names = set()
        to_come = [shard for shard in shards if self._store.shard_path(shard).name not in names]
        return to_come, [shard for shard in to_come if self.path(shard).name not in names]

    @contextmanager
    def acquire_next(self, shards: Sequence[int]) -> Iterator[int | None]:
        """The first of `shards` that can be claimed, held inside; None where others were quicker everywhere.

        Raises:
            RunError: the claim cannot be written.
        """
        for shard in shards:
            if self._world_size == 1:
                yield shard
                return
            if not self._take(shard):
                continue
            try:
                if not self._store.shard_path(shard).exists():  # its owner may have been done just before
                    yield shard
                    return
            finally:
                self.path(shard).unlink(missing_ok=True)
        yield None

    def clear(self) -> None:
        """After the last shard: delete what is left."""
        for path in self._store.directory.glob(".claim-*"):
            path.unlink(missing_ok=True)

    def _take(self, shard: int) -> bool:
        path = self.path(shard)
        signature = {"host": socket.gethostname(), "pid": os.getpid(), "process": self._rank}
        with os_errors_as_run_error(path):
            try:
                file = open(path, "x", encoding="utf-8")
            except FileExistsError:
                return False
            with file:
                json.dump(signature, file)
        return True


def _owner(path: Path) -> int | None:
    """The process that a claim names, None where its writing was cut off."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
