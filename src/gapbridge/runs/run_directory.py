"""A run's directory: which run it holds, how far that run is, and what it was run with.

    run.json                the run's settings and its state, `running` or `complete`
    config.resolved.yaml    the recipe with command-line options applied; runs again as it is
    environment.json        versions and machine

None of them holds a secret: a hub's token, an environment variable that is named like one.

A directory that holds another run, or files of something else, is refused; a run that stopped is continued; a complete
run is not repeated. `--resume never` refuses to continue, `--resume require` refuses to start again.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState

from ..errors import ConfigError, RunError, describe
from ..files import (
    os_errors_as_run_error,
    remove_leftovers,
    sole_user,
    write_json_atomic,
    write_text_atomic,
)
from ..jsonl import as_json_values
from ..recipe.recipe_parser import Recipe
from ..recipe.secrets import redact, redacted_command
from ..store.file_hashes import hash_file, hash_model
from ..training.config import RUNTIME_ONLY_KEYS
from ..training.run_files import RUN_FILE, read_run


PACKAGES = (
    "gapbridge", "torch", "trl", "transformers", "accelerate", "datasets", "peft", "tokenizers", "deepspeed",
    "pyarrow",
)  # fmt: skip


class RunDirectory:
    """`output_dir` of a recipe. `enter` must come before anything is written to it.

    `free` names the method's own settings that change neither data nor weights.
    """

    def __init__(self, path: str | Path, method: str, settings: dict[str, Any], free: Collection[str] = ()) -> None:
        self.path = Path(path)
        self.run_file = self.path / RUN_FILE
        fixed = {key: value for key, value in settings.items() if key not in RUNTIME_ONLY_KEYS and key not in free}
        self.settings = as_json_values({"method": method, **redact(fixed).keys})

    def check(self, resume: str = "auto") -> str:
        """`new`, `running` (a run that stopped and can be continued) or `complete`.

        Args:
            resume: `auto` continues a run that is there and else starts one, `never` refuses a run that is there,
            `require` refuses to start one.

        Raises:
            RunError: the directory holds another run, or files but no run, cannot be written, or `resume` forbids it.
        """
        place, another = f"output_dir {self.path}", "Choose another output_dir"
        try:
            existing = next(path for path in (self.path, *self.path.absolute().parents) if os.path.lexists(path))
            if not existing.is_dir():
                got = "a file" if existing == self.path else f"the file {existing} above it"
                raise RunError(place, got, "a directory", another)
            if not os.access(existing, os.W_OK | os.X_OK):
                raise RunError(place, f"{existing}, which cannot be written", "a writable directory", another)
            state = self._recorded_state()
        except OSError as error:
            got = f"a path that cannot be used ({error.strerror})"
            raise RunError(place, got, "a directory that can be written", another) from error
        if resume == "never" and state != "new":
            advice = f"{another}, or continue the run with --resume auto"
            raise RunError(place, f"a run ({state}) with --resume never", "an empty directory", advice)
        if resume == "require" and state == "new":
            advice = "Check the path and its file system, or start again with --resume auto"
            raise RunError(place, "no run with --resume require", "a run to continue", advice)
        return state

    def _recorded_state(self) -> str:
        place, another = f"output_dir {self.path}", "choose another output_dir"
        if not self.run_file.exists():
            entries = sorted(self.path.iterdir()) if self.path.exists() else []
            # A trainer makes its empty directory before the run is recorded.
            entries = [entry for entry in entries if not entry.is_dir() or any(entry.iterdir())]
            found = [entry.name for entry in entries if not entry.name.endswith(".tmp")]
            if found:
                got = f"{', '.join(found[:5])}{' …' if len(found) > 5 else ''}, but no {RUN_FILE}"
                raise RunError(place, got, "an empty directory or a run of gapbridge", another.capitalize())
            return "new"
        record = read_run(self.path)
        before, now = record["settings"], self.settings
        errors = [
            describe(
                f"{place}, {key}",
                f"{now.get(key)!r}",
                f"{before.get(key)!r}, as in the run there",
                f"Restore the setting, or {another}",
            )
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if errors:
            raise RunError(errors)
        return str(record["state"])

    def locked(self) -> AbstractContextManager[None]:
        """Within it no other command trains or generates in the directory; of several processes, the main one asks.

        Raises:
            RunError: another one does.
        """
        return sole_user(self.path) if PartialState().is_main_process else nullcontext()

    def check_inputs(self, inputs: dict[str, str]) -> None:
        """Compare the fingerprints of what the run starts from, or goes on from, with those in its record.

        Raises:
            RunError: data, tokenizer, model or a finished round changed under the same names, or the run is of a
            version that did not record them.
        """
        before = self._recorded("inputs", inputs)
        advice = "Restore what the run was started with, or choose another output_dir"
        errors = [
            describe(f"{self.run_file}, inputs, {name}", before.get(name, "nothing"), fingerprint, advice)
            for name, fingerprint in inputs.items()
            if before.get(name) != fingerprint
        ]
        if errors:
            raise RunError(errors)

    def round_inputs(self, directory: Path, model: Path | None = None) -> dict[str, str]:
        """The fingerprints of a finished round that the next one goes on from: its model, and its contexts if it drew.

        Args:
            directory: the round's. model: where its model lies before it has its name.
        """
        inputs = {f"{directory.name}/model": str(hash_model(model or directory / "model"))}
        manifest = directory / "_contexts" / "manifest.json"
        if manifest.is_file():
            inputs[f"{directory.name}/_contexts"] = hash_file(manifest)
        return inputs

    def finish_round(self, directory: Path, model: Path) -> None:
        """Record a round's model, as it lies in `model`, before it gets its name: one without a record is no round."""
        self._record("running", self._recorded("inputs", {}) | self.round_inputs(directory, model))

    def date(self) -> str:
        """The day on which the run began: its chat template goes on writing that day."""
        return str(self._recorded("date", datetime.date.today().isoformat()))

    def _recorded(self, name: str, default: Any) -> Any:
        """What `run.json` says; the default where there is none."""
        return read_run(self.path)[name] if self.run_file.exists() else default

    def enter(self, recipe: Recipe, inputs: dict[str, str] | None = None) -> None:
        """Record the run as `running`, with its resolved recipe, its environment and what it starts from.

        What a killed process left half-written under temporary names is deleted.
        """
        with os_errors_as_run_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            patterns = ("samples", "checkpoint-*", "round_*", "round_*/*")  # where a run writes files
            remove_leftovers([self.path, *(path for pattern in patterns for path in self.path.glob(pattern))])
        self._record("running", self._recorded("inputs", {}) | (inputs or {}))
        write_text_atomic(self.path / "config.resolved.yaml", resolved_recipe(self.settings["method"], recipe))
        write_json_atomic(self.path / "environment.json", environment())

    def complete(self) -> None:
        self._record("complete", self._recorded("inputs", {}))

    def _record(self, state: str, inputs: dict[str, str]) -> None:
        record = {"settings": self.settings, "state": state, "inputs": inputs, "date": self.date()}
        write_json_atomic(self.run_file, record)


