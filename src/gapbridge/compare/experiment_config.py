"""What is compared: variants, seeds, and how they are evaluated; from an experiment file or from the command line.

An experiment file is one YAML mapping, parsed strictly; with `extends` it says only what is different from another
one.
`{seed}` and `{init_model}` in the strings of `overrides`, of the variants and of the recipe's `model_name_or_path` are
filled in for each seed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import methods
from ..errors import ConfigError, describe, require
from ..generation.decoding_modes import SINGLE_PASS
from ..recipe.type_checks import closest_match, known_values, read_yaml
from ..tasks.task import TASKS


NONE, START = "none", "start"  # the recipe's own model; the variant that an experiment's `start` is
BUDGETS = ("steps", "tokens", "compute", "none")
SEEDS = (1, 2, 3)
TEMPERATURES = (0.0, 1.0)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_EXPERIMENT: dict[str, Any] = {
    "name": str, "recipe": str, "seeds": list[int], "init_model": dict | None, "overrides": dict, "start": dict | None,
    "variants": dict, "budget": str, "evaluation": dict,
}  # fmt: skip
_VARIANT: dict[str, Any] = {"method": str, "decoding_modes": list[str], "init_from": str}
_EVALUATION: dict[str, Any] = {
    "task": str | None, "max_completion_length": int | None, "temperatures": list[float], "max_examples": int | None,
    "gap": bool, "error_positions": list[float], "prefix_lengths": list[int] | None, "same_completions": bool,
}  # fmt: skip
_BASE: dict[str, Any] = {"commands": list[str], "directory": str}


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    overrides: recipe keys over those that all variants share.
    decoding_modes: how it is asked, at the first temperature; at the others directly.
    init_from: `none` (the recipe's model) or `start` (that of the experiment's start stage).
    """

    name: str
    method: str
    overrides: dict[str, Any] = field(default_factory=dict)
    decoding_modes: tuple[str, ...] = (SINGLE_PASS,)
    init_from: str = NONE


@dataclass(frozen=True)
class Evaluation:
    """How every variant is evaluated.

    task: None is `math`, if the references have marked answers.
    prefix_lengths: of the gap; None are those of `gapbridge gap`.
    same_completions: whether the gap is measured a second time, after the completions of the model that the control
        starts from.
    """

    task: str | None = None
    max_completion_length: int | None = None
    temperatures: tuple[float, ...] = TEMPERATURES
    max_examples: int | None = None
    gap: bool = False
    error_positions: tuple[float, ...] = ()
    prefix_lengths: tuple[int, ...] | None = None
    same_completions: bool = False


@dataclass(frozen=True)
class InitModel:
    """A starting model made for each seed: shell commands that leave it in `{init_model}`, and where it goes."""

    commands: tuple[str, ...]
    directory: str


@dataclass(frozen=True)
class Experiment:
    """A comparison. `variants` holds the start stage first, if there is one, then the control, then the others;
    `overrides` are recipe keys for all of them, left out where a variant's method does not have them."""

    name: str
    recipe: str
    seeds: tuple[int, ...]
    variants: dict[str, Variant]
    budget: str = "steps"
    evaluation: Evaluation = Evaluation()
    overrides: dict[str, Any] = field(default_factory=dict)
    init_model: InitModel | None = None

    @property
    def control(self) -> Variant:
        return self.variants[methods.CONTROL]

    def init_model_directory(self, seed: int) -> str:
        """Where the seed's starting model lies; empty where the experiment makes none."""
        return filled(self.init_model.directory, seed, "") if self.init_model else ""


def filled(value: Any, seed: int, base: str) -> Any:
    """A value with `{seed}` and `{init_model}` filled in, in all of its strings."""
    if isinstance(value, str):
        return value.replace("{seed}", str(seed)).replace("{init_model}", base)
    if isinstance(value, dict):
        return {key: filled(entry, seed, base) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, seed, base) for entry in value]
    return value


