"""What is compared: arms, seeds, and how they are evaluated; from a suite file or from the command line.

A suite file is one YAML mapping, parsed strictly; with `extends` it says only what is different from another one.
`{seed}` and `{base}` in the strings of `overrides`, of the arms and of the recipe's `model_name_or_path` are filled in
for each seed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import methods
from ...answers.modes import DIRECT
from ...errors import ConfigError
from ...recipe.values import nearest, read_yaml, type_fault
from ...tasks.task import TASKS


NONE, START = "none", "start"  # the recipe's own model; the arm that a suite's `start` is
MATCHES = ("steps", "tokens", "compute", "none")
SEEDS = (1, 2, 3)
TEMPERATURES = (0.0, 1.0)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SUITE: dict[str, Any] = {
    "name": str, "recipe": str, "seeds": list[int], "base": dict | None, "overrides": dict, "start": dict | None,
    "arms": dict, "match": str, "evaluation": dict,
}  # fmt: skip
_ARM: dict[str, Any] = {"method": str, "modes": list[str], "start": str}
_EVALUATION: dict[str, Any] = {
    "task": str | None, "max_completion_length": int | None, "temperatures": list[float], "limit": int | None,
    "gap": bool, "slips": list[float],
}  # fmt: skip
_BASE: dict[str, Any] = {"commands": list[str], "directory": str}


@dataclass(frozen=True)
class Arm:
    """A method with its settings.

    overrides: recipe keys over those that all arms share.
    modes: how it is asked, at the first temperature; at the others directly.
    start: `none` (the recipe's model) or the name of the arm whose model it starts from.
    """

    name: str
    method: str
    overrides: dict[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = (DIRECT,)
    start: str = NONE


@dataclass(frozen=True)
class Evaluation:
    """How every arm is evaluated. `task` None: `math`, if the references have marked answers."""

    task: str | None = None
    max_completion_length: int | None = None
    temperatures: tuple[float, ...] = TEMPERATURES
    limit: int | None = None
    gap: bool = False
    slips: tuple[float, ...] = ()


@dataclass(frozen=True)
class Base:
    """A starting model made for each seed: shell commands that leave it in `{base}`, and where it goes."""

    commands: tuple[str, ...]
    directory: str


@dataclass(frozen=True)
class Suite:
    """A comparison. `arms` holds the start stage, if there is one, first, and each arm behind the one it starts from;
    `overrides` are recipe keys for all of them, left out where an arm's method does not have them."""

    name: str
    recipe: str
    seeds: tuple[int, ...]
    arms: dict[str, Arm]
    match: str = "steps"
    evaluation: Evaluation = Evaluation()
    overrides: dict[str, Any] = field(default_factory=dict)
    base: Base | None = None

    @property
    def control(self) -> Arm:
        return self.arms[methods.CONTROL]

    def base_directory(self, seed: int) -> str:
        """Where the seed's starting model lies; empty where the suite makes none."""
        return filled(self.base.directory, seed, "") if self.base else ""


def filled(value: Any, seed: int, base: str) -> Any:
    """A value with `{seed}` and `{base}` filled in, in all of its strings."""
    if isinstance(value, str):
        return value.replace("{seed}", str(seed)).replace("{base}", base)
    if isinstance(value, dict):
        return {key: filled(entry, seed, base) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, seed, base) for entry in value]
    return value


def suite_of_options(args: argparse.Namespace) -> Suite:
    """The suite that the command line describes: a default arm for each of `methods`, and the control.

    Raises:
        ConfigError: listing every fault.
    """
    faults = []
    if not args.config:
        faults.append("name the recipe that is compared (gapbridge compare RECIPE.yaml), or a --suite FILE.yaml")
    if not args.methods:
        faults.append(f"say with --methods which of {', '.join(methods.names())} are compared, as in a,b,c")
    for name in args.methods or ():
        if name not in methods.names():
            faults.append(f"--methods: there is no {name!r}{nearest(name, methods.names())}")
    if len(set(args.methods or ())) < len(args.methods or ()):
        faults.append("--methods names a method twice")
    if args.match not in (None, *MATCHES):
        faults.append(f"--match is {args.match}: choose one of {', '.join(MATCHES)}")
    evaluation = evaluation_of_options(args)
    seeds = SEEDS if args.seeds is None else tuple(args.seeds)
    faults += _evaluation_faults(evaluation, "--") + _seed_faults(seeds, "--seeds")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])
    arms = {name: Arm(name, name, modes=(DIRECT, *methods.find(name).answer_modes)) for name in args.methods}
    return Suite("compare", args.config, seeds, _ordered(arms), args.match or MATCHES[0], evaluation)


