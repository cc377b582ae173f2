"""The alignment-handbook's `dataset_mixture`: the same rows in the same order, and the same rows held out.

Each data set is shuffled and cut to `int(rows · weight)`, all are put one after the other and shuffled, and the
held-out rows are split off, with one seed throughout (`get_dataset` of alignment-handbook 0.4.0.dev0). TRL's
`datasets`, whose shares are of the mixture and which are not shuffled, stay TRL's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from ..errors import ConfigError, DataError, describe, public
from ..recipe.type_checks import known_values
from .local_folders import find_listed_files


logger = logging.getLogger(__name__)

_NAMED = 2  # data sets that a message names one by one


@dataclass(frozen=True)
class MixturePart:
    """One data set of a mixture, by the handbook's keys.

    id: a hub id, a directory, or a builder of `datasets`. weight: the share of its rows that is taken, sampled at
        random; null takes all of them in their order, before the mixture is shuffled.
    """

    id: str
    config: str | None = None
    split: str = "train"
    columns: list[str] | None = None
    weight: float | None = 1.0


@dataclass(frozen=True)
class Mixture:
    """A `dataset_mixture`, and the types by which its YAML is read: `config: no` is Norwegian.

    test_split_size: held-out rows, a number of them or a share of the mixture.
    """

    datasets: list[MixturePart]
    seed: int = 0
    test_split_size: float | None = None

    def __str__(self) -> str:
        if len(self.datasets) > _NAMED:
            return f"dataset_mixture ({len(self.datasets)} data sets)"
        return f"dataset_mixture ({', '.join(map(_described, self.datasets))})"


def read_mixture(value: Any) -> Mixture:
    """The mixture that a recipe's `dataset_mixture` describes.

    Raises:
        ConfigError: with every error of it.
    """
    if not isinstance(value, Mapping):
        expected = "a mapping with a list of `datasets`"
        raise ConfigError("dataset_mixture", repr(value), expected, "Correct the value")
    entries = value.get("datasets")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("dataset_mixture, datasets", repr(entries), "a list of mappings", "List the data sets")
    errors: list[str] = []
    known_values(value, Mixture, "dataset_mixture, ", errors)
    for at, entry in enumerate(entries):
        where = f"dataset_mixture, data set {at + 1} ({entry.get('id')})"
        wrong: list[str] = []
        known_values(entry, MixturePart, f"{where}, ", wrong)
        weight = entry.get("weight")
        if not wrong and weight is not None and not 0 <= float(weight) <= 1:
            wrong.append(describe(f"{where}, weight", weight, "a number from 0 to 1", "Correct the weight"))
        errors += wrong
    columns = {tuple(sorted(entry["columns"])) for entry in entries if _is_columns(entry.get("columns"))}
    if len(columns) > 1:
        listed = ", ".join(f"[{', '.join(names)}]" for names in sorted(columns))
        got, advice = f"data sets with different columns, {listed}", "Name the same columns in every entry"
        errors.append(describe("dataset_mixture, columns", got, "the same columns", advice))
    if errors:
        raise ConfigError(errors)
    parts = [MixturePart(**{**entry, "weight": _number(entry.get("weight", 1.0))}) for entry in entries]
    rest = {name: _number(given) for name, given in value.items() if name != "datasets"}
    return Mixture(parts, **rest)


def load_mixture(mixture: Mixture) -> tuple[Dataset, Dataset | None]:
    """The rows to train in their order, and the held-out ones.

    Raises:
        DataError: a data set cannot be loaded, lacks a column, does not go with the others, or nothing is left.
        ConfigError: there are too few rows for `test_split_size`.
    """
    parts = [_take(part, mixture.seed) for part in mixture.datasets]
    with cannot_be_loaded(str(mixture)):
        combined = concatenate_datasets(parts).shuffle(seed=mixture.seed, keep_in_memory=True)
    if not len(combined):
        raise DataError(mixture, "no row", "at least one", "Raise the weights, or add rows")
    if mixture.test_split_size is None:
        return combined, None
    return split_off(combined, mixture.test_split_size, mixture.seed, str(mixture))


def split_off(dataset: Dataset, size: float, seed: int, source: str) -> tuple[Dataset, Dataset]:
    """The rows to train, and `size` held-out ones sampled at random: a number of them (int) or a share (float).

    Raises:
        ConfigError: there are too few rows.
    """
    try:
        parts = dataset.train_test_split(test_size=size, seed=seed)
    except ValueError as error:
        expected, advice = f"less than the {len(dataset)} rows of {source}", "Give a smaller integer, or a fraction"
        raise ConfigError("test_split_size", size, expected, advice) from error
    return parts["train"], parts["test"]


@contextmanager
def cannot_be_loaded(source: str) -> Iterator[None]:
    """What `datasets` refuses inside becomes a DataError that names `source`."""
    try:
        yield
    except (DatasetsError, ConnectionError, ValueError, TypeError, OSError, StopIteration, RuntimeError) as error:
        reason = str(error.__cause__ or error) or "no row"  # the cause says more than "an error occurred"
        got = f"data that cannot be loaded ({reason})"
        raise DataError(source, got, "a data set", "Check the name, the split and the files") from error


def _take(part: MixturePart, seed: int) -> Dataset:
    with cannot_be_loaded(_described(part)):
        found = find_listed_files(part.id, part.config)
        if found is None:
            dataset = load_dataset(part.id, part.config, split=part.split)
        else:
            dataset = load_dataset(found[0], data_files=found[1], split=part.split)
        if part.columns is not None:
            dataset = dataset.select_columns(part.columns)
        if part.weight is None:
            return dataset
        count = int(len(dataset) * part.weight)
        if not count:
            logger.warning("%s: weight %s selects none of %d rows", _described(part), part.weight, len(dataset))
        return dataset.shuffle(seed=seed, keep_in_memory=True).select(range(count))


def _described(part: MixturePart) -> str:
    return public(f"{part.id}{f' ({part.config})' if part.config else ''} [{part.split}]")


def _is_columns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _number(value: Any) -> Any:
    """A number that YAML reads as text (1e-3), as the number."""
    if not isinstance(value, str):
        return value
    return int(value) if value.strip().lstrip("+-").isdigit() else float(value)
