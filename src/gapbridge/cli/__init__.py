"""The `gapbridge` command: a line is parsed, then the one module that does the work is imported.

Every command is a module of `commands/`; the methods share `commands/train.py`. Only the parser of the command in use
is built. Options that are keys of a recipe (`--learning_rate 1e-4`) are not among a command's own: they are left over
when a line is parsed, and the recipe's own parser takes them.

Exit codes: 0 done, 2 refused with a message, 75 stopped by SIGTERM or Ctrl-C after saving: the same command continues.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module, metadata
from typing import Any

from .. import methods
from ..display import PrintableFormatter, notice_if_slow, printable, say
from ..errors import ConfigError, GapbridgeError, describe
from ..recipe.type_checks import closest_match
from ..recipe.variables import set_early
from ..signals import EXIT_INTERRUPTED, Interrupted, stop_at_once
from .command import BaseCommand, Call, launch_parser


EXIT_USER_ERROR = 2
COMMANDS = (
    *methods.list_methods(), "validate", "preview", "prepare", "generate", "eval", "gap", "compare", "report", "plan",
    "copy-into", "convert",
)  # fmt: skip

_OVERVIEW = """\
usage: gapbridge COMMAND [RECIPE.yaml] [options]

Fine-tune language models on their own outputs, to close the gap between training and inference. A recipe is a YAML
file with the configuration of one run. Every key is also an option (--learning_rate 1e-4). Options override the file.

options:
    -h, --help          show this help message and exit
    --version           show the version and exit

commands:
{commands}

examples:
  gapbridge validate recipes/tiny/bash/config_full.yaml
  gapbridge bash recipes/tiny/bash/config_full.yaml --learning_rate 1e-4
  gapbridge COMMAND --help      options of the command; for a method also its recipe keys

Exit codes: 0: done. 2: an error in the input, with a message. 75: stopped by SIGTERM or Ctrl-C after saving; run the
same command again to resume."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with guarded():
        run(arguments)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn our errors and signals into a message without a traceback and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter())
    ours = logging.getLogger("gapbridge")  # the libraries keep their own loggers
    ours.setLevel(logging.INFO)
    ours.handlers = [handler]
    os.environ.setdefault("TQDM_DELAY", "2")  # read by tqdm: the progress bar of a moment is not shown
    # DeepSpeed says of every machine without a GPU that it has none.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    # The handbook's and TRL's name for it; transformers would have all recipes say activation_checkpointing.
    deprecated = "`(is_)?gradient_checkpointing(_enable)?` is deprecated"
    warnings.filterwarnings("ignore", message=deprecated, category=FutureWarning)
    try:
        with stop_at_once():
            yield
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
    recipes = vars(call.options).get("config") or []
    set_early(recipes if isinstance(recipes, str) else recipes[0] if len(recipes) == 1 else None)
    command = find(call.command)
    with notice_if_slow("loading PyTorch, transformers and TRL …"):
        from ..runs import run_config  # noqa: F401
    try:
        return command.run(_as_smoke_test(call) if call.smoke_test and command.recipes != "many" else call)
    except ConfigError as error:
        raise ConfigError([_with_hint(message, call.command) for message in error.errors]) from error


def find(name: str) -> BaseCommand:
    """The command of that name, one of `COMMANDS`."""
    module = "train" if name in methods.list_methods() else name.replace("-", "_")
    command: BaseCommand = import_module(f"{__name__}.commands.{module}").Command(name)
    return command


