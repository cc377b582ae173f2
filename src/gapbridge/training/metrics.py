"""What a trainer logs: `metrics.jsonl`, a line each, while it runs; and what is logged once at its start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..files import os_errors_as_run_error, write_text_atomic
from ..jsonl import read_json_lines


class MetricsFile(TrainerCallback):
    """Writes each log entry as a line of `output_dir/metrics.jsonl`.

    At the start the file is written again from the trainer's state, so that after a resume it holds each step once.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            write_text_atomic(_metrics_path(args), "".join(json.dumps(entry) + "\n" for entry in state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            path = _metrics_path(args)
            with os_errors_as_run_error(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")


@dataclass(eq=False)
class LogAtStart(TrainerCallback):
    """Has a trainer log `values` once, before the first step; a resumed one has them in its state.

    Args:
        log: the trainer's `log`.
    """

    log: Callable[[dict[str, float]], None]
    values: dict[str, float]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.values and not any(self.values.keys() <= entry.keys() for entry in state.log_history):
            self.log(dict(self.values))


def _metrics_path(args: TrainingArguments) -> Path:
    return Path(args.output_dir) / "metrics.jsonl"


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The numbers in the log entries of a round, oldest first; a torn or damaged line is left out."""
    path = directory / "metrics.jsonl"
    lines = read_json_lines(path, finite=False) if path.exists() else ()
    entries = [entry for _, entry in lines if isinstance(entry, dict)]
    return [{key: value for key, value in entry.items() if isinstance(value, (int, float))} for entry in entries]
