"""The `gapbridge` command: a line is parsed, then the one module that does the work is imported.

Exit codes: 0 done, 2 refused with a message, 75 stopped by SIGTERM or Ctrl-C after saving: the same command continues.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .display import PrintableFormatter, printable, say
from .errors import ConfigError, GapbridgeError
from .methods import names
from .options import LAUNCHED, command_tree, launch_parser
from .recipe.command_line import Refused
from .recipe.values import nearest
from .recipe.variables import set_early
from .training.interruption import EXIT_INTERRUPTED, Interrupted, stop_at_once


EXIT_USER_ERROR = 2


@dataclass(frozen=True)
class Call:
    """A parsed line. `config` in the options is one recipe or None; for `validate` it is a list of them."""

    command: str
    options: argparse.Namespace
    overrides: list[str] = field(default_factory=list)  # for the recipe's parser, in order and as they were written
    launch: dict[str, Any] = field(default_factory=dict)  # the launch options that were given
    scale: str | None = None  # tiny: stand-ins for what the recipe names
    passed: list[str] = field(default_factory=list)  # all other arguments: what a launched process gets


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    run_guarded(lambda: run(arguments))


def run_guarded(action: Callable[[], object]) -> None:
    """Run `action`; turn our errors and signals into a message without a traceback and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("gapbridge")  # the libraries keep their own loggers
    ours.setLevel(logging.INFO)
    ours.handlers = [handler]
    # The handbook's and TRL's name for it; transformers would have all recipes say activation_checkpointing.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        with stop_at_once():
            action()
    except GapbridgeError as error:
        print(printable(f"gapbridge: {type(error).__name__}: {error}"), file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER_ERROR) from None
    except Interrupted as stop:
        print(f"gapbridge: stopped by {stop}: start the same command again to continue", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def run(arguments: Sequence[str]) -> Any:
    """One command in this process, as `gapbridge ARGUMENTS` but without the guard: errors and signals pass through.

    Returns:
        What the command returns: for most the path of what it made.

    Raises:
        GapbridgeError: the line or something it names is refused. SystemExit: help was shown, or launched processes
        failed. Interrupted: a signal came.
    """
    call = parse(arguments)
    if "accelerate_config" in call.launch:
        from .launcher import launch

        return launch(call.command, call.passed, call.launch)
    try:
        return perform(call)
    except ConfigError as error:
        raise ConfigError([_hinted(fault, call.command) for fault in error.faults]) from error


def perform(call: Call) -> Any:
    """Import what the command needs, and run it."""
    command, options, overrides = call.command, call.options, call.overrides
    recipes = vars(options).get("config") or []
    set_early(recipes if isinstance(recipes, str) else recipes[0] if len(recipes) == 1 else None)
    if command == "validate" and (call.scale or options.offline):
        from .planning.tiny_scale import run_offline

        return run_offline(
            options.config, overrides, method=options.method, all_rows=options.all, steps=call.scale is not None
        )
    if call.scale:
        from .planning.tiny_scale import tiny_recipe

        # What evaluates may be given options that are no keys of the recipe; the others' are all the recipe's.
        own = [] if "model" in options else overrides
        found, notes = tiny_recipe(options.config, own, command if command in names() else None)
        say(*notes, f"{options.config}: at tiny scale {found}")
        options.config, overrides = str(found), [] if own else overrides
    if command == "report":
        from .results.report import run_report

        return run_report(options)
    if command == "copy-into":
        from .handbook.copying import run_copy_into

        return run_copy_into(options.fork, options.recipe)
    if command == "init":
        from .handbook.starting import run_init

        return run_init(options.source, options.method, options.output)
    if command == "eval":
        from .evaluation.command import run_eval

        return run_eval(options, overrides)
    if command == "gap":
        from .gap.command import run_gap

        return run_gap(options, overrides)
    if command == "plan":
        from .planning.command import run_plan

        return run_plan(options, overrides)
    if command == "compare":
        from .results.compare.command import run_compare

        return run_compare(options, overrides, run)
    if command == "answer":
        from .answers.command import run_answer

        return run_answer(options, overrides)
    if command == "validate":
        from .runs.validate import run_validate

        return run_validate(options.config, overrides, method=options.method, all_rows=options.all)
    from .runs.job import read_job

    job = read_job(["--config", options.config, *overrides], command if command in names() else None)
    if command == "preview":
        from .runs.preview import run_preview, take_first

        first = take_first(job, max(options.rows, options.probe), generates=options.probe > 0)
        shown = run_preview(job, options.rows, first)
        if options.probe:
            from .gap.probe import run_probe

            run_probe(job, first, options.probe)
        return shown
    from .runs.train import generate, train

    if command == "generate":
        return generate(job)
    job.resume = options.resume
    return train(job)


def parse(arguments: Sequence[str]) -> Call:
    """Split a line into a command, its options, and what is meant for its recipe.

    Raises:
        ConfigError: with all faults. SystemExit: help or the version was asked for, and shown.
    """
    parser, commands = command_tree()
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "--version"):
        parser.parse_args([name])
    if name not in commands:
        near = nearest(name, [*commands, "--help", "--version"])
        raise ConfigError(f"command line: unknown command {name!r}{near}; there are {', '.join(commands)}")
    rest, tail = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    launch: dict[str, Any] = {}
    passed = rest
    if name in names() or name in LAUNCHED:
        given, passed = launch_parser().parse_known_args(rest)
        launch = vars(given)
    options, extras = parser.parse_known_args([name, *passed])
    del options.command
    scale = vars(options).pop("scale", None)
    if "mode" in options:
        options.mode = options.mode or ["direct"]
    faults = _refused(launch) + _refused({**vars(options), "scale": scale})
    if launch and "accelerate_config" not in launch:
        faults.append(f"--{next(iter(launch))} needs --accelerate_config NAME: it says how processes are started")
    if "config" in options:
        recipes, extras = _split_recipes(extras, named=bool(options.config))
        options.config += recipes
        faults += _recipe_faults(name, options)
        if scale and not options.config:
            faults.append("--scale is a recipe's: name one")
    if extras and not extras[0].startswith("--"):
        faults.append(f"{extras[0]!r} is neither an option nor a recipe, whose name ends with .yaml")
    elif "config" not in options:  # there is no recipe whose keys they could be
        faults += [f"unknown option {word}" for word in [*extras, *tail]]
    if faults:
        raise ConfigError([_hinted(f"command line: {fault}", name) for fault in faults])
    return Call(name, options, [*extras, *tail], launch, scale, [*passed, *(["--", *tail] if tail else [])])


