"""Checkpoints with a mark of completeness: a half-written one is never resumed from.

transformers takes the checkpoint with the highest number, whole or not, and resumes without a complaint where the
optimizer's state is missing. Here a mark, `COMPLETE.json`, is written last, after all processes have written their
part; it lists every file with its size, and only a checkpoint whose mark is there and true is resumed from.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .files import write_json_atomic


logger = logging.getLogger(__name__)

MARK = "COMPLETE.json"


class MarkComplete(TrainerCallback):
    """Writes the mark after each save."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        PartialState().wait_for_everyone()
        if args.should_save:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", args.world_size)


def mark_complete(checkpoint: Path, world_size: int) -> None:
    files = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARK
    }
    write_json_atomic(checkpoint / MARK, {"world_size": world_size, "files": files})


def why_incomplete(checkpoint: Path) -> str | None:
    """Why `checkpoint` cannot be resumed from, or None if it is whole."""
    mark = checkpoint / MARK
    if not mark.is_file():
        return f"it has no {MARK}: writing it was interrupted"
    try:
        files = json.loads(mark.read_text(encoding="utf-8"))["files"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return f"its {MARK} is damaged"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
    return None


def last_complete_checkpoint(directory: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None. Incomplete ones are passed over with a warning."""
    numbered = []
    for path in Path(directory).glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if path.is_dir() and step.isdecimal():
            numbered.append((int(step), path))
    for _, path in sorted(numbered, reverse=True):
        reason = why_incomplete(path)
        if reason is None:
            return path
        logger.warning("%s is passed over: %s", path, reason)
    return None
