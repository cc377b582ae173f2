"""What is compared: variants, seeds, and how they are evaluated; from an experiment file or from the command line.

An experiment file is one YAML mapping, parsed strictly; with `extends` it says only what is different from another
one.
`{seed}` and `{init_model}` in the strings of `overrides`, of the variants and of the recipe's `model_name_or_path` are
filled in for each seed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import methods
from ..errors import ConfigError, describe
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
    init_from: `none` (the recipe's model) or the name of the variant whose model it starts from.
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
    """A comparison. `variants` holds the start stage, if there is one, first, and each variant after the one it
    starts from;
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
    """The experiment that the command line describes: a default variant for each of `methods`, and the control.

    Raises:
        ConfigError: listing every error.
    """
    errors = []
    if not args.config:
        errors.append(
            describe("recipe", "none", "one", "Give gapbridge compare RECIPE.yaml, or a --experiment_config FILE.yaml")
        )
    if not args.methods:
        errors.append(
            describe("--methods", "none", f"some of {', '.join(methods.list_methods())}", "List them, as in a,b,c")
        )
    for name in args.methods or ():
        if name not in methods.list_methods():
            errors.append(
                describe(
                    "--methods",
                    f"the unknown method {name!r}{closest_match(name, methods.list_methods())}",
                    f"one of {', '.join(methods.list_methods())}",
                    "Correct the name",
                )
            )
    if len(set(args.methods or ())) < len(args.methods or ()):
        errors.append(describe("--methods", "a method twice", "every method once", "Remove one of them"))
    if args.budget not in (None, *BUDGETS):
        errors.append(describe("--budget", args.budget, f"one of {', '.join(BUDGETS)}", "Choose one of them"))
    evaluation = evaluation_of_options(args)
    seeds = SEEDS if args.seeds is None else tuple(args.seeds)
    errors += _evaluation_errors(evaluation, "--") + _seed_errors(seeds, "--seeds")
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])
    variants = {
        name: Variant(name, name, decoding_modes=(SINGLE_PASS, *methods.get_method(name).answer_modes))
        for name in args.methods
    }
    return Experiment("compare", args.config, seeds, _ordered(variants), args.budget or BUDGETS[0], evaluation)


def with_seeds(experiment: Experiment, seeds: Sequence[int]) -> Experiment:
    """The same comparison with other seeds. Raises ConfigError for ones that cannot be."""
    errors = _seed_errors(seeds, "--seeds")
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])
    return replace(experiment, seeds=tuple(seeds))


def evaluation_of_options(args: argparse.Namespace) -> Evaluation:
    """How the command line says that variants are evaluated."""
    return Evaluation(
        task=args.task,
        max_completion_length=args.max_completion_length,
        temperatures=TEMPERATURES if args.temperatures is None else tuple(args.temperatures),
        max_examples=args.max_examples,
        gap=args.gap or bool(args.error_positions),
        error_positions=tuple(args.error_positions or ()),
    )


def read_experiment(path: Path) -> Experiment:
    """An experiment file.

    Raises:
        ConfigError: listing every error: unknown keys with the nearest known one, wrong types and names.
    """
    errors: list[str] = []
    values = known_values(_extended(path), _EXPERIMENT, "", errors)
    for key in ("recipe", "seeds", "variants"):
        if not values.get(key):
            errors.append(describe(key, "no value", "one", "Add the key"))
    seeds = tuple(_list(values.get("seeds", [])))
    budget = values.get("budget", "steps")
    if budget not in BUDGETS:
        errors.append(describe("budget", f"{budget!r}", f"one of {', '.join(BUDGETS)}", "Choose one of them"))
    has_start = values.get("start") is not None
    found = {START: _variant(START, values["start"], NONE, errors)} if has_start else {}
    for name, entry in values.get("variants", {}).items():
        if name in (START, NONE) or not _NAME.fullmatch(str(name)):
            errors.append(
                describe(
                    "variants",
                    f"the name {name!r}",
                    f"letters, digits, . _ and -, not {START} or {NONE}",
                    "Rename the variant",
                )
            )
        elif not isinstance(entry, dict):
            errors.append(describe(f"variants, {name}", f"{entry!r}", "a mapping with a method", "Correct the value"))
        else:
            found[name] = _variant(name, entry, START if has_start else NONE, errors)
    variants = {name: variant for name, variant in found.items() if variant is not None}
    evaluation = _evaluation(values.get("evaluation", {}), errors)
    base = _base(values["init_model"], errors) if values.get("init_model") else None
    control = variants.get(methods.CONTROL)
    if control is not None and control.method != methods.CONTROL:
        errors.append(
            describe(
                f"variants, {control.name}",
                f"the method {control.method} for the control",
                control.name,
                "Rename the variant, or change its method",
            )
        )
    errors += _start_errors(variants) + _seed_errors(seeds, "seeds")
    name = values.get("name", path.stem)
    if not _NAME.fullmatch(str(name)):
        errors.append(
            describe(
                "name", f"{name!r}", "letters, digits, . _ and -, since it names the directory", "Correct the name"
            )
        )
    if errors:
        raise ConfigError([f"{path}, {error}" for error in errors])
    start = START if has_start else NONE
    overrides = values.get("overrides", {})
    return Experiment(name, values["recipe"], seeds, _ordered(variants, start), budget, evaluation, overrides, base)


