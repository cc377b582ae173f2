"""Checkpoints with a mark of completeness: a half-written one is never resumed from.

transformers takes the checkpoint with the highest number, whole or not, and resumes without a complaint where the
optimizer's state is missing. Here a mark, `COMPLETE.json`, is written last, after all processes have written their
part; it lists every file with its size and sha256, and only a checkpoint whose mark is there and true is resumed from.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from transformers import IntervalStrategy, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..files import os_errors_as_run_error, sha256, sync, write_json_atomic
from ..signals import Interrupted, StopRequest


logger = logging.getLogger(__name__)

COMPLETE_FILE = "COMPLETE.json"
_HASHED_AT_ONCE = 8  # files


def mark_complete(checkpoint: Path, world_size: int, *, only_model: bool = False) -> None:
    """Flush the files of a checkpoint to disk, then write its mark. `only_model`: it has no state of the optimizer."""
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != COMPLETE_FILE]
    paths = [path for path in paths if not path.name.endswith(".tmp")]
    with os_errors_as_run_error(checkpoint):
        for path in paths:
            sync(path)
    names = [str(path.relative_to(checkpoint)) for path in paths]
    record = {
        "world_size": world_size,
        "only_model": only_model,
        "files": {name: path.stat().st_size for name, path in zip(names, paths, strict=True)},
        "sha256": dict(zip(names, _hashes(paths), strict=True)),
    }
    write_json_atomic(checkpoint / COMPLETE_FILE, record)


def _hashes(paths: Sequence[Path]) -> list[str]:
    """Of several files at a time: hashing leaves the interpreter to the other threads."""
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        return list(threads.map(sha256, paths))


def missing_files(checkpoint: Path) -> str | None:
    """Why `checkpoint` cannot be resumed from, or None if it is whole."""
    mark = checkpoint / COMPLETE_FILE
    if not mark.is_file():
        return f"it has no {COMPLETE_FILE}, because writing it was interrupted"
    try:
        record = json.loads(mark.read_text(encoding="utf-8"))
        files, only_model = dict(record["files"]), record.get("only_model", False)
        hashes = dict(record.get("sha256", {}))  # older marks have none
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its {COMPLETE_FILE} is damaged"
    if not files:
        return f"its {COMPLETE_FILE} is damaged and lists no file"
    if only_model:
        return "save_only_model omitted the state of the optimizer"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
    there = [name for name in hashes if (checkpoint / name).is_file()]
    for name, found in zip(there, _hashes([checkpoint / name for name in there]), strict=True):
        if found != hashes[name]:
            return f"{name} is damaged: its sha256 differs from the recorded one"
    return None


def last_complete_checkpoint(directory: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None. Incomplete and damaged ones are passed over with a
    warning."""
    for path in _newest_first(directory):
        reason = missing_files(path)
        if reason is None:
            return path
        logger.warning("skipped the checkpoint %s: %s", path, reason)
    return None


def agreed_checkpoint(directory: Path) -> Path | None:
    """`last_complete_checkpoint` of the main process, in all of them: one reads and hashes the files."""
    state, found = PartialState(), [""]
    if state.is_main_process:
        found = [str(last_complete_checkpoint(directory) or "")]
    broadcast_object_list(found)
    return Path(found[0]) if found[0] else None


def newest_marked(directory: Path) -> Path | None:
    """The checkpoint with the highest step that has a mark, whatever became of its files since; None for none."""
    return next((path for path in _newest_first(directory) if (path / COMPLETE_FILE).is_file()), None)


def _newest_first(directory: Path) -> list[Path]:
    numbered = []
    for path in Path(directory).glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if path.is_dir() and step.isdecimal():
            numbered.append((int(step), path))
    return [path for _, path in sorted(numbered, reverse=True)]


def evaluation_follows(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether the step that has just ended is the last before the evaluation at the end of an epoch."""
    at_the_end = float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
    return at_the_end and args.eval_strategy == IntervalStrategy.EPOCH


class SaveAfterEvaluation(TrainerCallback):
    """Puts off a checkpoint due at the last step of an epoch until the epoch's evaluation is in it.

    A run resumed from that step goes on with the next epoch: it would never evaluate this one.
    """

    _due = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if control.should_save and evaluation_follows(args, state):
            self._due, control.should_save = True, False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._due:
            self._due, control.should_save = False, True


class StopAtLastStep(TrainerCallback):
    """Ends a run that was resumed from its last step, without an evaluation or a checkpoint more.

    transformers looks at the number of epochs only, and would train one step too many where the last step lies inside
    an epoch. `TrainerGuardMixin.get_batch_samples` keeps that step's batches back.
    """

    _over = False

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._over = state.global_step >= state.max_steps
        control.should_training_stop = control.should_training_stop or self._over

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._over:
            control.should_evaluate = control.should_save = False


@dataclass(eq=False)
class SaveAndStop(TrainerCallback):
    """Saves a checkpoint at the end of the step in which a signal came, and raises `Interrupted` when it is whole.

    The processes agree on the step: a signal reaches them at different moments, and a checkpoint is saved by all.
    transformers' own `enable_jit_checkpoint` saves each process at a step of its own, possibly in the middle of
    accumulation, without our mark, and ends as if training had.
    """

    request: StopRequest
    _agreed = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        mine = torch.tensor(float(self.request.signal_number), device=args.device)
        if args.world_size > 1:
            mine = reduce(mine, reduction="sum")
        if mine.item():
            self._agreed = self.request.signal_number or signal.SIGTERM  # another process got the signal
            control.should_save = not evaluation_follows(args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        control.should_save = control.should_save or bool(self._agreed)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        if self._agreed:
            PartialState().wait_for_everyone()  # one that left would make the launcher stop the others
            raise Interrupted(self._agreed)
