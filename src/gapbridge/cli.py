"""The `gapbridge` command.

gapbridge sft|bash|rac --config RECIPE [--accelerate_config NAME [--num_processes N]] [--key value …]
          [--resume auto|never|must]      continue a run that stopped (auto), refuse to (never), refuse to start (must)
gapbridge generate --config RECIPE        build the contexts of the next round and stop
gapbridge generate --config RECIPE --mode direct|corrected [--model PATH] [--output FILE]
                                          answer the recipe's held-out prompts, as JSONL
gapbridge preview  --config RECIPE        show the first rows as the trainer sees them (--rows N)
gapbridge validate --config RECIPE …      check recipes, report every fault at once
gapbridge eval     --task TASK --model PATH [--model PATH …] [--mode direct|corrected|both] [--judge MODEL] …
                                          accuracy, ROUGE, win rate or lm-eval, with intervals and every answer
gapbridge gap      --model PATH [--model PATH …] --config RECIPE
                                          how much a model is disturbed by its own words: gap.json and gap.png
gapbridge report   RUN …                  runs side by side: settings, losses, accuracy, gap, cost, answers

Exit codes: 0 done, 2 refused with a message, 75 stopped by SIGTERM or Ctrl-C after saving: the same command continues.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from .errors import ConfigError, GapbridgeError
from .training.interruption import EXIT_INTERRUPTED, Interrupted, stop_at_once


TRAIN_COMMANDS = ("sft", "bash", "rac")
COMMANDS = (*TRAIN_COMMANDS, "generate", "preview", "validate", "eval", "gap", "report")
LAUNCHED_COMMANDS = (*TRAIN_COMMANDS, "generate", "eval")
LAUNCH_OPTIONS = ("--num_processes", "--num_machines", "--machine_rank", "--main_process_ip", "--main_process_port")
EXIT_USER_ERROR = 2
SHUTDOWN_SECONDS = "600"  # for a step and a checkpoint after a signal; torch's launcher would kill after 30


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        print("\n`gapbridge METHOD --help` lists every key of a recipe.")
        return
    if arguments[0] == "--version":
        print(f"gapbridge {metadata.version('gapbridge')}")
        return
    command, rest = arguments[0], arguments[1:]
    run_guarded(lambda: dispatch(command, rest))


def run_guarded(action: Callable[[], None]) -> None:
    """Run `action`; turn our errors and signals into a message without a traceback and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("gapbridge")  # the libraries keep their own loggers
    ours.setLevel(logging.INFO)
    ours.handlers = [handler]
    # The handbook's and TRL's name for it; transformers would have all recipes say activation_checkpointing.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        with stop_at_once():
            action()
    except GapbridgeError as error:
        print(f"gapbridge: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER_ERROR) from None
    except Interrupted as stop:
        print(f"gapbridge: stopped by {stop}: start the same command again to continue", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def dispatch(command: str, arguments: list[str]) -> None:
    if command not in COMMANDS:
        from .recipe.values import nearest

        raise ConfigError(f"unknown command {command!r}{nearest(command, COMMANDS)}; there are {', '.join(COMMANDS)}")
    if command in LAUNCHED_COMMANDS:
        launch = _take(arguments, "--accelerate_config")
        if launch is not None:
            launch_with_accelerate(command, launch, arguments)
            return
    if command == "eval":
        from .evaluation.command import run_eval

        run_eval(arguments)
        return
    if command == "gap":
        from .gap.command import run_gap

        run_gap(arguments)
        return
    if command == "report":
        from .results.report import run_report

        run_report(arguments)
        return
    from .runs import pipeline  # heavy imports, after the cheap refusals
    from .runs.directory import RESUME

    if command in TRAIN_COMMANDS:
        if "--help" in arguments or "-h" in arguments:
            pipeline.parser_for(command).print_help()
            return
        resume = _take(arguments, "--resume") or "auto"
        if resume not in RESUME:
            raise ConfigError(f"command line: --resume is {resume!r}: choose one of {', '.join(RESUME)}")
        job = pipeline.read_job(arguments, command)
        job.resume = resume
        (pipeline.run_sft if command == "sft" else pipeline.run_rounds_of)(job)
    elif command == "generate":
        _generate(arguments)
    elif command == "preview":
        rows = _positive("--rows", _take(arguments, "--rows") or "3")
        pipeline.run_preview(pipeline.read_job(arguments), rows)
    else:
        _validate_all(arguments)


def _generate(arguments: list[str]) -> None:
    from .answers.command import write_answers
    from .runs import pipeline

    mode = _take(arguments, "--mode")
    if mode is None:
        pipeline.run_generate(pipeline.read_job(arguments))
        return
    model, output = _take(arguments, "--model"), _take(arguments, "--output")
    length = _positive("--max_completion_length", _take(arguments, "--max_completion_length") or "256")
    path = write_answers(pipeline.read_job(arguments), mode, model, output, length)
    print(f"answers: {path}")


def _positive(option: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"command line: {option} is {value!r}: it must be a whole number from 1 on")
    return int(value)


def _validate_all(arguments: list[str]) -> None:
    import torch

    from .runs.pipeline import read_job
    from .runs.validate import describe, validate

    paths, overrides = _recipes_of(arguments)
    if not torch.accelerator.is_available() and "--use_cpu" not in overrides:
        print("this machine has no accelerator: recipes are checked as if for its CPU")
        overrides = [*overrides, "--use_cpu", "true"]
    failed = []
    for path in paths:
        try:
            job = read_job(["--config", path, *overrides])
            faults, notes = validate(job)
        except GapbridgeError as error:
            failed += error.faults
            continue
        failed += [fault if fault.startswith(path) else f"{path}: {fault}" for fault in faults]
        for note in notes:
            print(f"  {note}")
        if not faults:
            print(f"{path}: good. {describe(job)}")
    if failed:
        raise ConfigError(failed)


def _recipes_of(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The files after `--config` (one or several), and the other arguments."""
    split = [
        part
        for argument in arguments
        for part in (argument.split("=", 1) if argument.startswith("--") else [argument])
    ]
    if "--config" not in split:
        raise ConfigError("no recipe: give one or several with --config FILE.yaml …")
    at = split.index("--config") + 1
    end = next((i for i in range(at, len(split)) if split[i].startswith("--")), len(split))
    if at == end:
        raise ConfigError("command line: --config needs a file")
    return split[at:end], split[: at - 1] + split[end:]


def accelerate_config(name: str) -> Path:
    """The accelerate configuration: a path, or a name looked up in `./accelerate_configs` and then in the package."""
    source = Path(__file__).resolve().parents[2] / "accelerate_configs"
    installed = Path(__file__).resolve().parent / "accelerate_configs"
    candidates = [Path(name)] if name.endswith((".yaml", ".yml")) else []
    candidates += [folder / f"{name}.yaml" for folder in (Path("accelerate_configs"), installed, source)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted(
        {path.stem for folder in (Path("accelerate_configs"), installed, source) for path in folder.glob("*.yaml")}
    )
    raise ConfigError(f"--accelerate_config {name}: no such file or name; there are {', '.join(names)}")


def launch_with_accelerate(command: str, config: str, arguments: list[str]) -> None:
    """`accelerate launch --config_file CONFIG -m gapbridge.scripts.COMMAND …` in this process.

    Exit codes of the processes become this one's, and a signal to this one reaches them.
    """
    launch: list[str] = ["--config_file", str(accelerate_config(config))]
    for option in LAUNCH_OPTIONS:
        value = _take(arguments, option)
        if value is not None:
            launch += [option, value]
    import psutil
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    try:
        launch_command(launch_command_parser().parse_args([*launch, "-m", f"gapbridge.scripts.{command}", *arguments]))
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


def _take(arguments: list[str], option: str) -> str | None:
    """Remove `option VALUE` or `option=VALUE` from the arguments and return the value."""
    for at, argument in enumerate(arguments):
        if argument == option:
            if at + 1 == len(arguments):
                raise ConfigError(f"command line: {option} needs a value")
            value = arguments[at + 1]
            del arguments[at : at + 2]
            return value
        if argument.startswith(f"{option}="):
            del arguments[at]
            return argument.split("=", 1)[1]
    return None


if __name__ == "__main__":
    main()
