"""Who makes which shard: sizes and shares; processes that are killed together and started again."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_llama
from helpers import contents, filler

from gapbridge.decoding import SamplingParams
from gapbridge.methods.bash.mixed_contexts import CONTEXT_SCHEMA
from gapbridge.store.context_store import recorded_shard_size
from gapbridge.store.generate_shards import GenerationSpec, open_context_store
from gapbridge.store.shard_assignment import assigned_shards, shard_size_for


@pytest.mark.parametrize(
    ("rows", "processes", "batch_size", "size"),
    [
        (7_473, 64, 64, 59),  # GSM8K: 127 shards
        (7_473, 8, 64, 117),
        (1_319, 8, 64, 55),  # held-out rows: three for each
        (200_000, 8, 64, 512),
        (7_473, 1, 64, 512),
        (5, 8, 64, 1),
        (0, 4, 64, 1),
    ],
)
def test_shard_size(rows: int, processes: int, batch_size: int, size: int) -> None:
    assert shard_size_for(rows, processes, batch_size) == size


def test_shards_leave_no_process_without_and_cost_no_pass_more() -> None:
    for rows in (65, 100, 500, 1_000, 7_473, 30_001):
        for processes in (2, 3, 8, 64):
            for batch_size in (1, 16, 64):
                size = shard_size_for(rows, processes, batch_size)
                shards = math.ceil(rows / size)
                assert shards > processes / 2 and (size == 512 or shards <= 8 * processes)
                even = math.ceil(math.ceil(rows / processes) / batch_size)
                assert math.ceil(shards / processes) * math.ceil(size / batch_size) <= 2 * even


def test_the_size_of_what_is_there_stays(tmp_path: Path, tokenizer: Any) -> None:
    contexts = GenerationSpec(
        {"method": "bash"}, SamplingParams(), CONTEXT_SCHEMA, lambda part, done: filler.columns(part), "drawing"
    )
    given, model = filler.examples(100), tiny_llama()

    def opened(processes: int, shard_size: int | None = None) -> Any:
        args = filler.arguments(0, processes)
        args.generation_shard_size, args.generation_batch_size, args.mixed_precision = shard_size, 8, "no"
        return open_context_store(contexts, model, tokenizer, given, args, tmp_path / "contexts", weights="w")

    assert recorded_shard_size(tmp_path) is None
    store = opened(2)
    assert store.shard_size == 8 and opened(1).shard_size == 512 and opened(2, 30).shard_size == 30
    for shard in range(3):
        store.write_shard(shard, filler.columns(given.part(*store.shard_ranges[shard])))
    assert opened(1).missing_shards() == opened(7).missing_shards() == list(range(3, 13))
    for shard in range(3, 13):
        store.write_shard(shard, filler.columns(given.part(*store.shard_ranges[shard])))
    store.finish()
    store.shard_paths[0].write_bytes(b"damaged")
    assert opened(5).shard_size == 8  # from the manifest
    store.manifest_path.unlink()
    assert opened(5).shard_size == 8  # from the first shard that can be read


def test_the_longest_rows_are_spread(tmp_path: Path) -> None:
    given, store = filler.examples(7), filler.store_of(tmp_path, 7, 1)  # 1, 3, 5, 7, 5, 2, 4 tokens
    assert [assigned_shards(store, given, rank, 2) for rank in range(2)] == [[3, 6, 5, 0], [2, 4, 1]]
    assert assigned_shards(store, given, 0, 1) == list(range(7))
    assert [assigned_shards(store, given, rank, 9) for rank in range(9)][7:] == [[], []]


@pytest.mark.parametrize("processes", [1, 2, 3, 8, 64])
def test_each_shard_is_one_process_s(processes: int, tmp_path: Path) -> None:
    """Whatever is made already; the shares are even to a shard, also where lengths rise with the row."""
    rows = 300
    given, store = filler.examples(rows), filler.store_of(tmp_path, rows, 3)
    store.write_shard(5, filler.columns(given.part(15, 18)))
    shares = [assigned_shards(store, given, rank, processes) for rank in range(processes)]
    assert sorted(shard for share in shares for shard in share) == list(range(store.num_shards))
    tokens = [
        sum(len(e.prompt) + len(e.completion_ids) for s in share for e in given.part(3 * s, 3 * s + 3))
        for share in shares
    ]
    assert max(tokens) - min(tokens) <= 21  # three rows of seven tokens


@pytest.mark.slow
@pytest.mark.parametrize("again", [1, 2, 3])
def test_killed_processes_shards_are_made_at_the_next_start(again: int, tmp_path: Path) -> None:
    """Killed together while all generate, then started again with fewer or as many processes: each row is made once
    more at most."""
    rows, size = 30, 3
    processes = filler.start(tmp_path, rows, [0.05, 0.05, 0.2], size)
    directory = filler.store_of(tmp_path, rows, size).directory
    deadline = time.monotonic() + 60
    while len(list(directory.glob("shard-*"))) < 2 or len(list(tmp_path.glob("drawn-*"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join(30)
    assert list(directory.glob(".heartbeat-*"))
    made = contents(directory, "shard-*")
    processes = filler.start(tmp_path, rows, [0.001] * again, size)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * again
    full = tmp_path / "whole"
    full.mkdir()
    for process in filler.start(full, rows, [0.0], size):
        process.join(60)
    assert made.items() <= contents(directory, "*").items()
    assert contents(directory, "shard-*") == contents(full / "contexts", "shard-*") != {}
    assert contents(directory, "manifest.json") == contents(full / "contexts", "manifest.json")
    assert not [path for path in directory.glob(".*") if path.suffix != ".tmp"]  # those go when a run starts
