"""`--accelerate_config`: the same command in several processes, started by `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..signals import EXIT_INTERRUPTED, Interrupted


SHUTDOWN_SECONDS = "600"  # for a step and a checkpoint after a signal; torch's launcher would kill after 30


def accelerate_config(name: str) -> Path:
    """The accelerate configuration: a path, or a name looked up in `./accelerate_configs` and then in the package.

    Raises:
        ConfigError: there is none; the names that there are are listed.
    """
    package, checkout = (Path(__file__).resolve().parents[level] for level in (1, 3))
    folders = [place / "accelerate_configs" for place in (Path(), package, checkout)]
    candidates = [Path(name)] if name.endswith((".yaml", ".yml")) else []
    candidates += [folder / f"{name}.yaml" for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    place, expected = "command line, --accelerate_config", f"a file, or one of {', '.join(names)}"
    raise ConfigError(place, f"{name}, which is no file or name", expected, "Correct the name")


def launch(command: str, arguments: Sequence[str], options: Mapping[str, Any]) -> None:
    """`accelerate launch --config_file CONFIG … -m gapbridge COMMAND ARGUMENTS` in this process.

    Exit codes of the processes become this one's, and a signal to this one reaches them.

    Args:
        options: the launch options that were given, `accelerate_config` among them.

    Raises:
        ConfigError: there is no such configuration. Interrupted: a signal came. SystemExit: a process failed.
    """
    line = ["--config_file", str(accelerate_config(options["accelerate_config"]))]
    for name, value in options.items():
        if name != "accelerate_config":
            line += [f"--{name}", str(value)]
    import psutil
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    try:
        launch_command(launch_command_parser().parse_args([*line, "-m", "gapbridge", command, *arguments]))
    except subprocess.CalledProcessError as error:  # the process has said why
        raise SystemExit(error.returncode) from None
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        raise SystemExit(EXIT_INTERRUPTED if EXIT_INTERRUPTED in codes else max(1, *codes)) from None
    except SignalException as stop:  # torch's launcher has passed it on and waited
        raise Interrupted(stop.sigval) from None
    except Interrupted:
        children = psutil.Process().children()
        for child in children:
            child.terminate()
        psutil.wait_procs(children)
        raise
