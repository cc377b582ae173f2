"""Who makes which shard: sizes, order and claims; processes of unequal speed; a killed process's claim."""

from __future__ import annotations

import json
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
from gapbridge.store.shard_lease import ShardLeases, lease_order, shard_size_for


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
        store.write_shard(shard, filler.columns(given.part(*store.shard_range(shard))))
    assert opened(1).missing_shards() == opened(7).missing_shards() == list(range(3, 13))
    for shard in range(3, 13):
        store.write_shard(shard, filler.columns(given.part(*store.shard_range(shard))))
    store.finish()
    store.shard_path(0).write_bytes(b"damaged")
    assert opened(5).shard_size == 8  # from the manifest
    store.manifest_path.unlink()
    assert opened(5).shard_size == 8  # from the first shard that can be read


def test_longest_first_and_own_first(tmp_path: Path) -> None:
    given, store = filler.examples(7), filler.store_of(tmp_path, 7, 1)  # 1, 3, 5, 7, 5, 2, 4 tokens
    assert lease_order(range(7), store, given, 0, 2) == [3, 4, 1, 0, 2, 6, 5]
    assert lease_order(range(7), store, given, 1, 2) == [2, 6, 5, 3, 4, 1, 0]
    assert lease_order([1, 5], store, given, 1, 2) == [5, 1]
    assert lease_order(range(7), store, given, 0, 1) == list(range(7))


def test_a_claim_is_one_process_s_until_its_shard_is_there(tmp_path: Path) -> None:
    given, store = filler.examples(4), filler.store_of(tmp_path, 4, 2)
    store.directory.mkdir()
    first, second = ShardLeases(store, 0, 2), ShardLeases(store, 1, 2)
    with first.acquire_next([0, 1]) as mine, second.acquire_next([0, 1]) as other:
        assert (mine, other) == (0, 1) and second.poll([0, 1]) == ([0, 1], [])
        with ShardLeases(store, 1, 2).acquire_next([0, 1]) as none:
            assert none is None
        owner = json.loads(first.path(0).read_text())
        assert owner["process"] == 0 and owner["pid"] == os.getpid() and owner["host"]
        store.write_shard(0, filler.columns(given.part(0, 2)))
    assert second.poll([0, 1]) == ([1], [1])
    with second.acquire_next([0, 1]) as shard:  # 0 was made after the look that it comes from
        assert shard == 1
    with pytest.raises(KeyboardInterrupt), first.acquire_next([1]):
        raise KeyboardInterrupt
    assert not list(store.directory.glob(".claim-*"))


def test_claims_of_an_earlier_start_go(tmp_path: Path) -> None:
    store = filler.store_of(tmp_path, 5, 1)
    store.directory.mkdir()
    leases = ShardLeases(store, 1, 2)
    for shard, owner in enumerate((0, 1, 7)):
        leases.path(shard).write_text(json.dumps({"host": "h", "pid": 1, "process": owner}))
    leases.path(3).write_text("")  # killed before it was signed
    leases.release_stale()
    assert leases.poll(range(5)) == ([0, 1, 2, 3, 4], [1, 4])
    ShardLeases(store, 0, 2).release_stale()
    assert leases.poll(range(5)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])


def drawn(folder: Path) -> list[str]:
    return [row for path in folder.glob("drawn-*") for row in path.read_text().split()]


@pytest.mark.slow
@pytest.mark.nightly  # half a minute of waiting
def test_a_slow_process_delays_the_others_little(tmp_path: Path) -> None:
    rows, seconds = 240, [0.03, 0.03, 0.06]
    processes = filler.start(tmp_path, rows, seconds)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    # Not by the clock: other programs delay all three alike.
    shares = [len((tmp_path / f"drawn-{rank}").read_text().split()) * each for rank, each in enumerate(seconds)]
    even = rows / sum(1 / each for each in seconds)
    assert max(shares) < 1.3 * even, (shares, even)
    assert sorted(drawn(tmp_path)) == sorted(f"e{at}" for at in range(rows))  # each once
    store = filler.store_of(tmp_path, rows, 10)
    assert [row for shard in store.read() for row in shard["id"]] == [f"e{at}" for at in range(rows)]
    assert not list(store.directory.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("again", [1, 2, 3])
def test_a_killed_process_s_shard_is_made_at_the_next_start(again: int, tmp_path: Path) -> None:
    """Killed with all others while it holds a claim, then started again with fewer or as many processes."""
    rows, size = 30, 3
    processes = filler.start(tmp_path, rows, [0.05, 0.05, 0.2], size)
    directory = filler.store_of(tmp_path, rows, size).directory
    deadline = time.monotonic() + 60
    while len(list(directory.glob("shard-*"))) < 2 or len(list(directory.glob(".claim-*"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join(30)
    assert list(directory.glob(".claim-*")) and list(directory.glob(".heartbeat-*"))
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
