"""Tiny runs of two rounds, made once undisturbed, and what must hold of runs that were disturbed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import BASE

from gapbridge.training.checkpoints import COMPLETE_FILE, last_complete_checkpoint, missing_files
from gapbridge.training.metrics import read_metrics
from helpers import contents, killer


CONTEXTS = ("round_*/_contexts/shard-*", "round_*/_contexts/manifest.json", "round_*/_eval_contexts/*.parquet")
WEIGHTS = ("round_*/model/model.safetensors", "model.safetensors")


def command(method: str, run: Path) -> list[str]:
    """Two rounds of four steps with two checkpoints each; six shards of contexts and one held-out shard.

    RAC's rounds end in the middle of an epoch, at a rate that is not zero: a step too many would show. They keep one
    checkpoint.
    """
    own = {
        "bash": [],
        "rac": [
            "--max_completion_length", "40", "--max_steps", "4", "--lr_scheduler_type", "constant",
            "--save_total_limit",
            "1",
        ],
    }[method]  # fmt: skip
    return [
        method, "--config", f"recipes/tiny/{method}/config_full.yaml", "--model_name_or_path", str(BASE),
        "--output_dir", str(run), "--max_train_examples", "48", "--max_eval_examples", "4", "--generation_shard_size",
        "8",
        "--per_device_train_batch_size", "12", "--num_train_epochs", "1", "--num_rounds", "2", "--save_steps", "2",
        "--logging_steps", "1", "--generation_batch_size", "4", *own,
    ]  # fmt: skip


@dataclass(frozen=True)
class Undisturbed:
    """A run that was left alone, and its events in their order."""

    method: str
    run: Path
    events: list[str]


@cache  # one for all the modules here
def undisturbed(method: str, base: Path) -> Undisturbed:
    folder = base / f"undisturbed-{method}"
    folder.mkdir()
    run, log, output = folder / "run", folder / "events", folder / "output"
    assert killer.start(command(method, run), run, output, log=log) == 0, output.read_text()
    return Undisturbed(method, run, log.read_text().splitlines())


def names(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*")}


def losses(run: Path) -> list[tuple[str, int, float]]:
    stages = sorted(run.glob("round_*"))
    return [
        (stage.name, entry["step"], entry[key])
        for stage in stages
        for entry in read_metrics(stage)
        for key in ("loss", "eval_loss", "eval_generated_loss")
        if key in entry
    ]


def assert_whatever_has_a_name_is_whole(run: Path, whole: Path) -> None:
    """After a death at any moment: nothing that a later run takes for whole is anything else."""
    for pattern in (*CONTEXTS, *WEIGHTS):
        made = contents(whole, pattern)
        assert all(made[name] == found for name, found in contents(run, pattern).items())
    for path in run.rglob("*.json"):
        in_the_making = any(part.startswith(".") or part.startswith("checkpoint-") for part in path.parts[-3:])
        assert in_the_making or json.loads(path.read_text())
    for path in run.glob("round_*/checkpoint-*"):
        assert not (path / COMPLETE_FILE).exists() or missing_files(path) is None


def assert_a_checkpoint_is_kept(run: Path, events: list[str]) -> None:
    """A round that has had a complete checkpoint has one at any later moment."""
    for event in events[:-1]:
        if marked := re.match(rf"rename (round_\d)/checkpoint-\d+/{COMPLETE_FILE}", event):
            assert last_complete_checkpoint(run / marked[1]) is not None


def assert_same(run: Path, whole: Path) -> None:
    """Contexts byte for byte, weights bit for bit, losses, and no file more or less."""
    for pattern in (*CONTEXTS, *WEIGHTS):
        assert contents(run, pattern) == contents(whole, pattern) != {}
    assert losses(run) == losses(whole) != []
    assert names(run) == names(whole)
    assert json.loads((run / "run.json").read_text())["state"] == "complete"