def _extended(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping of an experiment file over that of the file it `extends`, which is named from its own folder."""
    values = read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or not (path.parent / parent).is_file():
        raise ConfigError(
            f"{path}, extends", f"{parent!r}", f"an experiment file, relative to {path.parent}", "Correct the path"
        )
    if path.resolve() in above:
        raise ConfigError(
            f"{path}, extends",
            f"a circle by way of {above[-1]}",
            "a file that does not extend itself",
            "Remove one of the keys",
        )
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


def _variant(name: str, entry: dict[str, Any], start: str, errors: list[str]) -> Variant | None:
    where = "" if name == START else "variants, "
    own = known_values({key: entry[key] for key in entry.keys() & _VARIANT}, _VARIANT, f"{where}{name}, ", errors)
    method = own.get("method")
    if method not in methods.list_methods():
        errors.append(
            describe(
                f"{where}{name}, method",
                f"{method!r}",
                f"one of {', '.join(methods.list_methods())}",
                "Choose one of them",
            )
        )
        return None
    modes = tuple(_list(own.get("decoding_modes", [SINGLE_PASS])))
    known = [SINGLE_PASS, *methods.answer_modes()]
    errors += [
        describe(
            f"{where}{name}, decoding_modes",
            f"the unknown mode {mode!r}{closest_match(mode, known)}",
            f"one of {', '.join(known)}",
            "Correct the mode",
        )
        for mode in modes
        if mode not in known
    ]
    overrides = {key: value for key, value in entry.items() if key not in _VARIANT}
    return Variant(
        name,
        method,
        overrides,
        (SINGLE_PASS, *(mode for mode in modes if mode != SINGLE_PASS)),
        own.get("init_from", start),
    )


def _evaluation(entry: dict[str, Any], errors: list[str]) -> Evaluation:
    own = known_values(entry, _EVALUATION, "evaluation, ", errors)
    for key, default in (("temperatures", list(TEMPERATURES)), ("error_positions", [])):
        own[key] = tuple(map(float, _list(own.get(key, default))))
    own["gap"] = own.get("gap", False) or bool(own["error_positions"]) or own.get("same_completions", False)
    if own.get("prefix_lengths") is not None:
        own["prefix_lengths"] = tuple(_list(own["prefix_lengths"]))
    evaluation = Evaluation(**own)
    errors += _evaluation_errors(evaluation, "evaluation, ")
    return evaluation


def _evaluation_errors(evaluation: Evaluation, where: str) -> list[str]:
    graded = [name for name, task in TASKS.items() if task.grader != "none"]
    errors = []
    if evaluation.task is not None and evaluation.task not in graded:
        errors.append(
            describe(f"{where}task", f"{evaluation.task!r}", f"one of {', '.join(graded)}", "Choose one of them")
        )
    if not evaluation.temperatures or any(not value >= 0 for value in evaluation.temperatures):
        errors.append(
            describe(
                f"{where}temperatures",
                list(evaluation.temperatures),
                "one or more numbers of at least 0, where 0 is greedy",
                "Correct the list",
            )
        )
    if len(set(evaluation.temperatures)) < len(evaluation.temperatures):
        errors.append(describe(f"{where}temperatures", "a number twice", "every number once", "Remove one of them"))
    for name, value in (
        ("max_examples", evaluation.max_examples),
        ("max_completion_length", evaluation.max_completion_length),
    ):
        if value is not None and value < 1:
            errors.append(describe(f"{where}{name}", value, "at least 1", "Correct the value"))
    if any(k < 1 for k in evaluation.prefix_lengths or ()) or evaluation.prefix_lengths == ():
        errors.append(
            describe(
                f"{where}prefix_lengths",
                list(evaluation.prefix_lengths or ()),
                "lengths of 1 or more",
                "Give one or more of them",
            )
        )
    if any(not 0 < place < 1 for place in evaluation.error_positions):
        errors.append(
            describe(
                f"{where}error_positions",
                list(evaluation.error_positions),
                "relative positions between 0 and 1",
                "Correct the list",
            )
        )
    return errors


def _base(entry: dict[str, Any], errors: list[str]) -> InitModel | None:
    own = known_values(entry, _BASE, "init_model, ", errors)
    missing = [key for key in _BASE if not own.get(key)]
    errors += [describe(f"init_model, {key}", "no value", "one", "Add the key") for key in missing]
    return None if missing else InitModel(tuple(_list(own["commands"])), own["directory"])


def _seed_errors(seeds: Sequence[int], name: str) -> list[str]:
    if len(set(seeds)) < len(seeds):
        return [describe(name, "a seed twice", "every seed once", "Remove one of them")]
    return (
        [describe(name, list(seeds), "seeds of at least 0", "Correct the list")]
        if any(seed < 0 for seed in seeds)
        else []
    )


def _start_errors(variants: Mapping[str, Variant]) -> list[str]:
    """Variants that start from one that is not there, or in a circle from each other."""
    errors = []
    for variant in variants.values():
        seen = [variant.name]
        while (at := variants[seen[-1]].init_from) != NONE:
            if at not in variants:
                errors.append(
                    describe(
                        f"variants, {variant.name}, init_from",
                        f"the unknown variant {at!r}{closest_match(at, variants)}",
                        f"one of {', '.join(variants)}",
                        "Correct the name",
                    )
                )
                break
            if at in seen:
                errors.append(
                    describe(
                        f"variants, {variant.name}, init_from",
                        f"a circle by way of {' and '.join(seen)}",
                        "a variant that does not start from itself",
                        "Change one of them",
                    )
                )
                break
            seen.append(at)
    return errors


def _ordered(variants: Mapping[str, Variant], start: str = NONE) -> dict[str, Variant]:
    """The variants with the control, each after the one that it starts from; the control as early as it can be."""
    control = methods.CONTROL
    wanted = {control: Variant(control, control, init_from=start), **variants}
    order: dict[str, Variant] = {}

    def place(variant: Variant) -> None:
        if variant.init_from != NONE:
            place(wanted[variant.init_from])
        order[variant.name] = variant

    for name in [*([START] if START in wanted else []), control, *wanted]:
        place(wanted[name])
    return order
