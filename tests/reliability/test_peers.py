"""Signs of life: what is believed of another process's mark, and what is not."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import filler

from gapbridge import RunError
from gapbridge.store.generate_shards import generate_contexts
from gapbridge.store.heartbeat import HeartbeatMonitor, watch_processes


def wait_until_refused(peers: HeartbeatMonitor, words: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with pytest.raises(RunError, match=words):
        while time.monotonic() < deadline:
            peers.check()
            time.sleep(0.02)


def test_living_processes_are_left_alone_and_leave_nothing_behind(tmp_path: Path) -> None:
    with (
        HeartbeatMonitor(tmp_path, 0, 2, timeout=1.5) as first,
        HeartbeatMonitor(tmp_path, 1, 2, timeout=1.5) as second,
    ):
        for _ in range(125):
            first.check()
            second.check()
            time.sleep(0.02)
    assert not list(tmp_path.iterdir())


def test_a_mark_that_stands_still_is_a_dead_process(tmp_path: Path) -> None:
    with (
        HeartbeatMonitor(tmp_path, 0, 2, timeout=0.4) as first,
        HeartbeatMonitor(tmp_path, 1, 2, timeout=0.4) as second,
    ):
        first.check()
        time.sleep(0.3)
        first.check()
        second._stop.set()  # as SIGKILL stops it: without a word
        wait_until_refused(first, "process 1: got no sign of life .* Start the run again", 5)


def test_a_process_that_never_starts_is_given_up(tmp_path: Path) -> None:
    with HeartbeatMonitor(tmp_path, 0, 3, timeout=0.3) as monitor, HeartbeatMonitor(tmp_path, 1, 3, timeout=0.3):
        wait_until_refused(monitor, "^process 2: got no sign of life", 3)


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    with HeartbeatMonitor(tmp_path, 0, 2, timeout=60) as first:
        with pytest.raises(ValueError), HeartbeatMonitor(tmp_path, 1, 2, timeout=60):
            raise ValueError("no such token\nand a second line")
        with pytest.raises(
            RunError,
            match=r"process 1: got a failure \(ValueError: no such token\), expected none. Start the run again",
        ):
            first.check()


def test_marks_of_an_earlier_start_say_nothing(tmp_path: Path) -> None:
    mark = tmp_path / ".heartbeat-1"
    mark.write_text(json.dumps({"start": "before", "beat": 7, "failed": "KeyboardInterrupt: "}))
    with HeartbeatMonitor(tmp_path, 0, 2, timeout=0.3) as monitor:
        monitor.check()
        with HeartbeatMonitor(tmp_path, 1, 2, timeout=0.3):
            monitor.check()
    mark.write_text(json.dumps({"start": "before", "beat": 7, "failed": None}))
    with HeartbeatMonitor(tmp_path, 0, 2, timeout=0.3) as monitor:
        wait_until_refused(monitor, "process 1: got no sign of life", 3)


def test_all_hear_from_process_0_who_is_lost(tmp_path: Path) -> None:
    with ExitStack() as stack:
        monitor = [stack.enter_context(HeartbeatMonitor(tmp_path, rank, 5, timeout=1)) for rank in range(5)]
        for _ in range(15):
            for one in monitor:
                one.check()
            time.sleep(0.02)
        monitor[3]._stop.set()  # as SIGKILL stops it: without a word
        stopped = time.monotonic()
        for rank in (1, 2, 4, 0):
            wait_until_refused(monitor[rank], "^process 3: got no sign of life .* Start the run again", 10)
        assert 0.5 < time.monotonic() - stopped < 5


def test_a_dead_process_0_is_missed(tmp_path: Path) -> None:
    with HeartbeatMonitor(tmp_path, 0, 3, timeout=0.4) as first, HeartbeatMonitor(tmp_path, 2, 3, timeout=0.4) as last:
        for _ in range(10):
            last.check()
            time.sleep(0.02)
        first._stop.set()
        wait_until_refused(last, "process 0: got no sign of life", 5)


def test_marks_of_processes_that_there_are_no_more_go(tmp_path: Path) -> None:
    for rank in range(4):
        (tmp_path / f".heartbeat-{rank}").write_text("{}")
    with watch_processes(tmp_path, 1, 2, timeout=60):
        assert len(list(tmp_path.glob(".heartbeat-*"))) == 4
    with watch_processes(tmp_path, 0, 2, timeout=60):
        assert {path.name for path in tmp_path.iterdir()} == {".heartbeat-0"}
    with watch_processes(tmp_path, 0, 1, timeout=60):
        assert not list(tmp_path.iterdir())


class Reads:
    """Counts what is read in a directory: files opened for reading, listings, looks at whether a file exists."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.count, self.counting = str(directory), 0, False
        stat = os.stat

        def counted(path: Any, **options: Any) -> os.stat_result:
            self.read(path)
            return stat(path, **options)

        monkeypatch.setattr(os, "stat", counted)
        sys.addaudithook(self.audit)

    def audit(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.counting:
            return
        writes = os.O_WRONLY | os.O_RDWR
        if event in ("os.listdir", "os.scandir") or (event == "open" and not given[2] & writes):
            self.read(given[0])

    def read(self, path: Any) -> None:
        if self.counting and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.directory):
            self.count += 1


@pytest.mark.nightly  # 256 processes
@pytest.mark.slow
def test_256_processes_read_less_than_500_times_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them draws, and all others wait for it. They are threads here; what they do with files is the same."""
    world_size, seconds = 256, 8.0
    given, store = filler.examples(1), filler.store_of(tmp_path, 1, 1)
    go_on, generation = threading.Event(), threading.Event()

    def draw(part: list[Any], on_finished: Any) -> dict[str, list[Any]]:
        generation.set()
        go_on.wait()
        return filler.columns(part)

    def process(rank: int) -> None:
        generate_contexts(filler.store_of(tmp_path, 1, 1), given, filler.arguments(rank, world_size), draw, "drawing")

    processes = [threading.Thread(target=process, args=(rank,)) for rank in range(world_size)]
    for one in processes:
        one.start()
    while not generation.is_set() or len(list(store.directory.glob(".heartbeat-*"))) < world_size:
        time.sleep(0.1)
    reads = Reads(store.directory, monkeypatch)
    reads.counting = True
    time.sleep(seconds)
    reads.counting = False
    go_on.set()
    for one in processes:
        one.join(60)
    assert len(list(store.read())) == 1 and not list(store.directory.glob(".*"))
    print(f"{reads.count / seconds:.0f} reads a second")
    assert 100 < reads.count / seconds < 500


def test_one_process_writes_nothing(tmp_path: Path) -> None:
    with watch_processes(tmp_path, 0, 1, timeout=1) as check:
        check()
        assert not list(tmp_path.iterdir())
