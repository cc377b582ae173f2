"""A disk that takes no more: the error says so and the way out, and the run goes on when there is room.

A limit on the size of files (RLIMIT_FSIZE) stands for a full disk: the operating system refuses the same writes.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import recipe, refused

from gapbridge import cli
from gapbridge.errors import RunError
from gapbridge.files import atomic_file, remove_leftovers, write_text_atomic
from gapbridge.training.checkpoints import COMPLETE_FILE, last_complete_checkpoint


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left(tmp_path: Path) -> None:
    what = "report.md: got a file that cannot be written .No space left on device.*Make room on the disk"
    with pytest.raises(RunError, match=what), atomic_file(tmp_path / "report.md") as temporary:
        temporary.write_text("half")
        Path("/dev/full").write_text("the other half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "where"),
    [
        (100, "rows.arrow"),  # the data as token ids, before anything is made of them
        pytest.param(4_500, "rows.arrow", marks=pytest.mark.nightly),  # as it is closed
        (6_600, "_rows/train-"),
        pytest.param(600_000, "checkpoint-1", marks=pytest.mark.nightly),  # in the weights
        (6_000_000, "checkpoint-1"),  # in the state of the optimizer
    ],
)
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    size: int, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = recipe(tmp_path, max_steps=2, save_steps=1)
    cli.main(["preview", *options])  # the cache of `datasets` is filled: it has a file system of its own
    with file_size_limit(size):
        said = refused(capsys, "bash", *options)
    assert said.startswith("RunError") and where in said and "cannot be written" in said
    assert "ulimit -f" in said or "Make room" in said
    run = tmp_path / "run"
    assert not list(run.rglob("*.tmp")) and not list(run.rglob(COMPLETE_FILE))
    cli.main(["bash", *options])
    assert last_complete_checkpoint(run / "round_1") == run / "round_1" / "checkpoint-2"


def test_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    mine = (".shard-00000-of-00002.parquet.999999999.tmp", ".manifest.json.4194304.tmp")
    others = (".shard-00001-of-00002.parquet.1.tmp", ".cache.tmp", "notes.tmp", "shard-00000-of-00002.parquet")
    for name in (*mine, *others):
        (tmp_path / name).write_text("half")
    remove_leftovers([tmp_path])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    write_text_atomic(tmp_path / "a", "b")
    assert (tmp_path / "a").read_text() == "b"