def with_seeds(suite: Suite, seeds: Sequence[int]) -> Suite:
    """The same comparison with other seeds. Raises ConfigError for ones that cannot be."""
    faults = _seed_faults(seeds, "--seeds")
    if faults:
        raise ConfigError([f"command line: {fault}" for fault in faults])
    return replace(suite, seeds=tuple(seeds))


def evaluation_of_options(args: argparse.Namespace) -> Evaluation:
    """How the command line says that arms are evaluated."""
    return Evaluation(
        task=args.task,
        max_completion_length=args.max_completion_length,
        temperatures=TEMPERATURES if args.temperatures is None else tuple(args.temperatures),
        limit=args.limit,
        gap=args.gap or bool(args.slips),
        slips=tuple(args.slips or ()),
    )


def read_suite(path: Path) -> Suite:
    """A suite file.

    Raises:
        ConfigError: listing every fault: unknown keys with the nearest known one, wrong types and names.
    """
    faults: list[str] = []
    values = _checked(_extended(path), _SUITE, "", faults)
    for key in ("recipe", "seeds", "arms"):
        if not values.get(key):
            faults.append(f"{key} is missing")
    seeds = tuple(_list(values.get("seeds", [])))
    match = values.get("match", "steps")
    if match not in MATCHES:
        faults.append(f"match is {match!r}: choose one of {', '.join(MATCHES)}")
    has_start = values.get("start") is not None
    found = {START: _arm(START, values["start"], NONE, faults)} if has_start else {}
    for name, entry in values.get("arms", {}).items():
        if name in (START, NONE) or not _NAME.fullmatch(str(name)):
            faults.append(f"arms: {name!r} is no name for an arm: letters, digits, . _ and -, not {START} or {NONE}")
        elif not isinstance(entry, dict):
            faults.append(f"arms: {name} is {entry!r}: it must be a mapping with a method")
        else:
            found[name] = _arm(name, entry, START if has_start else NONE, faults)
    arms = {name: arm for name, arm in found.items() if arm is not None}
    evaluation = _evaluation(values.get("evaluation", {}), faults)
    base = _base(values["base"], faults) if values.get("base") else None
    control = arms.get(methods.CONTROL)
    if control is not None and control.method != methods.CONTROL:
        faults.append(f"arms: {control.name} is the control: its method is {control.name}, not {control.method}")
    faults += _start_faults(arms) + _seed_faults(seeds, "seeds")
    name = values.get("name", path.stem)
    if not _NAME.fullmatch(str(name)):
        faults.append(f"name is {name!r}: letters, digits, . _ and - only, for it names the directory")
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    start = START if has_start else NONE
    overrides = values.get("overrides", {})
    return Suite(name, values["recipe"], seeds, _ordered(arms, start), match, evaluation, overrides, base)


