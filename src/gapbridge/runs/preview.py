"""Rows as they would be trained, before anything is: `gapbridge preview`, and `preview` for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from peft import PeftModel
from rich.text import Text
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import methods
from ..data.example import ExampleSet
from ..errors import ConfigError
from ..training.dataset_builder import first_rows
from ..training.method import GapTrainerMixin
from ..training.rows import Row, print_rows
from ..training.stats import GenerationStats
from .load_inputs import load_examples, load_initial_model
from .rounds import round_arguments
from .run_config import RunConfig


@dataclass(frozen=True)
class PreviewBatch:
    """What a run starts from, round 1's configuration, and the first rows that it would train.

    stats: what the rows are made from.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    examples: ExampleSet
    args: Any
    rows: list[Row]
    stats: GenerationStats


def build_preview(job: RunConfig, count: int, *, with_model: bool = False) -> PreviewBatch:
    """Load what the run starts from, and make the rows of its first `count` examples; nothing is written.

    Args:
        with_model: whether the model is loaded and placed for generation where the method needs none.
    """
    from ..decoding.model_state import move_to_device

    args = round_arguments(job.args, 1)
    generates = job.method.generates_contexts or with_model
    model, tokenizer = load_initial_model(job, whole=generates)
    if generates:
        move_to_device(model, args)
    job.data.max_train_examples = min(count, job.data.max_train_examples or count)
    job.skip_evaluation()
    examples = load_examples(job, tokenizer, model)["train"]
    contexts = job.method.generation_spec(model, tokenizer, examples, args)
    with tqdm(total=len(examples), desc="contexts", unit="row", delay=5, disable=contexts is None) as bar:
        rows, stats = first_rows(job.method, examples, tokenizer, args, contexts, count, bar.update)
    return PreviewBatch(model, tokenizer, examples, args, rows, stats)


def run_preview(job: RunConfig, count: int, first: PreviewBatch | None = None) -> list[Text]:
    """Print the first rows of round 1; their contexts are generated, and nothing is written.

    Args:
        first: what `build_preview` took, where it did; at least `count` rows.
    """
    first = first or build_preview(job, count)
    found = [job.method.render_row(row, first.tokenizer) for row in first.rows[:count]]
    print_rows(found)
    return found


def preview(
    model: str | PreTrainedModel,
    args: Any,
    train_dataset: Dataset,
    processing_class: PreTrainedTokenizerBase | None = None,
    *,
    count: int = 3,
) -> list[Text]:
    """The first rows that the trainer of `args` would train; their contexts are generated, and nothing is written.

    Args:
        model, args, train_dataset, processing_class: as for the trainer; `args` says which, as a [`BASHConfig`] does.
        count: how many rows.

    Returns:
        One `rich` text a row; `print(text.plain)` or `rich.print(text)`.

    Raises:
        ConfigError: `args` is the configuration of no method. DataError: the data set has bad rows.
    """
    method = _method_of(args)
    if errors := args.errors():
        raise ConfigError(errors)
    model, tokenizer = method.load_model_and_tokenizer(model, args, processing_class)
    part = train_dataset.select(range(min(count, len(train_dataset))))
    examples = method.load_examples(part, tokenizer, model, args, "train_dataset", max_length=args.row_limit())
    contexts = method.generation_spec(model, tokenizer, examples, args)
    rows, _ = first_rows(method, examples, tokenizer, args, contexts, count)
    return [method.render_row(row, tokenizer) for row in rows]


def _method_of(args: Any) -> type[GapTrainerMixin]:
    for name in methods.list_methods():
        method = methods.get_method(name)
        if type(args) is method.config_class:
            return method
    got = f"a {type(args).__name__}"
    raise ConfigError("args", got, "the configuration of a method of gapbridge", "Construct one, such as BASHConfig")