def parse(arguments: Sequence[str]) -> Call:
    """Split a line into a command, its options, and what is meant for its recipe.

    Raises:
        ConfigError: with all errors. SystemExit: help or the version was asked for, and shown.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "--version"):
        print(f"gapbridge {metadata.version('gapbridge')}" if name == "--version" else _overview())
        raise SystemExit(0)
    if name not in COMMANDS:
        near = closest_match(name, [*COMMANDS, "--help", "--version"])
        got, expected = f"the unknown command {name!r}{near}", f"one of {', '.join(COMMANDS)}"
        raise ConfigError("command line", got, expected, "Correct the command")
    command = find(name)
    rest, tail = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    launch: dict[str, Any] = {}
    errors: list[str] = []
    if command.is_launched:
        launcher = launch_parser()
        given, rest = launcher.parse_known_args(rest)
        launch, errors = vars(given), launcher.errors
    parser = command.parser()
    options, extras = parser.parse_known_args(rest)
    smoke_test = vars(options).pop("smoke_test", False)
    if "decoding_mode" in options:
        options.decoding_mode = options.decoding_mode or ["single_pass"]
    errors = [*errors, *parser.errors]
    line = "command line"
    if launch and "accelerate_config" not in launch:
        got, expected = f"--{next(iter(launch))} without --accelerate_config", "a configuration that starts processes"
        errors.append(describe(line, got, expected, "Add --accelerate_config NAME"))
    if command.recipes != "none":
        recipes, extras = _split_recipes(extras, named=bool(options.config))
        recipes = [*options.config, *recipes]
        options.config = recipes if command.recipes == "many" else recipes[0] if recipes else None
        if not recipes and command.recipes != "optional":
            advice = f"Give gapbridge {name} RECIPE.yaml, or --config RECIPE.yaml"
            errors.append(describe(line, "no recipe", "one", advice))
        elif not recipes and smoke_test:
            errors.append(describe(line, "--smoke_test without a recipe", "a recipe", "Name one"))
        if len(recipes) > 1 and command.recipes != "many":
            got = f"{len(recipes)} recipes ({', '.join(recipes)})"
            errors.append(describe(line, got, "one", f"Give {name} one recipe"))
    if extras and not extras[0].startswith("--"):
        expected = "an option, or a recipe whose name ends with .yaml"
        errors.append(describe(line, f"{extras[0]!r}", expected, "Correct the argument"))
    elif command.recipes == "none":  # there is no recipe whose keys they could be
        errors += [
            describe(line, f"the unknown option {word}", "a known option", "Correct or remove the option")
            for word in [*extras, *tail]
        ]
    if errors:
        raise ConfigError([_with_hint(error, name) for error in errors])
    return Call(name, options, [*extras, *tail], launch, smoke_test, [*rest, *(["--", *tail] if tail else [])])


def _overview() -> str:
    lines = [
        textwrap.fill(find(name).summary, 115, initial_indent=f"    {name:<20}", subsequent_indent=" " * 24)
        for name in COMMANDS
    ]
    return _OVERVIEW.format(commands="\n".join(lines))


def _as_smoke_test(call: Call) -> Call:
    """The call with a small recipe that stands in for its own."""
    from ..planning.smoke_test import tiny_recipe

    # The commands that measure models take options that are no keys of the recipe; the others' are all the recipe's.
    own = [] if "model" in call.options else call.overrides
    recipe, notes = tiny_recipe(
        call.options.config, own, call.command if call.command in methods.list_methods() else None
    )
    say(*notes, f"{call.options.config}: smoke test with {recipe}")
    call.options.config = str(recipe)
    return replace(call, overrides=[] if own else call.overrides)


def _split_recipes(words: list[str], *, named: bool) -> tuple[list[str], list[str]]:
    """The recipes that are named without `--config`, and the other words in their order.

    A word after `--key` is that key's value, even if it ends with .yaml; but where no other word can be the recipe,
    the key is a switch (`--use_cpu my.yaml`).
    """
    files = [at for at, word in enumerate(words) if word.endswith((".yaml", ".yml")) and not word.startswith("--")]
    recipes = [at for at in files if at == 0 or not words[at - 1].startswith("--") or "=" in words[at - 1]]
    if not recipes and not named and len(files) == 1:
        recipes = files
    return [words[at] for at in recipes], [word for at, word in enumerate(words) if at not in recipes]


def _with_hint(error: str, command: str) -> str:
    """With the command's own option that an unknown one may mean: the recipe's parser knows only the keys."""
    unknown = re.match(r"command line: got the unknown option --([^\s,]+)(?=, expected)", error)
    if unknown is None:
        return error
    options = find(command).parser()._option_string_actions
    near = closest_match(unknown[1], [option.lstrip("-") for option in options])
    return f"{unknown[0]}{near}{error[unknown.end() :]}"
