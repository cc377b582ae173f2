"""What the procedural tasks have in common: problems made on the spot, disjoint splits, options, an oracle.

A problem is a pure function of (task, split, seed, index, options). Splits are disjoint by construction: what a
problem *computes*, without names and wording, is hashed, and the hash decides to which split every problem that
computes it belongs: an eighth to the test split, an eighth to validation, the rest to training.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError


SPLITS = ("train", "validation", "test")
Scores = dict[str, float]
MAX_ATTEMPTS = 2000  # a split that holds an eighth of what can be generated is missed so often once in 10^115


@dataclass(frozen=True)
class Problem:
    """A problem with its reference answer."""

    id: str
    prompt: str
    answer: str

    def row(self) -> dict[str, Any]:
        """In TRL's conversational prompt/completion form, with its id."""
        return {
            "id": self.id,
            "prompt": [{"role": "user", "content": self.prompt}],
            "completion": [{"role": "assistant", "content": self.answer}],
        }


def integer_option(default: int | tuple[int, ...], low: int, high: int, about: str) -> Any:
    """An option that is a integer in `low` to `high`, or where the default is a tuple several, taken in turn."""
    return dataclasses.field(default=default, metadata={"range": (low, high), "help": about})


def choice(default: str, choices: Sequence[str], about: str) -> Any:
    """An option that is one of `choices`."""
    return dataclasses.field(default=default, metadata={"choices": tuple(choices), "help": about})


@dataclass(frozen=True)
class Options:
    """Length, difficulty and form of a task's problems; its fields are made by `whole` and `choice`.

    Raises:
        ConfigError: values lie outside their ranges; all errors are listed.
    """

    def __post_init__(self) -> None:
        errors = []
        for field in fields(self):
            value, limits, choices = vars(self)[field.name], field.metadata.get("range"), field.metadata.get("choices")
            values = value if isinstance(value, tuple) else (value,)
            if limits and (not values or any(not limits[0] <= each <= limits[1] for each in values)):
                errors.append(f"{field.name} is {value}: it must lie in {limits[0]} to {limits[1]}")
            if choices and value not in choices:
                errors.append(f"{field.name} is {value!r}: choose one of {', '.join(choices)}")
        if errors:
            raise ConfigError(errors)


@dataclass(frozen=True)
class Procedural:
    """A procedural task.

    options: the class of its options.
    generate: (split, count, seed, options) → its problems.
    score: (prompt, reference, answer) → scores in [0, 1], `correct` among them. The prompt may be empty, or stand
        inside more text.
    measures: those of the scores that evaluation averages, each with the head of its column.
    rouge: whether ROUGE stands beside them.
    """

    name: str
    options: type[Any]
    generate: Callable[[str, int, int, Any], Iterable[Problem]]
    score: Callable[[str, str, str], Scores]
    measures: Mapping[str, str]
    rouge: bool = False

    def problems(self, split: str, *, count: int, seed: int = 0, **options: Any) -> Iterator[Problem]:
        """Yield `count` problems of `split`.

        Raises:
            ConfigError: `split` is unknown, `count` is negative, an option lies outside its range, or the split holds
                next to nothing of what the options can make.
        """
        errors = [] if split in SPLITS else [f"split is {split!r}: choose one of {', '.join(SPLITS)}"]
        errors += [f"count is {count}: it must not be negative"] if count < 0 else []
        try:
            chosen = self.options(**options)
        except ConfigError as error:
            raise ConfigError([*errors, *error.errors]) from error
        if errors:
            raise ConfigError(errors)
        yield from self.generate(split, count, seed, chosen)


def hash_eighth(computation: str) -> int:
    """A number in 0 to 7 that is a hash of what a problem computes."""
    return int.from_bytes(hashlib.sha256(computation.encode()).digest()[:8], "big") >> 61


def procedural_split(computation: str) -> str:
    """The split of every problem that computes this."""
    return {0: "test", 1: "validation"}.get(hash_eighth(computation), "train")


def generator(
    name: str, draw: Callable[[random.Random, Any], tuple[str, str, str]]
) -> Callable[[str, int, int, Any], Iterator[Problem]]:
    """A task's `generate`, from `draw`: one problem as (what is computed, prompt, answer), whatever its split."""

    def generate(split: str, count: int, seed: int, options: Any) -> Iterator[Problem]:
        for index in range(count):
            rng = random.Random(f"{name}/{split}/{seed}/{index}")
            for _ in range(MAX_ATTEMPTS):
                computation, prompt, answer = draw(rng, options)
                if procedural_split(f"{name}/{computation}") == split:
                    break
            else:
                raise ConfigError(f"{name}: {options} leaves the {split} split next to nothing: choose larger values")
            yield Problem(f"{split}-{seed}-{index}", prompt, answer)

    return generate


def add_options(parser: argparse.ArgumentParser, task: Procedural) -> None:
    """Add the task's options to a command line."""
    for field in fields(task.options):
        default = field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        how: dict[str, Any] = {"default": default, "help": f"{field.metadata['help']} (default: {shown})"}
        if "choices" in field.metadata:
            how["choices"] = field.metadata["choices"]
        else:
            how |= {"type": int, "metavar": "N"} | ({"nargs": "+"} if isinstance(default, tuple) else {})
        parser.add_argument(f"--{field.name}", **how)


def chosen_options(task: Procedural, given: argparse.Namespace) -> dict[str, Any]:
    """The task's options as a command line gave them, for `Procedural.problems`."""
    values = {field.name: vars(given)[field.name] for field in fields(task.options)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
