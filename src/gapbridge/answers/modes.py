"""How a model is asked: directly, and in the modes that the methods bring (RAC's `corrected` answers)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..errors import ConfigError
from ..methods import answer_modes
from ..recipe.values import nearest


DIRECT = "direct"


def read_modes(args: argparse.Namespace, others: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The modes of `--mode`, `direct` where there is none, each with what the command line tells it.

    `both` is `direct` and every mode that any model can take. A mode's own options stand in `args` or in `others`.

    Returns:
        The modes in the order asked for, and those of `others` that are left for the recipe.

    Raises:
        ConfigError: there is no such mode, or an option has no value or belongs to a mode that is not asked for.
    """
    brought = answer_modes()
    known = [DIRECT, *brought, "both"]
    faults = [
        f"--mode {name}: no such mode{nearest(name, known)}; there are {', '.join(known)}"
        for name in args.mode
        if name not in known
    ]
    both = [DIRECT, *(name for name, mode in brought.items() if mode.any_model)]
    asked = [mode for name in args.mode or [DIRECT] for mode in (both if name == "both" else [name])]
    options = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for option in {option for name in asked if name in brought for option in brought[name].options}:
        options.add_argument(f"--{option}")
    try:
        found, rest = options.parse_known_args(others)
    except argparse.ArgumentError as error:
        raise ConfigError(f"command line: {error}") from error
    given = {key: value for key, value in vars(args).items() if value is not None} | vars(found)
    faults += [
        f"--{option} is for --mode {name}"
        for name, mode in brought.items()
        for option in mode.options
        if name not in asked and option in given
    ]
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])
    told: dict[str, dict[str, str]] = {DIRECT: {}} | {
        name: {option: given[option] for option in mode.options if option in given} for name, mode in brought.items()
    }
    return {name: told[name] for name in asked}, rest


def mode_settings(told: Mapping[str, Mapping[str, str]], config: Any) -> dict[str, dict[str, Any]]:
    """The settings of each mode but the direct one: the recipe's or the mode's own, and over them what it was told."""
    brought = answer_modes()
    settings = {name: brought[name].settings(config) for name in told if name != DIRECT}
    for name, own in settings.items():
        for option, text in told[name].items():
            own[option] = text if isinstance(own[option], str) else yaml.safe_load(text)
    return settings