def _refused(values: dict[str, Any]) -> list[str]:
    """What the options were given that they cannot take."""
    return [
        f"--{name} is {entry.text}: {entry.why}"
        for name, value in values.items()
        for entry in (value if isinstance(value, list) else [value])
        if isinstance(entry, Refused)
    ]


def _split_recipes(words: list[str], *, named: bool) -> tuple[list[str], list[str]]:
    """The recipes that are named without `--config`, and the other words in their order.

    A word behind `--key` is that key's value, even if it ends with .yaml; but where no other word can be the recipe,
    the key is a switch (`--use_cpu my.yaml`).
    """
    files = [at for at, word in enumerate(words) if word.endswith((".yaml", ".yml")) and not word.startswith("--")]
    recipes = [at for at in files if at == 0 or not words[at - 1].startswith("--") or "=" in words[at - 1]]
    if not recipes and not named and len(files) == 1:
        recipes = files
    return [words[at] for at in recipes], [word for at, word in enumerate(words) if at not in recipes]


def _recipe_faults(command: str, options: argparse.Namespace) -> list[str]:
    """Too few or too many recipes; where a command takes one, its list becomes that one."""
    recipes = options.config
    if not recipes and command not in ("eval", "gap", "compare"):  # these say themselves when they need one
        return [f"no recipe: gapbridge {command} RECIPE.yaml, or --config RECIPE.yaml"]
    if command == "validate":
        return []
    options.config = recipes[0] if recipes else None
    return [f"{command} takes one recipe, not {len(recipes)}: {', '.join(recipes)}"] if len(recipes) > 1 else []


def _hinted(fault: str, command: str) -> str:
    """With the command's own option that an unknown one is a slip of: the recipe's parser knows the keys only."""
    unknown = re.fullmatch(r"command line: unknown option --(\S+)", fault)
    if unknown is None:
        return fault
    options = command_tree()[1][command]._option_string_actions
    return fault + nearest(unknown[1], [option.lstrip("-") for option in options])


if __name__ == "__main__":
    main()