def _extended(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping of a suite file over that of the file it `extends`, which is named from its own folder."""
    values = read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or not (path.parent / parent).is_file():
        raise ConfigError(f"{path}: extends is {parent!r}: name a suite file, as seen from {path.parent}")
    if path.resolve() in above:
        raise ConfigError(f"{path}: extends itself, by way of {above[-1]}")
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


def _checked(values: Mapping[str, Any], hints: Mapping[str, Any], where: str, faults: list[str]) -> dict[str, Any]:
    """The values whose keys are known and whose types are right."""
    good = {}
    for key, value in values.items():
        if key not in hints:
            faults.append(f"{where}unknown key {key!r}{nearest(str(key), hints)}")
        elif fault := type_fault(value, hints[key]):
            faults.append(f"{where}{key} is {value!r}: {fault}")
        else:
            good[key] = value
    return good


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _arm(name: str, entry: dict[str, Any], start: str, faults: list[str]) -> Arm | None:
    where = "" if name == START else "arms: "
    own = _checked({key: value for key, value in entry.items() if key in _ARM}, _ARM, f"{where}{name}: ", faults)
    method = own.get("method")
    if method not in methods.names():
        faults.append(f"{where}{name}: method is {method!r}: choose one of {', '.join(methods.names())}")
        return None
    modes = tuple(_list(own.get("modes", [DIRECT])))
    known = [DIRECT, *methods.answer_modes()]
    faults += [f"{where}{name}: no mode {mode!r}{nearest(mode, known)}" for mode in modes if mode not in known]
    overrides = {key: value for key, value in entry.items() if key not in _ARM}
    return Arm(name, method, overrides, (DIRECT, *(mode for mode in modes if mode != DIRECT)), own.get("start", start))


def _evaluation(entry: dict[str, Any], faults: list[str]) -> Evaluation:
    own = _checked(entry, _EVALUATION, "evaluation: ", faults)
    for key, default in (("temperatures", list(TEMPERATURES)), ("slips", [])):
        own[key] = tuple(map(float, _list(own.get(key, default))))
    own["gap"] = own.get("gap", False) or bool(own["slips"])
    evaluation = Evaluation(**own)
    faults += _evaluation_faults(evaluation, "evaluation: ")
    return evaluation


def _evaluation_faults(evaluation: Evaluation, where: str) -> list[str]:
    graded = [name for name, task in TASKS.items() if task.grader != "none"]
    faults = []
    if evaluation.task is not None and evaluation.task not in graded:
        faults.append(f"{where}task is {evaluation.task!r}: choose one of {', '.join(graded)}")
    if not evaluation.temperatures or any(not value >= 0 for value in evaluation.temperatures):
        faults.append(f"{where}temperatures is {list(evaluation.temperatures)}: give one or more, 0 is greedy")
    if len(set(evaluation.temperatures)) < len(evaluation.temperatures):
        faults.append(f"{where}temperatures has one twice")
    for name, value in (("limit", evaluation.limit), ("max_completion_length", evaluation.max_completion_length)):
        if value is not None and value < 1:
            faults.append(f"{where}{name} is {value}: it must be at least 1")
    if any(not 0 < place < 1 for place in evaluation.slips):
        faults.append(f"{where}slips is {list(evaluation.slips)}: each is a place in the answer, between 0 and 1")
    return faults


def _base(entry: dict[str, Any], faults: list[str]) -> Base | None:
    own = _checked(entry, _BASE, "base: ", faults)
    missing = [key for key in _BASE if not own.get(key)]
    faults += [f"base: {key} is missing" for key in missing]
    return None if missing else Base(tuple(_list(own["commands"])), own["directory"])


def _seed_faults(seeds: Sequence[int], name: str) -> list[str]:
    if len(set(seeds)) < len(seeds):
        return [f"{name} has one twice"]
    return [f"{name} is {list(seeds)}: each must be 0 or larger"] if any(seed < 0 for seed in seeds) else []


def _start_faults(arms: Mapping[str, Arm]) -> list[str]:
    """Arms that start from one that is not there, or in a circle from each other."""
    faults = []
    for arm in arms.values():
        seen = [arm.name]
        while (at := arms[seen[-1]].start) != NONE:
            if at not in arms:
                faults.append(f"arms: {arm.name}: start is {at!r}: there is no such arm{nearest(at, arms)}")
                break
            if at in seen:
                faults.append(f"arms: {arm.name}: starts from itself, by way of {' and '.join(seen)}")
                break
            seen.append(at)
    return faults


def _ordered(arms: Mapping[str, Arm], start: str = NONE) -> dict[str, Arm]:
    """The arms with the control, each behind the one that it starts from; the control as early as it can be."""
    control = methods.CONTROL
    wanted = {control: Arm(control, control, start=start), **arms}
    order: dict[str, Arm] = {}

    def place(arm: Arm) -> None:
        if arm.start != NONE:
            place(wanted[arm.start])
        order[arm.name] = arm

    for name in [*([START] if START in wanted else []), control, *wanted]:
        place(wanted[name])
    return order
