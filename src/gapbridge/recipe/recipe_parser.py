"""Strict recipes: TRL's YAML parser with every error reported at once, and old handbook keys translated.

A recipe is one YAML file and one training run. Keys that no dataclass knows are an error that names the nearest known
key; values are checked against the field's type and choices; command-line options win over the file. Keys of older
handbook, TRL and transformers versions (`max_seq_length`, `torch_dtype`, `dataset_mixer`, …) are translated where
their meaning is the same, each with a note.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from trl import TrlParser

from ..errors import ConfigError, as_config_error, describe
from .deprecated_keys import RENAMED, TRACKING, translate, translate_options
from .handbook_keys import preference_marks, without_effect
from .secrets import redacted
from .type_checks import as_list, closest_match, expected_value, read_yaml, to_builtin
from .variables import environment_errors, too_late
from .yaml_nodes import ENVIRONMENT_VALUE


logger = logging.getLogger(__name__)


@dataclass
class Recipe:
    """A parsed recipe.

    parts: one instance of each dataclass, by its class.
    settings: the keys given explicitly, in the file or on the command line, as the dataclasses hold them.
    keys: the same keys for another file: as this file writes them where the command line says nothing else, old keys
        translated, with `env` and the keys of trackers.
    """

    path: Path
    method: str | None
    parts: dict[type[Any], Any]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)


class RecipeParser(TrlParser):
    """`TrlParser` that collects every error of a recipe before it gives up. Parse with `parse_recipe`.

    Args:
        methods (`Sequence[str]`): What the recipe's `method` may be.
        other_keys (`Mapping[str, str]`, *optional*): Keys that other methods have, each with those methods' names.
        preferences (`bool`, *optional*, defaults to `False`): Whether the method learns from preferences.
    """

    def __init__(
        self,
        *args: Any,
        methods: Sequence[str],
        other_keys: Mapping[str, str] | None = None,
        preferences: bool = False,
        **kwargs: Any,
    ) -> None:
        self._methods = tuple(methods)
        self._other_keys = dict(other_keys or {})
        self._preferences = preferences
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ConfigError("command line", message.removeprefix("argument "), "valid options", "Correct them")

    def parse_recipe(self, argv: Sequence[str]) -> Recipe:
        """Parse `--config FILE [--key value …]`.

        Raises:
            ConfigError: with all errors of the file and of the command line.
        """
        arguments = _split_equals(argv)
        path = _take_option(arguments, "--config")
        if path is None:
            raise ConfigError("command line", "no recipe", "a YAML file", "Give one with --config FILE.yaml")
        hints = {key: hint for kind in self.dataclass_types for key, hint in get_type_hints(kind).items()}
        values = read_yaml(Path(path), self._read_as(hints))
        notes: list[str] = []
        errors: list[str] = []
        method = values.pop("method", None)
        if method is not None and method not in self._methods:
            expected = f"one of {', '.join(self._methods)}"
            errors.append(describe(f"{path}, method", repr(method), expected, "Choose one of them"))
        environment = values.pop("env", None) or {}
        errors += [f"{path}, {error}" for error in environment_errors(environment)]
        if not isinstance(environment, dict):
            environment = {}
        surroundings = {"env": dict(environment)} if environment else {}
        actions = {action.dest: action for action in self._actions}
        marks = [] if self._preferences or method is not None else preference_marks(values, set(actions))
        if marks:
            raise ConfigError(
                path,
                f"a DPO recipe (it has {', '.join(marks)}, as ORPO's have)",
                "an SFT recipe",
                "Start from the SFT recipe of this model",
            )
        surroundings |= {key: value for key, value in values.items() if key in TRACKING and key not in actions}
        values = translate(values, set(actions), notes, errors, environment, path)
        cut = "truncate_overlong"
        if method is None and cut in actions and not (cut in values or f"--{cut}" in arguments):
            values[cut] = True
            notes.append(f"{path}: a recipe without `method` is a handbook's, which cuts long rows: {cut}: true")
        for key, value in values.items():
            if key not in actions:
                errors.append(describe(path, f"the unknown key {key!r}{self._hint(key)}", "a known key", _CORRECT_KEY))
                continue
            expected_type = expected_value(value, hints[key], actions[key])
            if expected_type:
                place = f"{path}, {key}"
                errors.append(describe(place, repr(redacted(key, value)), expected_type, "Correct the value"))
            elif why := without_effect(key):
                notes.append(f"{path}: {key} has no effect here: {why}")
        arguments, tracked = translate_options(arguments, set(actions), notes, errors, environment)
        surroundings |= tracked
        given, unknown = self._given(arguments)
        errors += [
            describe(
                "command line",
                f"the unknown option {option}{self._hint(option.lstrip('-'))}",
                "a known option",
                "Correct or remove the option",
            )
            for option in unknown
        ]
        if errors:
            raise ConfigError(errors)
        for note in notes:
            logger.info(note)
        for late in too_late(environment):
            logger.warning("%s: %s", path, late)
        os.environ.update({name: str(value) for name, value in environment.items()})
        # The dataclasses change the lists and mappings that they are given.
        written = copy.deepcopy({key: value for key, value in values.items() if key not in given})
        self.set_defaults_with_config(**{key: as_list(value, hints[key]) for key, value in values.items()})
        with as_config_error(f"{path}: "):
            parts = self.parse_args_into_dataclasses(args=arguments, look_for_args_file=False)
        explicit = set(values) | given
        settings = {
            name: to_builtin(getattr(part, name))
            for part in parts
            for name in (f.name for f in dataclasses.fields(part))
            if name in explicit
        }
        by_class = {type(part): part for part in parts}
        keys = {**surroundings, **settings, **written}
        return Recipe(Path(path), method, by_class, settings, notes, keys)

    def _read_as(self, hints: dict[str, Any]) -> dict[str, Any]:
        """The types as which the keys of a file are read, old ones among them."""
        old = {key: hints[todays] for key, todays in RENAMED.items() if todays in hints}
        surroundings = {
            "env": dict[str, ENVIRONMENT_VALUE],
            "dataset_splits": list[str],
            **dict.fromkeys(TRACKING, str),
        }
        own = [kind.READ_AS for kind in self.dataclass_types if "READ_AS" in vars(kind)]
        return {**surroundings, **old, **hints, **{key: kind for keys in own for key, kind in keys.items()}}

    def _hint(self, key: str) -> str:
        """What may have been meant by an unknown key."""
        if key in self._other_keys:
            return f" (a key of {self._other_keys[key]})"
        return closest_match(key, [action.dest for action in self._actions])

    def _given(self, arguments: list[str]) -> tuple[set[str], list[str]]:
        """The destinations that the command line sets, and the options it has that are unknown."""
        given, unknown = set(), []
        for argument in arguments:
            if not argument.startswith("--"):
                continue
            action = self._option_string_actions.get(argument)
            if action is None:
                unknown.append(argument)
            else:
                given.add(action.dest)
        return given, unknown


_CORRECT_KEY = "Correct or remove the key"


def _split_equals(argv: Sequence[str]) -> list[str]:
    result: list[str] = []
    for argument in argv:
        if argument.startswith("--") and "=" in argument:
            result += argument.split("=", 1)
        else:
            result.append(argument)
    return result


def _take_option(arguments: list[str], name: str) -> str | None:
    if name not in arguments:
        return None
    at = arguments.index(name)
    if at + 1 == len(arguments):
        raise ConfigError(f"command line, {name}", "no value", "one", "Write the value after the option")
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value
