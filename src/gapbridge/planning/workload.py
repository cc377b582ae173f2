"""What a recipe has to do: rows, optimizer steps and tokens of each round, without a hub and without a model.

Data that are here become examples, as in a run, and are counted exactly. Of data on a hub the published numbers of
rows are taken, each row as long as `max_length` or as it is said to be.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..compare.cost_profile import count_sequences
from ..data.arrow_files import ROWS_PER_CHUNK
from ..data.example import Example, ExampleSet
from ..data.mixture import read_mixture
from ..errors import ConfigError, StoreError
from ..runs.load_inputs import load_examples
from ..runs.rounds import number_of_rounds, round_arguments
from ..runs.run_config import RunConfig, read_job
from ..runs.validate import is_local
from ..training.completion_config import CompletionArgs
from ..training.loading import load_meta_model, load_tokenizer, prepare_tokenizer
from ..training.packing import is_packed, packed_lengths
from .hub_metadata import DATA
from .smoke_test import BaseModelInfo, find_base_model, tiny_recipe


_Source = tuple[ExampleSet, PreTrainedTokenizerBase]
_PROBED = 4000  # examples that stand for more, or for data that are not here
_LONGEST = 64  # rows that are looked at besides, for the memory that they take


@dataclass(frozen=True)
class Round:
    """rows: that are trained on, packed ones with packing. steps: of the optimizer. tokens: that go through the model
    in training, of all sequences and epochs. generated: tokens that are fed to generate contexts, prompts and answers
    together."""

    rows: int
    steps: int
    tokens: float
    generated: float


@dataclass(frozen=True)
class Workload:
    """examples: of the training data. rounds: what each does. sequences: how many a row is in a step. longest,
    longest_prompt: tokens of the longest sequence, and of the longest prompt that is answered, at most. exact: whether
    the data were counted here. packed: tokens of the packed rows, the longest first; empty without packing. sampled:
    of how many examples the counts are, where not of all."""

    examples: int
    rounds: list[Round]
    sequences: int
    longest: int
    longest_prompt: int
    exact: bool
    packed: tuple[int, ...] = ()
    sampled: int | None = None

    def packed_tokens(self, rows: int) -> int:
        """Tokens of the largest batch of so many packed rows, which a step sees as one row."""
        return sum(self.packed[:rows])


def workload(job: RunConfig, gpus: int, *, rows: int | None = None, row_tokens: float | None = None) -> Workload:
    """Count what a recipe does on `gpus` processes.

    Args:
        rows: of the training data, where nothing here knows how many they are.
        row_tokens: mean tokens of a sequence, where the data are not here; default: `max_length`.

    Raises:
        ConfigError: nothing knows how many rows a data set has, or `max_length` is not set where it must stand for the
        rows. DataError: the data that are here cannot be used.
    """
    origin = find_base_model(str(job.model.model_name_or_path), job.recipe.path)
    if Path(origin.name).is_dir() and all(
        map(is_local, [*job.data.sources(), *filter(None, [job.script.dataset_name])])
    ):
        return _counted_here(job, gpus, origin)
    length = job.args.max_length
    if length is None:
        got, expected = "no value, with rows that are not on this machine", "a limit on the length of rows"
        raise ConfigError(f"{job.recipe.path}, max_length", got, expected, "Set max_length")
    count = rows if rows is not None else published_rows(job)
    with tempfile.TemporaryDirectory() as folder:
        small, _ = tiny_recipe(str(job.recipe.path), [], job.name, Path(folder))
        stood_in = read_job(["--config", str(small)])
        source, tokenizer = _examples(stood_in, BaseModelInfo(str(stood_in.model.model_name_or_path)), max_length=None)
    first = source.part(0, 1)[0]
    made = [replace(first, id=str(at)) for at in range(min(count, _PROBED))]
    return _counted(job, gpus, (source, tokenizer), made, count, row_tokens or float(length))


def _counted_here(job: RunConfig, gpus: int, origin: BaseModelInfo) -> Workload:
    """Count all rows, or so many of them that the rest are like them; then also those with the longest text."""
    rows: list[int] = []

    def spread(dataset: Dataset) -> Sequence[int]:
        rows.append(len(dataset))
        return np.linspace(0, len(dataset) - 1, min(_PROBED, len(dataset)), dtype=int).tolist()

    source, tokenizer = _examples(job, origin, choose=spread)
    made = source.part(0, len(source))
    if rows[0] <= _PROBED:
        return _counted(job, gpus, (source, tokenizer), made, len(source), None)
    longest, _ = _examples(job, origin, choose=_longest_rows)
    count = round(len(source) / _PROBED * rows[0])
    found = _counted(job, gpus, (source, tokenizer), made, count, None, longest=longest.part(0, len(longest)))
    return replace(found, sampled=len(made))


def _longest_rows(dataset: Dataset) -> list[int]:
    """The rows with the most text."""
    sizes = [
        len(json.dumps(row, default=str, ensure_ascii=False))
        for part in dataset.with_format("arrow").iter(ROWS_PER_CHUNK)
        for row in part.to_pylist()
    ]
    return sorted(np.argsort(sizes)[-_LONGEST:].tolist())


def _examples(
    job: RunConfig, origin: BaseModelInfo, choose: Callable[[Dataset], Sequence[int]] | None = None, **changes: Any
) -> tuple[ExampleSet, PreTrainedTokenizerBase]:
    """The training examples of a job whose data and first model are here, and the tokenizer, which the method has
    prepared.

    Args:
        choose: which rows are read.
        changes: of the job's keys.
    """
    place = Path(origin.name)
    own = {name: value for name, value in origin.template.items() if name not in job.recipe.settings}
    quiet = replace(job, args=replace(job.args, **own, **changes))
    quiet.skip_evaluation()
    tokenizer = load_tokenizer(place, quiet.args)
    prepare_tokenizer(None, tokenizer, quiet.args, uses_peft=job.model.use_peft)
    job.method.setup_model(None, tokenizer, quiet.args)
    return load_examples(quiet, tokenizer, load_meta_model(place, job.args), choose=choose)["train"], tokenizer


def _counted(
    job: RunConfig,
    gpus: int,
    source: _Source,
    made: Sequence[Example],
    count: int,
    row_tokens: float | None,
    longest: Sequence[Example] = (),
) -> Workload:
    """Count the rows that the method makes of `made`, which stand for `count` examples.

    Args:
        longest: further examples, none of the others is longer.
    """
    found: list[Round] = []
    widest, sequences = 0, 1
    packed: list[int] = []
    for index in range(1, number_of_rounds(job.args) + 1):
        args = round_arguments(job.args, index)
        if row_tokens is not None:
            args.max_length = None  # what stands for the rows has another length
        rows = _rows(job, source, made, args)
        lengths = [[len(tokens) for tokens in count_sequences(job, row)] for row in rows]
        sequences = max(sequences, *map(len, lengths))
        long_rows = _rows(job, source, longest, args) if longest else []
        more = [len(tokens) for row in long_rows for tokens in count_sequences(job, row)]
        widest = max([widest, *more, *(max(pair) for pair in lengths)])
        number = round(len(rows) / len(made) * count)
        mean = sum(map(sum, lengths)) / len(rows) if row_tokens is None else sequences * row_tokens
        row = mean / sequences
        if is_packed(args):
            packs = _packs(job, [sum(pair) for pair in lengths], number, row_tokens)
            number = round(len(packs) / len(rows) * number) if row_tokens is None else len(packs)
            mean = sum(packs) / len(packs)
            packed = max(packed, sorted(packs, reverse=True), key=lambda lengths: sum(lengths[:_PROBED]))
        steps = count_steps(args, number, gpus)
        seen = min(float(steps * rows_per_step(args, gpus)), args.num_train_epochs * number)
        if args.max_steps > 0:
            seen = float(steps * rows_per_step(args, gpus))
        prompt = row_tokens or sum(len(example.generation_prompt_ids) for example in made) / len(made)
        found.append(Round(number, steps, seen * mean, _generated_tokens(job, args, count, prompt, row)))
    longest_prompt = max(len(example.generation_prompt_ids) for example in [*made, *longest])
    if row_tokens is not None:
        widest = longest_prompt = int(job.args.max_length)
    elif isinstance(job.args, CompletionArgs):  # completions may be longer than the references that stand for them
        widest = min(
            job.args.max_length or widest + job.args.max_completion_length, widest + job.args.max_completion_length
        )
    return Workload(count, found, sequences, widest, longest_prompt, row_tokens is None, tuple(packed))


def _packs(job: RunConfig, lengths: list[int], number: int, row_tokens: float | None) -> list[int]:
    """Tokens of each packed row; of data that are not here all are full."""
    if row_tokens is None:
        return packed_lengths(lengths, job.args)
    return [int(job.args.max_length)] * math.ceil(number * row_tokens / job.args.max_length)


def _rows(job: RunConfig, source: _Source, made: Sequence[Example], args: Any) -> list[Any]:
    """The rows of examples whose completions are as long as their references."""
    pairs = [(example, _completion_length(example)) for example in made]
    try:
        return [row for rows, _ in job.method.build_rows(pairs, *source, args) for row in rows]
    except StoreError:  # the completions of the round before are trained along, and there are none yet
        first = round_arguments(job.args, 1)
        first.max_length = args.max_length
        return _rows(job, source, made, first) * 2


def _completion_length(example: Example) -> dict[str, Any]:
    """What any method's store could hold for an example: other tokens than the reference's, and as many."""
    *words, end = example.completion_ids
    return {"tokens": [*reversed(words), end], "finished": True, "sampled": [False] * len(example.completion_ids)}


def _generated_tokens(job: RunConfig, args: Any, count: int, prompt: float, row: float) -> float:
    if not job.method.generates_contexts:
        return 0.0
    return count * (prompt + args.max_completion_length if isinstance(args, CompletionArgs) else row)


def rows_per_step(args: Any, gpus: int) -> int:
    return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * gpus)


def count_steps(args: Any, rows: int, gpus: int) -> int:
    """Optimizer steps of a round, as transformers counts them: each process gets whole batches, and the last step of
    an epoch may have fewer."""
    if args.max_steps > 0:
        return int(args.max_steps)
    batches = rows / args.per_device_train_batch_size
    full = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    each = full // gpus if args.dataloader_drop_last else math.ceil(full / gpus)
    an_epoch = max(1, math.ceil(each / args.gradient_accumulation_steps))
    return math.ceil(args.num_train_epochs * an_epoch)


def published_rows(job: RunConfig) -> int:
    """The training rows of a recipe whose data are on a hub, from the numbers that are published.

    Raises:
        ConfigError: nothing here knows a data set.
    """
    data = job.data
    if data.dataset_mixture is not None:
        mixture = read_mixture(data.dataset_mixture)
        asked = [(part.id, part.config, part.split, part.weight) for part in mixture.datasets]
    else:
        asked = [(entry.path, entry.name, entry.split, None) for entry in data.datasets]
    if job.script.dataset_name:
        asked = [(job.script.dataset_name, job.script.dataset_config, job.script.dataset_train_split, None)]
    unknown = [name for name, config, split, _ in asked if _size(name, config, split) is None]
    if unknown:
        got = f"an unknown number of rows of {', '.join(unknown)}"
        raise ConfigError(job.recipe.path, got, "a number", "Give --num_train_examples N")
    count = sum(int((_size(name, config, split) or 0) * (1 if weight is None else weight))
                for name, config, split, weight in asked)  # fmt: skip
    held_out = data.splits_off
    if held_out:
        count -= int(held_out) if held_out >= 1 else math.ceil(count * held_out)
    return min(count, data.max_train_examples or count)


def _size(name: str, config: str | None, split: str) -> int | None:
    configs = DATA[name].configs if name in DATA else {}
    return configs.get(config or next(iter(configs), ""), {}).get(split)
