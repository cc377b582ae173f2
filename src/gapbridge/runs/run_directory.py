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
from ..recipe.secrets import cut_in, redacted_command, secrets_in, without_secrets
from ..store.file_hashes import FileHashes
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
        remaining = {key: value for key, value in settings.items() if key not in RUNTIME_ONLY_KEYS and key not in free}
        remaining = without_secrets(remaining)
        self.settings = as_json_values({"method": method, **remaining})
        self.hashes = FileHashes.of_record(self.run_file)

    def check(self, resume: str = "auto") -> str:
        """`new`, `running` (a run that stopped and can be continued) or `complete`.

        Args:
            resume: `auto` continues a run that is there and else starts one, `never` refuses a run that is there,
            `require` refuses to start one.

        Raises:
            RunError: the directory holds another run, or files but no run, cannot be written, or `resume` forbids it.
        """
        try:
            self._check_place()
            state = self._recorded_state()
        except OSError as error:
            raise RunError(
                f"output_dir {self.path}",
                f"a path that cannot be used ({error.strerror})",
                "a directory that can be written",
                "Choose another output_dir",
            ) from error
        if resume == "never" and state != "new":
            raise RunError(
                f"output_dir {self.path}",
                f"a run ({state}) with --resume never",
                "an empty directory",
                "Choose another output_dir, or continue the run with --resume auto",
            )
        if resume == "require" and state == "new":
            raise RunError(
                f"output_dir {self.path}",
                "no run with --resume require",
                "a run to continue",
                "Check the path and its file system, or start again with --resume auto",
            )
        return state

    def _recorded_state(self) -> str:
        if not self.run_file.exists():
            entries = sorted(self.path.iterdir()) if self.path.exists() else []
            # A trainer makes its empty directory before the run is recorded.
            entries = [entry for entry in entries if not entry.is_dir() or any(entry.iterdir())]
            found = [entry.name for entry in entries if not entry.name.endswith(".tmp")]
            if found:
                raise RunError(
                    f"output_dir {self.path}",
                    f"{', '.join(found[:5])}{' …' if len(found) > 5 else ''}, but no {RUN_FILE}",
                    "an empty directory or a run of gapbridge",
                    "Choose another output_dir",
                )
            return "new"
        record = read_run(self.path)
        before, state = record["settings"], record["state"]
        changed = [key for key in sorted({*before, *self.settings}) if before.get(key) != self.settings.get(key)]
        if changed:
            errors = [
                describe(
                    f"output_dir {self.path}, {key}",
                    f"{self.settings.get(key)!r}",
                    f"{before.get(key)!r}, as in the run there",
                    "Restore the setting, or choose another output_dir",
                )
                for key in changed
            ]
            raise RunError(errors)
        return str(state)

    def _check_place(self) -> None:
        """Refuse a place that cannot be written before anything is loaded."""
        existing = next(path for path in (self.path, *self.path.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir():
            got = "a file" if existing == self.path else f"the file {existing} above it"
            raise RunError(f"output_dir {self.path}", got, "a directory", "Choose another output_dir")
        if not os.access(existing, os.W_OK | os.X_OK):
            got = f"{existing}, which cannot be written"
            raise RunError(f"output_dir {self.path}", got, "a writable directory", "Choose another output_dir")

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
        if not self.run_file.exists():
            return
        before = self._recorded_inputs()
        errors = [
            describe(
                f"{self.run_file}, inputs, {name}",
                before.get(name, "nothing"),
                fingerprint,
                "Restore what the run was started with, or choose another output_dir",
            )
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
        inputs = {f"{directory.name}/model": str(self.hashes.model(model or directory / "model"))}
        manifest = directory / "_contexts" / "manifest.json"
        if manifest.is_file():
            inputs[f"{directory.name}/_contexts"] = self.hashes.file(manifest)
        return inputs

    def finish_round(self, directory: Path, model: Path) -> None:
        """Record a round's model, as it lies in `model`, before it gets its name: one without a record is no round."""
        self._record("running", {**self._recorded_inputs(), **self.round_inputs(directory, model)})

    def date(self) -> str:
        """The day on which the run began: its chat template goes on writing that day."""
        return run_date(self.path) or datetime.date.today().isoformat()

    def _recorded_inputs(self) -> dict[str, str]:
        return read_run(self.path)["inputs"] if self.run_file.exists() else {}

    def enter(self, recipe: Recipe, inputs: dict[str, str] | None = None) -> None:
        """Record the run as `running`, with its resolved recipe, its environment and what it starts from.

        What a killed process left half-written under temporary names is deleted.
        """
        with os_errors_as_run_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._directories())
        inputs = {**self._recorded_inputs(), **(inputs or {})}
        self._record("running", inputs)
        write_text_atomic(self.path / "config.resolved.yaml", resolved_recipe(self.settings["method"], recipe))
        write_json_atomic(self.path / "environment.json", environment())

    def complete(self) -> None:
        self._record("complete", self._recorded_inputs())

    def _record(self, state: str, inputs: dict[str, str]) -> None:
        record = {"settings": self.settings, "state": state, "inputs": inputs, "date": self.date()}
        record["files"] = self.hashes.record()
        write_json_atomic(self.run_file, record)

    def _directories(self) -> list[Path]:
        """Where a run writes files."""
        patterns = ("samples", "checkpoint-*", "round_*", "round_*/*")
        return [self.path, *(path for pattern in patterns for path in self.path.glob(pattern) if path.is_dir())]


def run_date(directory: Path) -> str | None:
    """The day on which the run in a directory began; None where there is no run.

    Raises:
        RunError: its `run.json` is damaged.
    """
    return read_run(directory)["date"] if (directory / RUN_FILE).is_file() else None


def resolved_recipe(method: str, recipe: Recipe) -> str:
    """The recipe as YAML with command-line options applied and old keys translated. Secrets are named, not kept, and
    so is what a URL has lost."""
    keys = {"method": method, **without_secrets(recipe.keys)}
    text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
    secrets, cut = ", ".join(secrets_in(recipe.keys)), ", ".join(cut_in(recipe.keys))
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
