"""Strict recipes: every error at once, and keys of older handbook, TRL and transformers versions translated.

A recipe is one YAML file and one training run. Keys that no dataclass knows are an error that names the nearest known
key; values are checked against the field's type and choices. An option of the command line is a key whose value wins
over the file's: it is read, translated and checked by the same rules.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import REDACTED, ConfigError, as_config_error, describe
from .deprecated_keys import NO_EFFECT, RENAMED, TRACKING, translate
from .secrets import redact
from .type_checks import as_field_value, closest_match, expected_value, read_words, read_yaml, to_builtin
from .variables import environment_errors, too_late
from .yaml_nodes import ENVIRONMENT_VALUE


logger = logging.getLogger(__name__)

# By key, an option as it was written, and the words after it.
Options = dict[str, tuple[str, list[str]]]


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


def split_line(argv: Sequence[str]) -> tuple[Path, Options]:
    """The recipe of `--config FILE [--key value …]`, and the other options.

    Raises:
        ConfigError: there is not one recipe.
    """
    options: Options = {}
    words: list[str] = []  # of the option before
    stray = words
    for word in argv:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            words = [value] if equals else []
            options[option[2:].replace("-", "_")] = (option, words)
        else:
            words.append(word)
    files = [*stray, *options.pop("config", ("", []))[1]]
    if len(files) != 1:
        got = " ".join(files) or "no recipe"
        raise ConfigError("command line", got, "one YAML file", "Give one with --config FILE.yaml")
    return Path(files[0]), options


def parse_recipe(
    path: Path,
    options: Options,
    kinds: Sequence[type[Any]],
    *,
    methods: Collection[str],
    owners: Callable[[str], Sequence[str]],
) -> Recipe:
    """Parse a recipe with options over it.

    Args:
        kinds: the dataclasses whose fields are the keys.
        methods: what the recipe's `method` may be.
        owners: given a key, the other methods that have it.

    Raises:
        ConfigError: with all errors of the file and of the command line.
    """
    fields = {entry.name: entry for kind in kinds for entry in dataclasses.fields(kind) if entry.init}
    hints = {key: hint for kind in kinds for key, hint in get_type_hints(kind).items()}
    read_as = _read_as(kinds, hints)
    values = read_yaml(path, read_as)
    notes: list[str] = []
    errors: list[str] = []
    method = values.pop("method", None)
    if method is not None and method not in methods:
        errors.append(describe(f"{path}, method", repr(method), f"one of {', '.join(methods)}", "Choose one of them"))
    environment = values.pop("env", None) or {}
    errors += [f"{path}, {error}" for error in environment_errors(environment)]
    if not isinstance(environment, dict):
        environment = {}
    surroundings = {"env": dict(environment)} if environment else {}
    given: dict[str, Any] = {}
    for key, option in options.items():
        try:
            given[key] = read_words(*option, read_as.get(key, str))
        except ConfigError as error:
            errors += error.errors
    surroundings |= {key: value for key, value in {**values, **given}.items() if key in TRACKING and key not in fields}
    values = translate(values, set(fields), notes, errors, environment, str(path))
    given = translate(given, set(fields), notes, errors, environment, "command line")
    cut = "truncate_overlong"
    if method is None and cut in fields and cut not in {**values, **given}:
        values[cut] = True
        notes.append(f"{path}: a recipe without `method` is a handbook's, which cuts long rows: {cut}: true")
    for place, found, written_as in ((str(path), values, None), ("command line", given, options)):
        errors += _key_errors(place, found, written_as, fields, hints, owners)
        without_effect = [key for key in found if key in fields and key in NO_EFFECT]
        notes += [f"{place}: {key} has no effect here: {NO_EFFECT[key]}" for key in without_effect]
    if errors:
        raise ConfigError(errors)
    for note in notes:
        logger.info(note)
    for late in too_late(environment):
        logger.warning("%s: %s", path, late)
    os.environ.update({name: str(value) for name, value in environment.items()})
    # The dataclasses change the lists and mappings that they are given.
    written = copy.deepcopy({key: value for key, value in values.items() if key not in given})
    explicit = {key: as_field_value(value, hints[key]) for key, value in {**values, **given}.items()}
    with as_config_error(f"{path}: "):
        parts = {
            kind: kind(
                **{entry.name: explicit[entry.name] for entry in dataclasses.fields(kind) if entry.name in explicit}
            )
            for kind in kinds
        }
    settings = {
        entry.name: to_builtin(getattr(part, entry.name))
        for part in parts.values()
        for entry in dataclasses.fields(part)
        if entry.name in explicit
    }
    return Recipe(path, method, parts, settings, notes, {**surroundings, **settings, **written})


def _key_errors(
    place: str,
    values: dict[str, Any],
    options: Options | None,
    fields: dict[str, dataclasses.Field[Any]],
    hints: dict[str, Any],
    owners: Callable[[str], Sequence[str]],
) -> list[str]:
    """The unknown keys of a file or, with `options`, of the command line, and the values of another type."""
    errors = []
    for key, value in values.items():
        if key not in fields:
            word, name = ("key", repr(key)) if options is None else ("option", options[key][0])
            near = f" (a key of {' and '.join(of)})" if (of := owners(key)) else closest_match(key, fields)
            advice = f"Correct or remove the {word}"
            errors.append(describe(place, f"the unknown {word} {name}{near}", f"a known {word}", advice))
        elif expected := expected_value(value, hints[key], fields[key]):
            got = repr(redact({key: value}, REDACTED).keys[key])
            name = key if options is None else f"--{key}"
            errors.append(describe(f"{place}, {name}", got, expected, "Correct the value"))
    return errors


def _read_as(kinds: Sequence[type[Any]], hints: dict[str, Any]) -> dict[str, Any]:
    """The types as which the keys of a file and the options are read, old ones among them."""
    old = {key: hints[todays] for key, todays in RENAMED.items() if todays in hints}
    switches = dict.fromkeys(("use_flash_attention_2", "group_by_length"), bool)
    surroundings = {"env": dict[str, ENVIRONMENT_VALUE], "dataset_splits": list[str], **dict.fromkeys(TRACKING, str)}
    own = [kind.READ_AS for kind in kinds if "READ_AS" in vars(kind)]
    return {**switches, **surroundings, **old, **hints, **{key: kind for keys in own for key, kind in keys.items()}}
