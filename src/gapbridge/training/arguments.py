"""What a trainer's constructor is given, in the forms that the rest of this package takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import quote, unquote

from datasets import Dataset, IterableDataset
from transformers import TrainingArguments
from trl import DPOConfig, SFTConfig

from ..data.example import ExampleSet
from ..errors import ConfigError, DataError, as_config_error, describe


# The parts of a trainer's data. Of several held-out data sets each is `eval.NAME`, which can stand in a file's name.
TRAIN, EVAL, EVAL_GENERATED = "train", "eval", "eval_generated"

_BY_INDEX = "; precompute_ref_log_probs is not supported with IterableDataset"
_WANTED = "a datasets.Dataset or an ExampleSet"


def by_name(parts: Mapping[str, Any], kind: str = EVAL) -> Any:
    """What the held-out parts have, as TRL takes it: the value of the only one, a dict of several, or None."""
    found = {}
    for part, value in parts.items():
        part_kind, dot, name = part.partition(".")
        if part_kind == kind:
            found[unquote(name) if dot else None] = value
    return found[None] if None in found else found or None


def named_arguments(order: Sequence[str], positional: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Positional arguments by the names of their places, with those that are `given` by name.

    Raises:
        ConfigError: too many, or one of them twice.
    """
    if len(positional) > len(order):
        raise ConfigError("arguments", f"{len(positional)} by position", f"at most {len(order)}", "Name the others")
    found = dict(zip(order, positional, strict=False))
    if twice := found.keys() & given.keys():
        raise ConfigError(
            f"arguments, {', '.join(sorted(twice))}", "a value by position and by name", "one value", "Keep one"
        )
    return {**found, **given}


def own_configuration(kind: type[Any], args: Any, trainer: str) -> Any:
    """Of plain `TrainingArguments` the configuration `kind` with the same values, as TRL makes it.

    Raises:
        ConfigError: it is another configuration.
    """
    if not isinstance(args, TrainingArguments) or isinstance(args, (SFTConfig, DPOConfig)):
        expected = f"a {kind.__name__} for {trainer}, which takes all keys of TRL's configuration"
        raise ConfigError("args", f"a {type(args).__name__}", expected, f"Construct {kind.__name__} instead")
    known = {entry.name for entry in fields(kind) if entry.init}
    values = {
        # Tokens are masked in what `to_dict` gives.
        key: vars(args).get(key) if key.endswith("_token") else value
        for key, value in args.to_dict().items()
    }
    foreign = [key for key in values if key not in known]
    if foreign:
        raise ConfigError(
            [
                describe(
                    f"args, {key}", f"a key of {type(args).__name__}", f"a key of {kind.__name__}", "Remove the key"
                )
                for key in foreign
            ]
        )
    with as_config_error():
        return kind(**{key: value for key, value in values.items() if value is not None or not key.endswith("_token")})


def given_data(
    train_dataset: Any, eval_dataset: Any, *, by_index: bool
) -> dict[str, tuple[str, Dataset | ExampleSet]]:
    """The data sets by part, each with what messages call it.

    An evaluation reads all of a stream anyway, so that one among the held-out data sets is read into memory here.

    Args:
        by_index: whether something is kept for each row by its number, so that streams are refused, as in TRL.

    Raises:
        DataError: listing every one that is no data set.
    """
    errors = []
    if not isinstance(train_dataset, (Dataset, ExampleSet)):
        got = f"{type(train_dataset).__name__}{_BY_INDEX * by_index}"
        errors.append(describe("train_dataset", got, _WANTED, "Load one split, without streaming"))
    several = isinstance(eval_dataset, dict)
    held_out: dict[Any, Any] = eval_dataset if several else {} if eval_dataset is None else {None: eval_dataset}
    for name in held_out:
        if several and not isinstance(name, str):
            errors.append(describe(f"eval_dataset, {name!r}", "a key that is no text", "a name", "Rename the key"))
        elif several and f"{name}_generated" in held_out:
            got = f"the name of the metrics of {name} on generated contexts"
            errors.append(describe(f"eval_dataset, {name}_generated", got, "another name", "Rename the data set"))
    parts: dict[str, tuple[str, Dataset | ExampleSet]] = {TRAIN: ("train_dataset", train_dataset)}
    for name, value in held_out.items():
        part = EVAL if name is None else f"{EVAL}.{quote(str(name), safe='').replace('-', '%2D')}"
        source = source_label(name)
        try:
            parts[part] = source, as_data_set(value, source, by_index=by_index)
        except DataError as error:
            errors += error.errors
    if errors:
        raise DataError(errors)
    return parts


def source_label(name: str | None) -> str:
    """What messages call a held-out data set."""
    return "eval_dataset" if name is None else f"eval_dataset[{name!r}]"


def as_data_set(value: Any, source: str, *, by_index: bool) -> Dataset | ExampleSet:
    """A held-out data set, of a stream all its rows.

    Raises:
        DataError: it is none, or a stream where rows have numbers.
    """
    if isinstance(value, IterableDataset) and by_index:
        raise DataError(source, f"a stream{_BY_INDEX}", _WANTED, "Load it without streaming")
    if isinstance(value, IterableDataset):
        return Dataset.from_list(list(value.with_format(None)), features=value.features)
    if not isinstance(value, (Dataset, ExampleSet)):
        advice = "Load the rows with datasets.load_dataset, or make them with Dataset.from_list"
        raise DataError(source, f"a {type(value).__name__}", f"{_WANTED}, or a dict of them", advice)
    return value
