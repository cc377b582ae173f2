"""A run's directory: which run it holds, how far that run is, and what it was run with.

    run.json                the run's settings and its state, `running` or `complete`
    config.resolved.yaml    the recipe with command-line options applied; runs again as it is
    environment.json        versions and machine

A directory that holds another run, or files of something else, is refused; a run that stopped is continued; a complete
run is not repeated.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from .errors import ConfigError, RunError
from .files import write_json_atomic, write_text_atomic
from .recipe import Recipe


RUN_FILE = "run.json"

# Settings that change neither data nor weights: a run may be continued with other values.
FREE_SETTINGS = frozenset(
    """
    output_dir run_name report_to logging_steps logging_strategy logging_first_step log_level log_level_replica
    disable_tqdm push_to_hub hub_model_id hub_strategy hub_private_repo hub_revision hub_token hub_always_push
    resume_from_checkpoint save_total_limit dataset_num_proc dataloader_num_workers dataloader_pin_memory
    dataloader_prefetch_factor ddp_timeout generation_batch_size lookahead project trackio_space_id
    """.split()
)
PACKAGES = (
    "gapbridge", "torch", "trl", "transformers", "accelerate", "datasets", "peft", "tokenizers", "deepspeed",
    "pyarrow",
)  # fmt: skip


class RunDirectory:
    """`output_dir` of a recipe. `enter` must come before anything is written to it."""

    def __init__(self, path: str | Path, method: str, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        kept = {key: value for key, value in settings.items() if key not in FREE_SETTINGS}
        self.settings: dict[str, Any] = json.loads(json.dumps({"method": method, **kept}))

    @property
    def run_file(self) -> Path:
        return self.path / RUN_FILE

    def check(self) -> str:
        """`new`, `running` (a run that stopped and can be continued) or `complete`.

        Raises:
            RunError: the directory holds another run, or files but no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"output_dir {self.path}: is a file")
        if not self.run_file.exists():
            found = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
            found = [name for name in found if not name.endswith(".tmp")]
            if found:
                raise RunError(
                    f"output_dir {self.path}: holds {', '.join(found[:5])}{' …' if len(found) > 5 else ''} but no "
                    f"{RUN_FILE}: it "
                    "is not a run of gapbridge. Choose another output_dir"
                )
            return "new"
        try:
            record = json.loads(self.run_file.read_text(encoding="utf-8"))
            before, state = record["settings"], record["state"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{self.run_file}: is damaged ({error}); choose another output_dir") from error
        changed = [key for key in sorted({*before, *self.settings}) if before.get(key) != self.settings.get(key)]
        if changed:
            faults = [
                f"{key}: the run there has {before.get(key)!r}, this one {self.settings.get(key)!r}" for key in changed
            ]
            raise RunError(
                [
                    f"output_dir {self.path}: holds another run. Choose another output_dir, or set these settings "
                    f"back",
                    *faults,
                ]
            )
        return str(state)

    def enter(self, recipe: Recipe) -> None:
        """Record the run as `running`, with its resolved recipe and its environment."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self.run_file, {"settings": self.settings, "state": "running"})
        resolved = yaml.safe_dump(
            {"method": self.settings["method"], **recipe.settings}, sort_keys=False, allow_unicode=True
        )
        write_text_atomic(self.path / "config.resolved.yaml", resolved)
        write_json_atomic(self.path / "environment.json", environment())

    def complete(self) -> None:
        write_json_atomic(self.run_file, {"settings": self.settings, "state": "complete"})


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
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices or ["cpu"],
        "torch_threads": torch.get_num_threads(),
    }


def require_output_dir(output_dir: str | None) -> str:
    if not output_dir:
        raise ConfigError("output_dir is not set: say where the run goes")
    return output_dir