def run_date(directory: Path) -> str | None:
    """The day on which the run in a directory began; None where there is no run.

    Raises:
        RunError: its `run.json` is damaged.
    """
    return read_run(directory)["date"] if (directory / RUN_FILE).is_file() else None


def resolved_recipe(method: str, recipe: Recipe) -> str:
    """The recipe as YAML with command-line options applied and old keys translated. Secrets are named, not kept, and
    so is what a URL has lost."""
    found = redact(recipe.keys)
    text = yaml.safe_dump({"method": method, **found.keys}, sort_keys=False, allow_unicode=True)
    secrets, cut = ", ".join(found.secrets), ", ".join(found.cut)
    head = f"# Left out, for they are secrets: {secrets}\n" if secrets else ""
    head += f"# Without a user, password, query or token that may be a secret: {cut}\n" if cut else ""
    return head + text


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "command": [Path(sys.argv[0]).name, *redacted_command(sys.argv[1:])],
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices or ["cpu"],
        "torch_threads": torch.get_num_threads(),
    }


def require_output_dir(output_dir: str | None) -> str:
    if not output_dir:
        raise ConfigError("output_dir", "no value", "a directory for the run", "Add the key")
    if "\0" in output_dir:
        raise ConfigError("output_dir", f"{output_dir!r} with a null character", "a path", "Correct the path")
    return output_dir