def experiment_of_options(args: argparse.Namespace) -> Experiment:
    """The experiment that the command line describes: a default variant for each of `methods`, and the control. Raises
    ConfigError with every error."""
    known = methods.list_methods()
    advice = "Give gapbridge compare RECIPE.yaml, or a --experiment_config FILE.yaml"
    errors = require(args.config, "recipe", "none", "one", advice)
    errors += require(args.methods, "--methods", "none", f"some of {', '.join(known)}", "List them, as in a,b,c")
    variants = {
        name: {"method": name, "decoding_modes": [*methods.get_method(name).answer_modes] if name in known else []}
        for name in args.methods or ()
    }
    evaluation = {key: vars(args)[key] for key in _EVALUATION if vars(args).get(key) is not None}
    values = {"recipe": args.config or "", "variants": variants, "evaluation": evaluation}
    values |= {"seeds": args.seeds or [*SEEDS], "budget": args.budget or BUDGETS[0]}
    return _experiment(values, "compare", errors, "command line, ", "--")


def with_seeds(experiment: Experiment, seeds: Sequence[int]) -> Experiment:
    """The same comparison with other seeds. Raises ConfigError for ones that cannot be."""
    if errors := _seed_errors(seeds, "--seeds"):
        raise ConfigError([f"command line, {error}" for error in errors])
    return replace(experiment, seeds=tuple(seeds))


def read_experiment(path: Path) -> Experiment:
    """An experiment file. Raises ConfigError with every error: unknown keys with the nearest one, wrong types and
    names."""
    values, errors = _extended(path), []
    for key in ("recipe", "seeds", "variants"):
        errors += require(values.get(key), key, "no value", "one", "Add the key")
    return _experiment(values, path.stem, errors, f"{path}, ", "")


def _experiment(values: dict[str, Any], name: str, errors: list[str], place: str, option: str) -> Experiment:
    """The experiment of a mapping; `name`: where it has none; `errors`: those that are known before; `place`,
    `option`: what stands before an error, and before the keys that are options on the command line."""
    values = known_values(values, _EXPERIMENT, "", errors)
    name, budget, seeds = values.get("name", name), values.get("budget", "steps"), _list(values.get("seeds", []))
    errors += require(
        budget in BUDGETS, f"{option}budget", budget, f"one of {', '.join(BUDGETS)}", "Choose one of them"
    )
    expected = "letters, digits, . _ and -"
    errors += require(_NAME.fullmatch(name), "name", repr(name), f"{expected}, as a directory has", "Correct the name")
    start = START if values.get("start") is not None else NONE
    found = {START: _variant(START, values["start"], "", NONE, errors)} if start == START else {}
    for key, entry in values.get("variants", {}).items():
        place_of_name, is_good = f"variants, {key}", _NAME.fullmatch(str(key)) and key not in (START, NONE)
        got = f"the name {key!r}"
        errors += require(is_good, "variants", got, f"{expected}, not {START} or {NONE}", "Rename the variant")
        is_mapping = isinstance(entry, dict)
        errors += require(is_mapping, place_of_name, repr(entry), "a mapping with a method", "Correct the value")
        if is_good and is_mapping:
            found[key] = _variant(key, entry, "variants, ", start, errors)
    variants = {key: variant for key, variant in found.items() if variant is not None}
    evaluation = _evaluation(values.get("evaluation", {}), option or "evaluation, ", errors)
    base = _base(values["init_model"], errors) if values.get("init_model") else None
    own = variants.get(methods.CONTROL)
    if own is not None and own.method != methods.CONTROL:
        got, advice = f"the method {own.method} for the control", "Rename the variant, or change its method"
        errors.append(describe(f"variants, {own.name}", got, own.name, advice))
    errors += _seed_errors(seeds, f"{option}seeds")
    if errors:
        raise ConfigError([f"{place}{error}" for error in errors])
    first = {START: variants.pop(START)} if START in variants else {}
    ordered = {**first, methods.CONTROL: own or Variant(methods.CONTROL, methods.CONTROL, init_from=start), **variants}
    overrides = values.get("overrides", {})
    return Experiment(name, values["recipe"], tuple(seeds), ordered, budget, evaluation, overrides, base)


