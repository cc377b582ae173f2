"""SIGTERM and Ctrl-C: saved once, an exit code of its own; the same command then gives the undisturbed result."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import ENVIRONMENT, killer
from helpers.kill_runs import (
    Undisturbed,
    assert_same,
    assert_whatever_has_a_name_is_whole,
    command,
    names,
    undisturbed,
)

from gapbridge.signals import (
    EXIT_INTERRUPTED,
    SAME_REQUEST_SECONDS,
    Interrupted,
    stop_after_step,
    stop_at_once,
)
from gapbridge.training.checkpoints import missing_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed("bash", tmp_path_factory.getbasetemp())


def test_exit_code_is_the_documented_one() -> None:
    assert EXIT_INTERRUPTED == os.EX_TEMPFAIL == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_between_steps_a_signal_stops_at_once(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=signal.Signals(number).name), stop_at_once():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


def test_a_step_ends_and_a_second_signal_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_after_step() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the same request through a launcher
        assert request.signal_number == signal.SIGTERM
        time.sleep(SAME_REQUEST_SECONDS + 0.1)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert capfd.readouterr().err.count("a checkpoint is saved") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "event", "checkpoint"),
    [
        (signal.SIGTERM, "step", 1),
        # In the last step the evaluation is made, then the checkpoint: a kill point of test_kill.py, too.
        pytest.param(signal.SIGINT, "forward", 4, marks=pytest.mark.nightly),
        (signal.SIGTERM, "generate", None),
        pytest.param(signal.SIGINT, "sync round_1/_contexts/.shard-00002", None, marks=pytest.mark.nightly),
    ],
    ids=["after a step", "in the last step", "generation", "shard"],
)
def test_saved_once_and_continued(
    number: int, event: str, checkpoint: int | None, whole: Undisturbed, tmp_path: Path
) -> None:
    run, output, log = tmp_path / "run", tmp_path / "output", tmp_path / "events"
    found = [at for at, line in enumerate(whole.events) if line.startswith(event)]
    at = found[3] if checkpoint == 4 else found[len(found) // 4 if event == "generate" else 0]
    code = killer.start(command("bash", run), run, output, log=log, at=at, signal_number=number)
    assert code == EXIT_INTERRUPTED, output.read_text()
    said = output.read_text()
    assert f"gapbridge: stopped by {signal.Signals(number).name}: start the same command again" in said
    assert "Traceback" not in said
    assert_whatever_has_a_name_is_whole(run, whole.run)
    assert not [name for name in names(run) if name.endswith(".tmp")]
    assert json.loads((run / "run.json").read_text())["state"] == "running"
    if checkpoint is not None:
        saved = run / "round_1" / f"checkpoint-{checkpoint}"
        assert missing_files(saved) is None and not (run / "round_1" / "model").exists()
        marks = [line for line in log.read_text().splitlines() if re.match(r"rename .*checkpoint-\d+/COMPLETE", line)]
        assert marks[-1].endswith(f"checkpoint-{checkpoint}/COMPLETE.json") and len(marks) == len(set(marks))
    assert killer.start(command("bash", run), run, output) == 0, output.read_text()
    extra = names(run) - names(whole.run)
    assert all("checkpoint-1" in name for name in extra)
    for name in sorted(extra, reverse=True):  # the checkpoint of the signal is the one thing that is different
        path = run / name
        path.rmdir() if path.is_dir() else path.unlink()
    assert_same(run, whole.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        pytest.param(["single"], marks=pytest.mark.nightly, id="single"),  # the easier case
        pytest.param(["ddp", "--num_processes", "2"], id="ddp"),
    ],
)
def test_through_the_launcher(launch: list[str], tmp_path: Path) -> None:
    """The launcher gets the signal; every process stops at the same step, and the code comes back."""
    run = tmp_path / "run"
    options = [*command("bash", run), "--use_cpu", "true", "--max_steps", "400", "--num_train_epochs", "100"]
    arguments = [sys.executable, "-m", "gapbridge", *options, "--accelerate_config", *launch]
    with open(tmp_path / "output", "w+") as output:
        process = subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=output)
        deadline = time.monotonic() + 200
        while not (run / "round_1" / "checkpoint-2" / "COMPLETE.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "output").read_text()[-3000:]
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == EXIT_INTERRUPTED, (tmp_path / "output").read_text()[-3000:]
    checkpoints = sorted(run.glob("round_1/checkpoint-*"))
    assert all(missing_files(path) is None for path in checkpoints)
    last = max(int(path.name.rpartition("-")[2]) for path in checkpoints)
    state = json.loads((run / "round_1" / f"checkpoint-{last}" / "trainer_state.json").read_text())
    assert state["global_step"] == last < 400
