"""The alignment-handbook's `dataset_mixture`: the same rows in the same order, and the same rows held out.

Each data set is shuffled and cut to `int(rows · weight)`, all are put one after the other and shuffled, and the
held-out rows are split off, with one seed throughout (`get_dataset` of alignment-handbook 0.4.0.dev0). TRL's
`datasets`, whose shares are of the mixture and which are not shuffled, stay TRL's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from datasets import Dataset, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError
from pydantic import AfterValidator, Field, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from ..errors import ConfigError, DataError, public
from ..recipe.validation import CHECKED, IntegerOrNumber, Number, validate, wrong_value
from .local_folders import find_listed_files


logger = logging.getLogger(__name__)

_NAMED = 2  # data sets that a message names one by one


@dataclass(frozen=True, config=CHECKED)
class MixturePart:
    """One data set of a mixture, by the handbook's keys.

    id: a hub id, a directory, or a builder of `datasets`. weight: the share of its rows that is taken, sampled at
        random; null takes all of them in their order, before the mixture is shuffled.
    """

    id: StrictStr
    config: StrictStr | None = None
    split: StrictStr = "train"
    columns: list[StrictStr] | None = None
    weight: Number | None = Field(default=1.0, ge=0, le=1, description="a number from 0 to 1")


def _check_columns(parts: list[MixturePart]) -> list[MixturePart]:
    columns = {tuple(sorted(part.columns)) for part in parts if part.columns is not None}
    if len(columns) > 1:
        listed = ", ".join(f"[{', '.join(names)}]" for names in sorted(columns))
        raise wrong_value(f"data sets with different columns, {listed}", "the same columns in every entry")
    return parts


@dataclass(frozen=True, config=CHECKED)
class Mixture:
    """A `dataset_mixture`, and the types by which its YAML is read: `config: no` is Norwegian.

    test_split_size: held-out rows, a number of them or a share of the mixture.
    """

    datasets: Annotated[
        list[MixturePart], Field(min_length=1, description="a list of mappings"), AfterValidator(_check_columns)
    ]
    seed: StrictInt = 0
    test_split_size: IntegerOrNumber | None = None

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
    return validate(Mixture, value, "dataset_mixture, ")


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