def _extended(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping of an experiment file over that of the file it `extends`, which is named from its own folder."""
    values = read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or not (path.parent / parent).is_file():
        place = f"{path}, extends"
        raise ConfigError(place, f"{parent!r}", f"an experiment file, relative to {path.parent}", "Correct the path")
    if path.resolve() in above:
        got = f"a circle by way of {above[-1]}"
        raise ConfigError(f"{path}, extends", got, "a file that does not extend itself", "Remove one of the keys")
    return _merged(_extended(path.parent / parent, (*above, path.resolve())), values)


def _merged(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `below`, mappings key by key; what is null in `over` is taken out."""
    merged = dict(below)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = _merged(below[key], value)
        else:
            merged[key] = value
    return merged


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _variant(name: str, entry: dict[str, Any], where: str, start: str, errors: list[str]) -> Variant | None:
    own = known_values({key: entry[key] for key in entry.keys() & _VARIANT}, _VARIANT, f"{where}{name}, ", errors)
    method, known = own.get("method"), methods.list_methods()
    if method not in known:
        got = f"the unknown method {method!r}{closest_match(str(method), known)}"
        errors.append(describe(f"{where}{name}, method", got, f"one of {', '.join(known)}", "Correct the name"))
        return None
    known_modes = [SINGLE_PASS, *methods.answer_modes()]
    modes = _list(own.get("decoding_modes", []))
    for mode in modes:
        got, expected = (
            f"the unknown mode {mode!r}{closest_match(mode, known_modes)}",
            f"one of {', '.join(known_modes)}",
        )
        errors += require(mode in known_modes, f"{where}{name}, decoding_modes", got, expected, "Correct the mode")
    modes = [SINGLE_PASS, *(mode for mode in modes if mode != SINGLE_PASS)]
    overrides = {key: value for key, value in entry.items() if key not in _VARIANT}
    init_from, expected = own.get("init_from", start), f"{NONE}, or {START} where the experiment has a start stage"
    errors += require(init_from in (NONE, start), f"{where}{name}, init_from", repr(init_from), expected, "Correct it")
    return Variant(name, method, overrides, tuple(modes), init_from)


def _evaluation(entry: dict[str, Any], where: str, errors: list[str]) -> Evaluation:
    own = known_values(entry, _EVALUATION, "evaluation, ", errors)
    temperatures = [float(value) for value in _list(own.get("temperatures", [*TEMPERATURES]))]
    positions = [float(value) for value in _list(own.get("error_positions", []))]
    lengths = own.get("prefix_lengths")
    lengths = None if lengths is None else _list(lengths)
    graded = [name for name, task in TASKS.items() if task.grader != "none"]
    task, numbers = own.get("task"), "one or more numbers of at least 0, where 0 is greedy"
    cases = [
        ("task", task in (None, *graded), repr(task), f"one of {', '.join(graded)}"),
        ("temperatures", temperatures and all(value >= 0 for value in temperatures), temperatures, numbers),
        ("temperatures", len(set(temperatures)) == len(temperatures), "a number twice", "every number once"),
        ("prefix_lengths", lengths is None or (lengths and min(lengths) >= 1), lengths, "lengths of 1 or more"),
        ("error_positions", all(0 < at < 1 for at in positions), positions, "relative positions between 0 and 1"),
    ]
    for name in ("max_examples", "max_completion_length"):
        cases.append((name, own.get(name) is None or own[name] >= 1, own.get(name), "at least 1"))
    for name, is_good, got, expected in cases:
        errors += require(is_good, f"{where}{name}", got, expected, "Correct the value")
    own |= {"temperatures": tuple(temperatures), "error_positions": tuple(positions)}
    own["gap"] = own.get("gap", False) or bool(positions) or own.get("same_completions", False)
    return Evaluation(**{**own, "prefix_lengths": None if lengths is None else tuple(lengths)})


def _base(entry: dict[str, Any], errors: list[str]) -> InitModel | None:
    own = known_values(entry, _BASE, "init_model, ", errors)
    missing = [key for key in _BASE if not own.get(key)]
    errors += [describe(f"init_model, {key}", "no value", "one", "Add the key") for key in missing]
    return None if missing else InitModel(tuple(_list(own["commands"])), own["directory"])


def _seed_errors(seeds: Sequence[int], name: str) -> list[str]:
    is_good = len(set(seeds)) == len(seeds)
    errors = require(is_good, name, "a seed twice", "every seed once", "Remove one of them")
    is_good = all(seed >= 0 for seed in seeds)
    return errors + require(is_good, name, [*seeds], "seeds of at least 0", "Correct the list")
