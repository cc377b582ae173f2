"""SIGKILL at forty points of tiny BASH and RAC runs; the same command again gives what an undisturbed run gives."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from helpers import killer
from helpers.kill_runs import (
    Undisturbed,
    assert_a_checkpoint_is_kept,
    assert_same,
    assert_whatever_has_a_name_is_whole,
    command,
    undisturbed,
)


# stage: (events of the run that belong to it, kill points)
STAGES = {
    "generation": (r"generate", 4),
    "shard": (r"(open|sync|rename|remove) .*shard-", 4),
    "manifest": (r"(open|sync|rename) .*manifest\.json", 2),
    "training": (r"forward|step|open .*metrics\.jsonl", 4),
    "checkpoint": (r".* round_\d/checkpoint-", 3),
    "between rounds": (r".* round_\d/(\.model\.tmp|model$)|.* \.model\.safetensors\.tmp|rename run\.json", 3),
}
POINTS = [
    (method, stage, point)
    for method in ("bash", "rac")
    for stage, (_, count) in STAGES.items()
    for point in range(count)
]
DRAWN = set(random.Random(5).sample(POINTS, 4))  # what every run of CI takes; the nightly run takes all


def parameter(point: tuple[str, str, int]) -> object:
    marks = (pytest.mark.slow,) if point in DRAWN else (pytest.mark.slow, pytest.mark.nightly)
    return pytest.param(*point, marks=marks, id="-".join(map(str, point)))


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    return {method: undisturbed(method, tmp_path_factory.getbasetemp()) for method in ("bash", "rac")}


def moment(events: list[str], stage: str, point: int) -> int:
    """The number of the event at which to kill: `count` of them, spread evenly over the stage's events."""
    pattern, count = STAGES[stage]
    found = [number for number, event in enumerate(events) if re.match(pattern, event)]
    assert len(found) >= count, stage
    return found[(2 * point + 1) * len(found) // (2 * count)]


def test_there_are_twenty_points_a_method() -> None:
    assert len(POINTS) == 40 and len(DRAWN) >= 4


@pytest.mark.parametrize(("method", "stage", "point"), [parameter(point) for point in POINTS])
def test_killed_and_started_again_equals_undisturbed(
    method: str, stage: str, point: int, whole_runs: dict[str, Undisturbed], tmp_path: Path
) -> None:
    full = whole_runs[method]
    at = moment(full.events, stage, point)
    run, output, log = tmp_path / "run", tmp_path / "output", tmp_path / "events"
    assert killer.start(command(method, run), run, output, log=log, at=at) == -9
    assert log.read_text().splitlines() == full.events[: at + 1]
    assert_whatever_has_a_name_is_whole(run, full.run)
    assert_a_checkpoint_is_kept(run, full.events[: at + 1])
    assert killer.start(command(method, run), run, output) == 0, output.read_text()
    assert_same(run, full.run)
