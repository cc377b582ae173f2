"""What a run starts from: the model, its tokenizer, and the examples of the recipe's data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.arrow_files import content_fingerprint
from ..data.chat_template import ChatTemplate
from ..data.eos_check import missing_eos_error
from ..data.example import ExampleSet
from ..data.formats import require_prompts
from ..data.serialization import load_saved_examples, save_examples
from ..data.sources import LoadedData, find_data, standard_columns
from ..data.special_tokens import stop_tokens
from ..errors import ConfigError
from ..recipe.secrets import redact
from ..store.file_hashes import hash_model, hash_path
from ..training.artifact_cache import artifact_identity, built_once, cache_key_settings, examples_path
from ..training.loading import (
    load_generation_config,
    load_model,
    load_tokenizer,
    model_init_kwargs,
    prepare_tokenizer,
    require_local,
)
from ..training.run_files import RUN_FILE, read_run
from .run_config import RunConfig


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundStart:
    """What a round starts from; `examples` by part, `train` and perhaps `eval`."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    examples: dict[str, ExampleSet]


def load_initial_model(
    job: RunConfig, path: str | Path | None = None, *, whole: bool = True, with_heads: bool = False
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Model and tokenizer that a run, or one of its rounds, starts from; the keywords are those of `load_model`."""
    source = path or job.model.model_name_or_path
    set_seed(job.args.seed)
    if path is None:
        check_template_eos(job)
    options = model_init_kwargs(job.model, job.args)
    if path is not None:
        options.pop("revision", None)
    model = load_model(source, job.args, whole=whole, with_heads=with_heads, **options)
    tokenizer = load_tokenizer(source, job.args, None if path else job.model.model_revision)
    prepare_tokenizer(model, tokenizer, job.args, uses_peft=job.model.use_peft)
    job.method.setup_model(model, tokenizer, job.args)
    return model, tokenizer


def check_template_eos(job: RunConfig) -> None:
    """Where the recipe's data are sure to be chats, render a placeholder and look for the stop token of its answer.

    Data are loaded and rows tokenised much later, and each of them would say the same.

    Raises:
        ConfigError: the answer ends with no stop token; which key fixes it.
    """
    if not (job.args.chat_template is not None or job.data.convert_to_chat or job.data.mixes_chats):
        return
    source, revision = str(job.model.model_name_or_path), job.model.model_revision
    require_local(source, "model")
    generation = load_generation_config(source, job.args, revision)
    if generation is None:
        return
    tokenizer = load_tokenizer(source, job.args, revision)
    prepare_tokenizer(None, tokenizer, job.args, uses_peft=job.model.use_peft)
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        return
    template = ChatTemplate(tokenizer, date=job.args.chat_template_date, arguments=job.args.chat_template_kwargs or {})
    if error := missing_eos_error(template, stop_tokens(tokenizer, generation)):
        raise ConfigError(f"{job.recipe.path}, {error}")


def load_examples(
    job: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None,
    *,
    found: LoadedData | None = None,
    keep: bool = False,
    choose: Callable[[Dataset], Sequence[int]] | None = None,
) -> dict[str, ExampleSet]:
    """`train`, and `eval` where the recipe evaluates.

    Args:
        found: the recipe's data, where they are loaded already.
        keep: whether they are kept in the cache, so that one process reads them, and once.
        choose: which rows of the training data are read, where not all are.
    """
    found = found or job.find_data()
    train = found.train if choose is None else found.train.select(choose(found.train))
    parts = {"train": (train, found.source)}
    if found.eval is not None:
        parts["eval"] = (found.eval, found.eval_source)

    if not keep:
        return {part: _read_part(job, part, *parts[part], tokenizer, model, None) for part in parts}
    shared = artifact_identity(job.method, tokenizer, model, cache_key_settings(job.args))
    shared["keys"] = redact(asdict(job.data)).keys  # a URL may be signed again
    examples: dict[str, ExampleSet] = {}
    for part, (dataset, source) in parts.items():
        path = examples_path(part, dataset, {**shared, "source": source})
        with built_once(path, job.args, each_machine=True) as builds:
            if builds:
                with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                    save_examples(_read_part(job, part, dataset, source, tokenizer, model, Path(scratch)), path)
        is_first = job.args.local_process_index == 0
        examples[part] = load_saved_examples(path, job.method.example_set, check=is_first)
    return examples


def _read_part(
    job: RunConfig,
    part: str,
    dataset: Dataset,
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None,
    scratch: Path | None,
) -> ExampleSet:
    """The examples of a part's rows; `scratch`: where rows in TRL's columns are written meanwhile, if anywhere."""
    dataset = standard_columns(dataset, job.data, source, scratch, job.args.dataset_text_field)
    limit = job.args.row_limit(part)
    return job.method.load_examples(dataset, tokenizer, model, job.args, source, max_length=limit)


def started_inputs(job: RunConfig, found: LoadedData | None = None) -> dict[str, str]:
    """Fingerprints of what a recipe names, as it lies on the disk now: rows, the first model, a template in a file.

    Args:
        found: the recipe's data, where they are loaded already.

    Raises:
        ConfigError, DataError: data cannot be loaded.
    """
    found = found or job.find_data()
    inputs = {"train rows": content_fingerprint(found.train)}
    if found.eval is not None:
        inputs["eval rows"] = content_fingerprint(found.eval)
    named = {
        "model": hash_model(str(job.model.model_name_or_path), job.model.model_revision),
        "chat template": job.args.chat_template_path and hash_path(job.args.chat_template_path),
    }
    return inputs | {name: value for name, value in named.items() if value}


def load_eval_examples(
    job: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None,
    *,
    limit: int | None = None,
    run: Path | None = None,
) -> ExampleSet:
    """The examples that a model is evaluated on: the recipe's held-out data, or its data where it names no others.

    A recipe with `dataset_name` names its `dataset_test_split`.

    Nothing is left out for its length: an evaluation on fewer examples is another evaluation.

    Args:
        limit: the first so many, in place of the recipe's `max_eval_examples`.
        run: the model's directory; a warning says where it is that of a run on these very rows.
    """
    held_out = _find_held_out(job, limit)
    if run is not None and (run / RUN_FILE).is_file():
        trained = read_run(run)["inputs"].get("train rows")
        if trained is not None and trained == content_fingerprint(held_out.of_recipe):
            logger.warning("%s: scored on the rows that it was trained on. Name others with `eval_datasets`.", run)
    dataset = standard_columns(held_out.rows, job.data, held_out.source, text_field=job.args.dataset_text_field)
    # An evaluation asks once a row.
    examples = job.method.load_examples(
        dataset, tokenizer, model, job.args, held_out.source, max_length=None, train_on_assistant_turns="last"
    )
    require_prompts(examples, "an evaluation completes each prompt")
    return examples


def count_held_out_rows(job: RunConfig, limit: int | None = None) -> int:
    """How many rows `load_eval_examples` reads, without reading them."""
    return len(_find_held_out(job, limit).rows)


@dataclass(frozen=True)
class _HeldOut:
    """The `rows` of an evaluation in columns of their own, those `of_recipe` whatever the limit, and their source."""

    rows: Dataset
    of_recipe: Dataset
    source: str


def _find_held_out(job: RunConfig, limit: int | None) -> _HeldOut:
    data, script, most = job.data, job.script, job.data.max_eval_examples
    if limit is not None and most is not None:  # the recipe's number is for evaluations while training
        data = replace(data, max_eval_examples=max(limit, most))
    # `eval_strategy: no` is about training: an evaluation reads the test split all the same, never the training split.
    needs_eval = job.evaluates if data.test_split_size else bool(script.dataset_name)
    if data.eval_datasets:  # the training data need not be loaded
        data = replace(data, eval_datasets=[], max_train_examples=data.max_eval_examples)
        data.datasets, data.dataset_mixture = job.data.eval_datasets, None
        script, needs_eval = replace(script, dataset_name=None), False
    found = find_data(data, script, needs_eval=needs_eval)
    if found.eval is not None:
        dataset, source = found.eval, found.eval_source
    else:
        dataset, source = found.train, found.source
        if not job.data.eval_datasets:
            most = None  # the training data stand in for held-out ones, whose number the key limits

    def first(count: int | None) -> Dataset:
        return dataset if count is None else dataset.select(range(min(count, len(dataset))))

    return _HeldOut(first(most if limit is None else limit), first(most), source)
