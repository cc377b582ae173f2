"""What a variant's rows are like, measured on a few of them; nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.example import Example
from ..decoding.model_state import move_to_device
from ..runs.load_inputs import count_train_rows, load_examples
from ..runs.rounds import number_of_rounds, round_arguments
from ..runs.run_config import RunConfig
from ..store.generate_shards import Columns, GenerationSpec, Progress
from ..training.dataset_builder import first_rows
from ..training.packing import is_packed, packed_lengths
from ..training.rows import Row
from .budget import StepCost


SAMPLED = 32  # examples
_ALL = 10**9  # rows


@dataclass(frozen=True)
class CostProfile:
    """A variant's load, the rows that it was measured on before they are packed, and how long their contexts took."""

    load: StepCost
    rows: list[Row]
    examples: int
    generation_seconds: float  # of one example


def profile_rows(
    job: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sampled: int = SAMPLED,
    rows_read: int | None = None,
) -> CostProfile:
    """The rows of the variant's first examples, their contexts drawn by `model`, which the variant starts from.

    Args:
        sampled: the number of examples.
        rows_read: only so many rows of the data are tokenized, and the others are taken to be like them.
    """
    args = round_arguments(job.args, 1)
    job.args.eval_strategy = type(job.args.eval_strategy)("no")  # held-out data need not be loaded
    if job.method.generates_contexts:
        move_to_device(model, args)
    scale = 1.0
    if rows_read is not None:
        total = count_train_rows(job)
        rows_read = min(rows_read, total)
        job.data.max_train_examples, scale = rows_read, total / rows_read
    examples = load_examples(job, tokenizer, model)["train"]
    total_examples = round(scale * len(examples))
    count = min(sampled, len(examples))
    some: Any = replace(examples, table=examples.table.select(range(count)))
    generated: list[int] = []
    contexts = job.method.generation_spec(model, tokenizer, some, args)
    started = time.perf_counter()
    rows, _ = first_rows(job.method, some, tokenizer, args, contexts and _counted(contexts, generated), _ALL)
    seconds = time.perf_counter() - started
    rounds = number_of_rounds(args) if contexts is None else number_of_rounds(job.args)
    load = StepCost(
        rows_per_step=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        row_tokens=sum(len(tokens) for row in rows for tokens in count_sequences(job, row)) / max(1, len(rows)),
        passes=job.method.forward_equivalents_per_token(args),
        generated_tokens=rounds * sum(generated) / count * total_examples,
        rows=len(rows) / count * total_examples,
        rounds=number_of_rounds(job.args),
    )
    if is_packed(args):
        load = _packed(load, [len(row["input_ids"]) for row in rows], args)
    return CostProfile(load, rows, total_examples, seconds / count if contexts else 0.0)


def _packed(load: StepCost, lengths: list[int], args: Any) -> StepCost:
    """The load of packed rows, were all rows as long as these.

    There are few of them, so that the last step of an epoch, which may have fewer, counts: `row_tokens` is the mean
    over all places in an epoch's steps.
    """
    packed = packed_lengths([*islice(cycle(lengths), round(load.rows))], args)
    places = math.ceil(len(packed) / load.rows_per_step) * load.rows_per_step
    return replace(load, row_tokens=sum(packed) / max(1, places), rows=len(packed))


def count_sequences(job: RunConfig, row: Row) -> list[list[int]]:
    """The sequences that a row is in a training step: itself, or the two of a pair."""
    return [row["input_ids"]] if "input_ids" in job.method.row_features else job.method.tokens_of(row)


def _counted(contexts: GenerationSpec, sampled: list[int]) -> GenerationSpec:
    """The same contexts, which add to `sampled` how many tokens were fed to draw each: prompt and answer."""

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        columns = contexts.generate(examples, on_finished)
        sampled.extend(len(e.prompt) + len(t) for e, t in zip(examples, columns["tokens"], strict=True))
        return columns

    return replace(contexts, generate=draw)
