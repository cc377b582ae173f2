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
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from .. import methods
from ..errors import ConfigError, require
from ..generation.decoding_modes import SINGLE_PASS
from ..recipe.type_checks import read_yaml
from ..recipe.validation import CHECKED, Number, OneOrMore, meets, once_each, one_of, validate, wrong_value
from ..tasks.task import TASKS


NONE, START = "none", "start"  # the recipe's own model; the variant that an experiment's `start` is
BUDGETS = ("steps", "tokens", "compute", "none")
SEEDS = (1, 2, 3)
TEMPERATURES = (0.0, 1.0)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_VARIANT = ("method", "decoding_modes", "init_from")  # a variant's own keys; all others are recipe keys
_MODES = (SINGLE_PASS, *methods.answer_modes())
_GRADED_TASKS = tuple(name for name, task in TASKS.items() if task.grader != "none")


def _single_pass_first(modes: tuple[str, ...]) -> tuple[str, ...]:
    return (SINGLE_PASS, *(mode for mode in modes if mode != SINGLE_PASS))


@dataclass(frozen=True, config=CHECKED)
class Variant:
    """A method with its settings.

    overrides: recipe keys over those that all variants share.
    decoding_modes: how it is asked, at the first temperature; at the others directly.
    init_from: `none` (the recipe's model) or `start` (that of the experiment's start stage).
    """

    name: Annotated[
        StrictStr,
        meets(_NAME.fullmatch, "letters, digits, . _ and -"),
        meets(lambda name: name != NONE, f"another name than {NONE}"),
    ]
    method: Annotated[StrictStr, one_of(*methods.list_methods())]
    overrides: dict[str, Any] = Field(default_factory=dict)
    decoding_modes: Annotated[OneOrMore[Annotated[StrictStr, one_of(*_MODES)]], AfterValidator(_single_pass_first)] = (
        SINGLE_PASS,
    )
    init_from: Annotated[StrictStr, one_of(NONE, START)] = NONE

    @model_validator(mode="after")
    def _check_control(self) -> Self:
        if self.name == methods.CONTROL and self.method != methods.CONTROL:
            raise wrong_value(f"the method {self.method} for the control", methods.CONTROL)
        return self


