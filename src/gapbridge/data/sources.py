"""From a recipe's data keys to data sets in TRL's standard columns: `messages`, `prompt` and `completion`, or `chosen`
and `rejected`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_type_hints
from uuid import uuid4

from datasets import Dataset, DatasetDict
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset
from trl.scripts.utils import DatasetConfig

from ..errors import ConfigError, DataError, describe, public
from ..files import os_errors_as_run_error
from ..recipe.type_checks import expected_type
from .formats import TEXT_FIELD, as_messages, describe_empty
from .json_files import unreadable_lines
from .local_folders import FILE_BUILDERS, find_listed_files
from .mixture import Mixture, cannot_be_loaded, load_mixture, read_mixture, split_off


logger = logging.getLogger(__name__)
# Of `test_split_size`. TRL splits without a seed. With the run's own, rows that one seed trains on would be held out
# for another, and `gapbridge eval` with the recipe would score a run of another seed on its training rows.
SPLIT_SEED = 42


@dataclass
class DataConfig(DatasetMixtureConfig):
    """TRL's mixture of data sets, or the alignment-handbook's (`dataset_mixture`), with held-out data of its own and a
    mapping of columns.

    `prompt_column` and `completion_column` name the columns that hold question and answer; with `convert_to_chat`
    plain strings become one user and one assistant turn. Without a completion column a `messages` or `conversations`
    column is the conversation, and without any of these `dataset_text_field` names plain text. `system_prompt` goes
    before every conversation that has no system turn of its own. `id_column` names a column of stable ids. Preference
    data keep `chosen` and `rejected`, with or without a `prompt`.
    """

    READ_AS: ClassVar[dict[str, Any]] = {"dataset_mixture": Mixture}

    dataset_mixture: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "The alignment-handbook's mixture: {datasets: [{id, config, split, columns, weight}], seed, "
                  "test_split_size}."},
    )  # fmt: skip
    eval_datasets: list[DatasetConfig] = field(
        default_factory=list, metadata={"help": "List of evaluation data sets, in the form of `datasets`."}
    )
    prompt_column: str = field(default="prompt", metadata={"help": "Name of the column with the prompt."})
    completion_column: str = field(
        default="completion", metadata={"help": "Name of the column with the reference completion."}
    )
    id_column: str = field(
        default="id",
        metadata={"help": "Name of the column with unique example ids; without it the id is a hash of the row."},
    )
    convert_to_chat: bool = field(
        default=False, metadata={"help": "Convert prompt and completion strings to one user and one assistant turn."}
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System message for conversations that have none."}
    )
    max_train_examples: int | None = field(
        default=None, metadata={"help": "Maximum number of training examples; the first ones are used."}
    )
    max_eval_examples: int | None = field(
        default=None, metadata={"help": "Maximum number of evaluation examples; the first ones are used."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.eval_datasets = [
                DatasetConfig(**entry) if isinstance(entry, dict) else entry for entry in self.eval_datasets
            ]
        except TypeError as error:
            got, expected = f"an entry with other keys ({error})", "the keys of `datasets`"
            raise ConfigError("eval_datasets", got, expected, "Correct the keys") from error
        if isinstance(self.dataset_mixture, str):  # of the command line
            with suppress(ValueError):  # errors are reported with all others
                self.dataset_mixture = json.loads(self.dataset_mixture)

    @property
    def splits_off(self) -> Any:
        """How many rows are held out of the training data, or their share; None for none."""
        mixture = self.dataset_mixture
        return self.test_split_size or (mixture.get("test_split_size") if isinstance(mixture, dict) else None)

    @property
    def mixes_chats(self) -> bool:
        """Whether `dataset_mixture` takes conversations by name."""
        if self.dataset_mixture is None:
            return False
        return any("messages" in (part.columns or ()) for part in read_mixture(self.dataset_mixture).datasets)

    def sources(self) -> list[str]:
        """The paths or hub ids of the training data, as far as they are here rather than in `dataset_name`."""
        mixed = [] if self.dataset_mixture is None else read_mixture(self.dataset_mixture).datasets
        return [*(entry.path for entry in self.datasets), *(part.id for part in mixed)]


@dataclass(frozen=True)
class LoadedData:
    """The data of a run; `source` and `eval_source` say where they come from, for messages."""

    train: Dataset
    eval: Dataset | None
    source: str
    eval_source: str


def check_data_config(config: DataConfig, script: ScriptArguments) -> list[str]:
    """Every error of the data keys that shows without loading anything; local files must exist."""
    given = {
        "`datasets`": config.datasets,
        "`dataset_mixture`": config.dataset_mixture is not None,
        "`dataset_name`": script.dataset_name,
    }
    forms = [name for name, value in given.items() if value]
    advice = "Add `datasets:` (a list of path, name, data_files, split, …) or `dataset_name:`"
    mixes = config.dataset_mixture is not None
    cases = (
        (not forms, "datasets", "no data", "a data set", advice),
        (len(forms) > 1, "data", " and ".join(forms), "one of them", "Keep one of the keys"),
        (config.streaming or script.dataset_streaming, "streaming", "true",
         "false, since contexts need rows with fixed ids", "Remove the key"),
        (mixes and config.test_split_size, "test_split_size", "a value beside dataset_mixture",
         "the key inside the mixture", "Move it into dataset_mixture"),
        (config.eval_datasets and config.splits_off, "test_split_size", "a value beside `eval_datasets`",
         "one source of held-out data", "Keep one of the keys"),
    )  # fmt: skip
    errors = [describe(key, got, wanted, advice) for holds, key, got, wanted, advice in cases if holds]
    for name in ("max_train_examples", "max_eval_examples"):
        if (value := vars(config)[name]) is not None and value < 1:
            errors.append(describe(name, value, "at least 1", "Correct or remove the key"))
    if mixes:
        try:
            read_mixture(config.dataset_mixture)
        except ConfigError as error:
            errors += error.errors
    for entry in [*config.datasets, *config.eval_datasets]:
        wrong = [
            describe(f"datasets, {name}", repr(value), wanted, "Correct the value")
            for name, value in vars(entry).items()
            if (wanted := expected_type(value, _ENTRY_TYPES[name]))
        ]
        errors += wrong
        if wrong:
            continue
        for name in _file_names(entry):
            if "://" not in name and not any(mark in name for mark in "*?[") and entry.path in FILE_BUILDERS:
                if not Path(name).is_file():
                    got = f"no such file (looked from {Path.cwd()})"
                    errors.append(describe(f"data file {name}", got, "a file", "Correct the path"))
                elif not Path(name).stat().st_size:
                    errors.append(describe(f"data file {name}", "an empty file", "rows", "Check how it was made"))
        if entry.data_dir is not None and entry.path in FILE_BUILDERS and not Path(entry.data_dir).is_dir():
            got = f"no such directory (looked from {Path.cwd()})"
            errors.append(describe(f"data_dir {entry.data_dir}", got, "a directory", "Correct the path"))
    return errors


_ENTRY_TYPES = get_type_hints(DatasetConfig)


def find_data(config: DataConfig, script: ScriptArguments, *, needs_eval: bool) -> LoadedData:
    """Training and held-out data as they are loaded, in columns of their own.

    Raises:
        ConfigError: the data keys contradict each other or name missing files. DataError: a data set is empty, or
        cannot be loaded.
    """
    errors = check_data_config(config, script)
    if errors:
        raise ConfigError(errors)
    held_out = config.eval_datasets
    if script.dataset_name and needs_eval:
        held_out = [DatasetConfig(script.dataset_name, script.dataset_config, split=script.dataset_test_split)]
    evaluation, eval_source = None, ""
    if config.dataset_mixture is not None:
        mixture = read_mixture(config.dataset_mixture)
        (train, evaluation), source = load_mixture(mixture), str(mixture)
        eval_source = f"{source} (test part)"
    else:
        entries = config.datasets or [
            DatasetConfig(path=script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
        ]
        train, source = _load(entries), _describe(entries)
    if held_out and needs_eval:
        evaluation, eval_source = _load(held_out), _describe(held_out)
    elif config.test_split_size:
        size = config.test_split_size
        train, evaluation = split_off(train, int(size) if size >= 1 else size, SPLIT_SEED, source)
        eval_source = f"{source} (test part)"
    if needs_eval and evaluation is None:
        got, expected = "evaluation without held-out data", "`eval_datasets` or `test_split_size`"
        raise ConfigError("eval_strategy", got, expected, "Add one of them, or set eval_strategy: 'no'")
    if config.max_train_examples is not None:
        train = train.select(range(min(config.max_train_examples, len(train))))
    if evaluation is not None and config.max_eval_examples is not None:
        evaluation = evaluation.select(range(min(config.max_eval_examples, len(evaluation))))
    return LoadedData(train, evaluation, source, eval_source)


def _load(entries: list[DatasetConfig]) -> Dataset:
    names = [name for entry in entries if entry.path == "json" for name in _file_names(entry)]
    if errors := unreadable_lines(names):
        raise DataError(errors)
    with cannot_be_loaded(_describe(entries)):
        parts = []
        for entry in entries:  # with the files that the card of a local folder lists, where it lists any
            listed = None if entry.data_files or entry.data_dir else find_listed_files(entry.path, entry.name)
            parts.append(replace(entry, path=listed[0], name=None, data_files=listed[1]) if listed else entry)
        loaded: DatasetDict = get_dataset(DatasetMixtureConfig(datasets=parts))
    dataset = loaded["train"]
    if not len(dataset):
        raise DataError(describe_empty(_describe(entries)))
    return dataset


def _file_names(entry: DatasetConfig) -> list[str]:
    files = entry.data_files
    return [files] if isinstance(files, str) else list(files.values()) if isinstance(files, dict) else files or []


def _describe(entries: list[DatasetConfig]) -> str:
    """Where data come from, for messages, records and model cards: without what a URL holds of secrets."""
    parts = []
    for entry in entries:
        files = entry.data_files or entry.data_dir
        parts.append(f"{files if files else entry.path}{f' ({entry.name})' if entry.name else ''} [{entry.split}]")
    return public(", ".join(parts))


def standard_columns(
    dataset: Dataset, config: DataConfig, source: str, scratch: Path | None = None, text_field: str = TEXT_FIELD
) -> Dataset:
    """A data set in TRL's columns.

    Args:
        scratch: a directory for what is written again; None keeps it in memory.
        text_field: the column of plain text.
    """
    columns = dataset.column_names
    if "input_ids" in columns:
        if config.system_prompt:
            got = "a system prompt for rows of token ids"
            raise ConfigError("system_prompt", got, f"text in {source}", "Remove the key")
        return _named(dataset, {config.id_column: "id"})
    if {"chosen", "rejected"} <= set(columns) and config.completion_column not in columns:
        return _preference_columns(dataset, config, source, scratch)
    if "messages" in columns and config.completion_column not in columns:
        # UltraChat's `prompt` repeats the first user turn.
        dataset = dataset.remove_columns([name for name in (config.prompt_column, "completion") if name in columns])
        return _with_system_turn(_named(dataset, {config.id_column: "id"}), "messages", config, source, scratch)
    wanted = (config.prompt_column, config.completion_column)
    if "conversations" in columns and config.completion_column not in columns:
        dataset = _named(
            dataset.remove_columns([name for name in wanted if name in columns]), {config.id_column: "id"}
        )
        if not config.system_prompt:
            return dataset

        dataset = _mapped(
            dataset, lambda row: {"messages": as_messages(row["conversations"])}, "As messages", source, scratch
        ).remove_columns("conversations")
        return _with_system_turn(dataset, "messages", config, source, scratch)
    if text_field in columns and not set(wanted) & set(columns):
        errors = [
            describe(
                f"{source}, column {text_field}",
                "plain text",
                f"prompts and answers for {key}",
                f"Remove {key}, or name the columns with prompt_column and completion_column",
            )
            for key, value in (("convert_to_chat", config.convert_to_chat), ("system_prompt", config.system_prompt))
            if value
        ]
        if errors:
            raise ConfigError(errors)
        return _named(dataset, {config.id_column: "id"})
    missing = [name for name in wanted if name not in columns]
    if missing:
        got = f"no column {' and no column '.join(map(repr, missing))}, but {', '.join(map(repr, columns))}"
        advice = "Name the columns with prompt_column and completion_column, or with dataset_text_field"
        raise DataError(source, got, "prompts and completions, or plain text", advice)
    mapping = {config.prompt_column: "prompt", config.completion_column: "completion", config.id_column: "id"}
    dataset = _named(dataset, mapping)
    if config.convert_to_chat:
        dataset = _as_chat(dataset, ("completion",), source, scratch)
    return _with_system_turn(dataset, "prompt", config, source, scratch)


def _preference_columns(dataset: Dataset, config: DataConfig, source: str, scratch: Path | None) -> Dataset:
    """`chosen` and `rejected`, with a `prompt` or with the prompt inside them, and `messages` where there are."""
    dataset = _named(dataset, {config.prompt_column: "prompt", config.id_column: "id"})
    text = isinstance(dataset[0]["chosen"], str)
    if text and config.convert_to_chat:
        if "prompt" not in dataset.column_names:
            got, expected = "no column of prompts beside chosen and rejected", "one for convert_to_chat"
            raise ConfigError(source, got, expected, "Name it with prompt_column, or give conversations")
        dataset = _as_chat(dataset, ("chosen", "rejected"), source, scratch)
    if not text and "prompt" in dataset.column_names and isinstance(dataset[0]["prompt"], str):
        dataset = dataset.remove_columns("prompt")  # UltraFeedback's repeats the first user turn
    if config.system_prompt:
        explicit = "prompt" in dataset.column_names
        columns = ["prompt"] if explicit else ["chosen", "rejected"]
        for column in [*columns, *(["messages"] if "messages" in dataset.column_names else [])]:
            dataset = _with_system_turn(dataset, column, config, source, scratch)
    return dataset


def _as_chat(dataset: Dataset, answers: tuple[str, ...], source: str, scratch: Path | None) -> Dataset:
    """Texts as one user turn, and one assistant turn in each column of `answers`."""

    def chat(row: dict[str, Any]) -> dict[str, Any]:
        turns = {name: [{"role": "assistant", "content": row[name]}] for name in answers}
        return {"prompt": [{"role": "user", "content": row["prompt"]}], **turns}

    return _mapped(dataset, chat, "As chat", source, scratch)


def _with_system_turn(dataset: Dataset, column: str, config: DataConfig, source: str, scratch: Path | None) -> Dataset:
    """`system_prompt` put before the conversations that have no system turn of their own."""
    if not config.system_prompt:
        return dataset
    if isinstance(dataset[0][column], str):
        got = f"a system prompt for the plain text of {source}"
        raise ConfigError("system_prompt", got, "conversations", "Set convert_to_chat: true")
    turn = {"role": "system", "content": config.system_prompt}
    own = 0

    def put(row: dict[str, Any]) -> dict[str, Any]:
        nonlocal own
        turns = row[column]
        if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
            return {column: turns}  # reported with its row when it becomes an example
        has_one = turns[0].get("role") == "system"
        own += has_one
        return {column: turns if has_one else [turn, *turns]}

    dataset = _mapped(dataset, put, "System turn", source, scratch)
    if own:
        logger.warning("%s: %d of %d rows keep their system turn", source, own, len(dataset))
    return dataset


def _mapped(
    dataset: Dataset,
    function: Callable[[dict[str, Any]], dict[str, Any]],
    what: str,
    source: str,
    scratch: Path | None,
) -> Dataset:
    if scratch is None:
        with cannot_be_loaded(source):  # values that have no common type
            return dataset.map(function, desc=what, load_from_cache_file=False, keep_in_memory=True)
    path = scratch / f"{uuid4().hex}.arrow"
    with os_errors_as_run_error(path), cannot_be_loaded(source):
        return dataset.map(function, desc=what, load_from_cache_file=False, cache_file_name=str(path))


def _named(dataset: Dataset, mapping: dict[str, str]) -> Dataset:
    """Select and rename: `mapping` is {column: standard name}; other columns that TRL reads are kept."""
    wanted = [old for old, new in mapping.items() if old in dataset.column_names]
    clashing = [new for old, new in mapping.items() if old in wanted and old != new and new in dataset.column_names]
    dataset = dataset.remove_columns([name for name in clashing if name not in wanted])
    return dataset.rename_columns({old: mapping[old] for old in wanted if mapping[old] != old})
