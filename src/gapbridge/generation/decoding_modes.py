"""How a model is asked: directly, and in the modes that the methods bring (RAC's `self_correct` answers)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..errors import ConfigError, describe
from ..methods import answer_modes
from ..recipe.type_checks import closest_match


SINGLE_PASS = "single_pass"


def read_modes(args: argparse.Namespace, others: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The modes of `--decoding_mode`, `single_pass` where there is none, each with what the command line tells it.

    `all` is `single_pass` and every mode that any model can take. A mode's own options stand in `args` or in `others`.

    Returns:
        The modes in the order asked for, and those of `others` that are left for the recipe.

    Raises:
        ConfigError: there is no such mode, or an option has no value or belongs to a mode that is not asked for.
    """
    brought = answer_modes()
    known = [SINGLE_PASS, *brought, "all"]
    errors = [
        describe(
            "--decoding_mode",
            f"the unknown mode {name}{closest_match(name, known)}",
            f"one of {', '.join(known)}",
            "Correct the mode",
        )
        for name in args.decoding_mode
        if name not in known
    ]
    both = [SINGLE_PASS, *(name for name, mode in brought.items() if mode.any_model)]
    asked = [mode for name in args.decoding_mode or [SINGLE_PASS] for mode in (both if name == "all" else [name])]
    options = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for option in {option for name in asked if name in brought for option in brought[name].options}:
        options.add_argument(f"--{option}")
    try:
        found, rest = options.parse_known_args(others)
    except argparse.ArgumentError as error:
        raise ConfigError(f"command line, {error}") from error
    given = {key: value for key, value in vars(args).items() if value is not None} | vars(found)
    errors += [
        describe(
            f"--{option}", "a value without its mode", f"--decoding_mode {name}", "Add the mode, or remove the option"
        )
        for name, mode in brought.items()
        for option in mode.options
        if name not in asked and option in given
    ]
    if errors:
        raise ConfigError([f"command line, {message}" for message in errors])
    requested: dict[str, dict[str, str]] = {SINGLE_PASS: {}} | {
        name: {option: given[option] for option in mode.options if option in given} for name, mode in brought.items()
    }
    return {name: requested[name] for name in asked}, rest


def mode_settings(requested: Mapping[str, Mapping[str, str]], config: Any) -> dict[str, dict[str, Any]]:
    """The settings of each mode but the direct one: the recipe's or the mode's own, and over them what was
    requested."""
    brought = answer_modes()
    settings = {name: brought[name].settings(config) for name in requested if name != SINGLE_PASS}
    for name, own in settings.items():
        for option, text in requested[name].items():
            own[option] = text if isinstance(own[option], str) else yaml.safe_load(text)
    return settings
