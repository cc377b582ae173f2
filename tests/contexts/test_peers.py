"""Signs of life: what is believed of another process's mark, and what is not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gapbridge import RunError
from gapbridge.contexts.peers import Peers


def wait_until_refused(peers: Peers, words: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with pytest.raises(RunError, match=words):
        while time.monotonic() < deadline:
            peers.check()
            time.sleep(0.02)


def test_living_processes_are_left_alone_and_leave_nothing_behind(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 2, timeout=1.5) as first, Peers(tmp_path, 1, 2, timeout=1.5) as second:
        for _ in range(125):
            first.check()
            second.check()
            time.sleep(0.02)
    assert not list(tmp_path.iterdir())


def test_a_mark_that_stands_still_is_a_dead_process(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 2, timeout=0.4) as first, Peers(tmp_path, 1, 2, timeout=0.4) as second:
        first.check()
        time.sleep(0.3)
        first.check()
        second._stop.set()  # as SIGKILL stops it: without a word
        wait_until_refused(first, "process 1 has shown no sign of life .* start the run again", 5)


def test_a_process_that_never_starts_is_given_up(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 3, timeout=0.3) as peers, Peers(tmp_path, 1, 3, timeout=0.3):
        wait_until_refused(peers, "^process 2 has shown no sign of life", 3)


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 2, timeout=60) as first:
        with pytest.raises(ValueError), Peers(tmp_path, 1, 2, timeout=60):
            raise ValueError("no such token\nand a second line")
        with pytest.raises(RunError, match=r"process 1 failed \(ValueError: no such token\); what was made is kept"):
            first.check()


def test_marks_of_an_earlier_start_say_nothing(tmp_path: Path) -> None:
    mark = tmp_path / ".alive-1"
    mark.write_text(json.dumps({"start": "before", "beat": 7, "failed": "KeyboardInterrupt: "}))
    with Peers(tmp_path, 0, 2, timeout=0.3) as peers:
        peers.check()
        with Peers(tmp_path, 1, 2, timeout=0.3):
            peers.check()
    mark.write_text(json.dumps({"start": "before", "beat": 7, "failed": None}))
    with Peers(tmp_path, 0, 2, timeout=0.3) as peers:
        wait_until_refused(peers, "process 1 has shown no sign of life", 3)


def test_one_process_writes_nothing(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 1, timeout=1) as peers:
        peers.check()
        assert not list(tmp_path.iterdir())