@dataclass(frozen=True, config=CHECKED)
class Evaluation:
    """How every variant is evaluated.

    task: None is `math`, if the references have marked answers.
    prefix_lengths: of the gap; None are those of `gapbridge gap`.
    same_completions: whether the gap is measured a second time, after the completions of the model that the control
        starts from.
    """

    task: Annotated[StrictStr, one_of(*_GRADED_TASKS)] | None = None
    max_completion_length: StrictInt | None = Field(default=None, ge=1, description="an integer of at least 1")
    temperatures: Annotated[OneOrMore[Annotated[Number, Field(ge=0)]], once_each("number")] = Field(
        default=TEMPERATURES, min_length=1, description="one or more numbers of at least 0, where 0 is greedy"
    )
    max_examples: StrictInt | None = Field(default=None, ge=1, description="an integer of at least 1")
    gap: StrictBool = False
    error_positions: OneOrMore[Annotated[Number, Field(gt=0, lt=1)]] = Field(
        default=(), description="relative positions between 0 and 1"
    )
    prefix_lengths: OneOrMore[Annotated[StrictInt, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="lengths of 1 or more"
    )
    same_completions: StrictBool = False


@dataclass(frozen=True, config=CHECKED)
class InitModel:
    """A starting model made for each seed: shell commands that leave it in `{init_model}`, and where it goes."""

    commands: OneOrMore[StrictStr]
    directory: StrictStr


@dataclass(frozen=True, config=CHECKED)
class Experiment:
    """A comparison. `variants` holds the start stage first, if there is one, then the control, then the others;
    `overrides` are recipe keys for all of them, left out where a variant's method does not have them."""

    name: Annotated[StrictStr, meets(_NAME.fullmatch, "letters, digits, . _ and -, as a directory has")]
    recipe: Annotated[StrictStr, Field(min_length=1, description="the path of a recipe")]
    seeds: Annotated[
        OneOrMore[Annotated[StrictInt, Field(ge=0)]],
        Field(min_length=1, description="seeds of at least 0"),
        once_each("seed"),
    ]
    variants: Annotated[dict[str, Variant], Field(description="a mapping with a method")]
    budget: Annotated[StrictStr, one_of(*BUDGETS)] = "steps"
    evaluation: Evaluation = Evaluation()
    overrides: dict[str, Any] = Field(default_factory=dict)
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
    names = Evaluation.__dataclass_fields__
    evaluation = {key: vars(args)[key] for key in names if vars(args).get(key) is not None}
    values = {"name": "compare", "recipe": args.config or "none", "variants": variants, "evaluation": evaluation}
    values |= {"seeds": args.seeds or [*SEEDS], "budget": args.budget or BUDGETS[0]}
    options = {"seeds": "--seeds", "budget": "--budget", "evaluation, ": "--", "variants, ": "--methods, "}
    return _experiment(values, errors, "command line, ", options)


def with_seeds(experiment: Experiment, seeds: Sequence[int]) -> Experiment:
    """The same comparison with other seeds. Raises ConfigError for ones that cannot be."""
    return validate(Experiment, {**vars(experiment), "seeds": [*seeds]}, "command line, --")


def read_experiment(path: Path) -> Experiment:
    """An experiment file. Raises ConfigError with every error: unknown keys with the nearest one, wrong types and
    names."""
    values = {"name": path.stem, **_extended(path)}
    errors = require(values.get("variants") != {}, "variants", "no value", "one", "Add the key")
    return _experiment(values, errors, f"{path}, ", {"variants, start, ": "start, "})


def _experiment(values: dict[str, Any], errors: list[str], place: str, places: Mapping[str, str]) -> Experiment:
    """The experiment of a mapping.

    Args:
        errors: those that are known before.
        place: what stands before an error.
        places: beginnings of errors, and what stands there instead, since the user gave the key somewhere else.
    """
    variants, start = values.get("variants"), values.pop("start", None)
    origin = NONE if start is None else START
    if isinstance(variants, dict):
        is_free = START not in variants
        errors += require(is_free, "variants", f"the name {START!r}", "another name", "Rename the variant")
        given = {key: _variant_values(key, entry, origin) for key, entry in variants.items()}
        control = given.pop(methods.CONTROL, _variant_values(methods.CONTROL, {"method": methods.CONTROL}, origin))
        first = {} if start is None else {START: _variant_values(START, start, NONE)}
        values["variants"] = {**first, methods.CONTROL: control, **given}
    found: Experiment | None = None
    try:
        found = validate(Experiment, values, "", ("start", "extends"))
    except ConfigError as error:
        for line in error.errors:
            old = next(filter(line.startswith, places), "")
            errors.append(places.get(old, "") + line.removeprefix(old))
    for variant in found.variants.values() if found and start is None else ():
        where, expected = f"variants, {variant.name}, init_from", f"{NONE}, since no start is given"
        errors += require(variant.init_from != START, where, f"{START!r}", expected, "Add a start, or remove the key")
    if errors or found is None:
        raise ConfigError([f"{place}{error}" for error in errors])
    own = found.evaluation
    return replace(found, evaluation=replace(own, gap=own.gap or bool(own.error_positions) or own.same_completions))


def _variant_values(name: str, entry: Any, origin: str) -> Any:
    """An entry of `variants` as the fields of a Variant: what is no key of its own is a recipe key."""
    if not isinstance(entry, dict):
        return entry
    own = {key: value for key, value in entry.items() if key in _VARIANT}
    overrides = {key: value for key, value in entry.items() if key not in _VARIANT}
    return {"name": name, "init_from": origin, **own, "overrides": overrides}


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
