"""Which process makes which shard: decided by the examples alone, so that all processes decide alike and none asks."""

from __future__ import annotations

import pyarrow.compute as pc

from ..data.example import ExampleSet
from .context_store import ContextStore


LARGEST_SHARD = 512
SHARDS_PER_PROCESS = 8  # so the long rows spread, and little is lost when a process is killed


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


def assigned_shards(store: ContextStore, examples: ExampleSet, rank: int, world_size: int) -> list[int]:
    """The shards that a process makes, those with most tokens first.

    The longest shard goes to the process that has the fewest tokens so far. Shards that are made already count, too:
    processes that look at different moments must not decide differently.
    """
    if world_size == 1:
        return list(range(store.num_shards))
    table = examples.table.with_format("arrow")

    parts = [table[start:end] for start, end in store.shard_ranges]
    tokens = [
        sum(pc.sum(pc.list_value_length(part[name])).as_py() or 0 for name in ("prompt", "completion_ids"))
        for part in parts
    ]
    loads = [0] * world_size
    own = []
    for shard in sorted(range(store.num_shards), key=lambda shard: -tokens[shard]):
        process = loads.index(min(loads))
        loads[process] += tokens[shard]
        if process == rank:
            own.append(shard)
    return own
