"""A TRL trainer that builds its own rows.

    class BASHTrainer(Method, SFTTrainer): ...

A row of data goes one way: data set → `read` → examples → `generation_spec` (generated, in a store) → `build_rows` →
the trainer. One function, `build_rows`, makes the rows, of all examples through the store for training and of a few
without it for a preview, so that what a preview prints is what is trained. Examples and rows are made once and kept
(`artifact_cache.py`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from ..compat import show_head_bias
from ..data.example import ExampleSet
from ..data.formats import formatted, readable
from ..data.loss_scope import LESS_THAN_TRL
from ..data.serialization import load_saved_examples, save_examples
from ..decoding.model_state import move_to_device
from ..errors import ConfigError, RunError
from .adapter_merge import ADAPTER, cache_enabled, check_mergeable, merge_saved
from .arguments import (
    EVAL,
    EVAL_GENERATED,
    TRAIN,
    by_name,
    given_data,
    own_configuration,
)
from .artifact_cache import (
    artifact_identity,
    built_once,
    cache_key_settings,
    examples_path,
)
from .checkpoints import agreed_checkpoint
from .config import RoundArgs
from .dataset_builder import (
    BuiltDataset,
    PendingGeneration,
    build_and_cache_rows,
    generate_pending_contexts,
    open_context_stores,
    placeholder_rows,
    rows_in_memory,
)
from .distributed_checks import check_processes
from .held_out import EvalDatasetMixin
from .loading import load_model, load_tokenizer, prepare_tokenizer, record_revision
from .metrics import LogAtStart
from .model_card import complete_card
from .quiet import hidden_dataset_bars
from .stats import GenerationStats
from .trainer_guards import TrainerGuardMixin
from .vocabulary import check_vocabulary


logger = logging.getLogger(__name__)

_PREPARED = frozenset({"train_dataset", "eval_dataset", "row_ids", "stats", "eval_stats"})


@dataclass(frozen=True)
class _Unprepared:
    """What the constructor leaves to `prepare_dataset`; `whole`: rows that TRL's constructor had to have already."""

    parts: dict[str, ExampleSet]
    settings: dict[str, Any]
    whole: dict[str, BuiltDataset]
    adds_adapter: bool
    weight_version: int


class GapTrainerMixin(EvalDatasetMixin, TrainerGuardMixin):
    """
    A TRL trainer that builds its own rows, put before it: `class BASHTrainer(Method, SFTTrainer)`.

    The constructor checks: options, every row, and with two placeholder rows all that TRL, transformers and accelerate
    refuse. It generates nothing and writes nothing into `output_dir`; examples go into the cache of `datasets`.
    `train`, `evaluate`, `predict` and the first access to `train_dataset` call `prepare_dataset`. There the model, not
    yet wrapped or sharded, generates what the rows are made of, or it is found in `output_dir`. One trainer trains one
    round.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model to train.
        args (*optional*): Configuration, of the method's `config_class`; plain `TrainingArguments` become one.
        train_dataset ([`~datasets.Dataset`] or `ExampleSet`):
            Prompts and answers in one of the forms of `gapbridge.build_examples`, or what that returns.
        eval_dataset ([`~datasets.Dataset`], [`~datasets.IterableDataset`], `ExampleSet` or a `dict` of them):
            Held-out data in the same form. Gives `eval_loss` on reference contexts and `eval_generated_loss` on own
            ones, and of several by name `eval_NAME_loss` and `eval_NAME_generated_loss`.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): The tokenizer.
        data_collator, compute_loss_func, compute_metrics, callbacks, optimizers, optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics, quantization_config, peft_config, **kwargs: as for TRL's trainer, and in its
            order.

    Raises:
        ConfigError, DataError, StoreError, RunError: see `gapbridge.errors`; nothing has been generated then.
    """

    examples: ExampleSet
    pending: dict[str, PendingGeneration]  # what is generated before training, by part of the data
    # `prepare_dataset` makes these; the first access to one of them calls it.
    train_dataset: Any
    eval_dataset: Any
    row_ids: Dataset
    stats: GenerationStats  # of the training rows
    eval_stats: GenerationStats  # of the held-out rows with generated contexts
    _unprepared: _Unprepared | None = None

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: Any | None = None,
        data_collator: Any | None = None,
        train_dataset: Dataset | ExampleSet | None = None,
        eval_dataset: Any | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, Any] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        quantization_config: Any | None = None,
        peft_config: PeftConfig | None = None,
        formatting_func: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        optional = {
            "compute_loss_func": compute_loss_func,
            "compute_metrics": compute_metrics,
            "optimizer_cls_and_kwargs": optimizer_cls_and_kwargs,
            "preprocess_logits_for_metrics": preprocess_logits_for_metrics,
        }
        kwargs |= {name: value for name, value in optional.items() if value is not None}
        method = type(self)
        if args is None:
            name = str(model) if isinstance(model, str) else model.config._name_or_path
            args = self.config_class(f"{name.rstrip('/').split('/')[-1]}-{self._name}")
        if not isinstance(args, self.config_class):
            args = own_configuration(self.config_class, args, method.__name__)
        if errors := method.argument_errors(args, kwargs):
            raise ConfigError(errors)
        given = given_data(train_dataset, eval_dataset, by_index=method.requires_eager_rows(args))
        check_processes(args)
        settings = cache_key_settings(args)  # before any trainer writes into them
        model, tokenizer = method.load_model_and_tokenizer(
            model, args, processing_class, quantization_config, peft_config
        )
        if args.save_merged_model:
            check_mergeable(model, peft_config)
        parts = method._examples(given, tokenizer, model, args, formatting_func)
        if len(parts) == 1:
            args.eval_on_start = False  # transformers would stop at the start of training
        check_vocabulary(model, tokenizer, parts, args.pad_token)
        generations = open_context_stores(method, model, tokenizer, parts, args)
        full: dict[str, BuiltDataset] = {}
        if method.requires_eager_rows(args):
            full = {part: rows_in_memory(method, part, found, tokenizer, args) for part, found in parts.items()}
        first = {
            part: full[part].table.select_columns(method.trained_columns())
            if full
            else placeholder_rows(method, found)
            for part, found in parts.items()
        }
        added = method.trainer_arguments(model, tokenizer, args, peft_config)
        kwargs = {"peft_config": peft_config, **added, **kwargs}
        set_seed(args.seed)
        self._reading_args, self._text_of_row = copy.copy(args), formatting_func
        with args.implied_defaults(), hidden_dataset_bars(not full):
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator,
                train_dataset=first[TRAIN],
                eval_dataset=by_name(first),
                processing_class=tokenizer,
                callbacks=callbacks,
                optimizers=optimizers,
                **kwargs,
            )
        show_head_bias(self.model)
        self.examples, self.pending = parts[TRAIN], generations
        self._unprepared = _Unprepared(
            parts, settings, full, adds_adapter=peft_config is not None, weight_version=_weight_version(self.model)
        )
        if not full:  # placeholders
            del self.train_dataset, self.eval_dataset

    def __getattr__(self, name: str) -> Any:
        """What `prepare_dataset` makes, when it is first read."""
        if name not in _PREPARED or vars(self).get("_unprepared") is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.prepare_dataset()
        return vars(self)[name]

    def prepare_dataset(self) -> None:
        """Generate what the rows are made of, or find it in `output_dir`, and make the rows; a second time do nothing.

        All processes call it together. An interrupted call goes on where it stopped.

        Raises:
            GapbridgeError: nothing can be trained; what was generated is kept.
        """
        todo = self._unprepared
        if todo is None:
            return
        generates = not all(generation.store.is_complete() for generation in self.pending.values())
        if generates and _weight_version(self.model) != todo.weight_version:
            got = "weights that changed after the trainer was constructed"
            advice = "Call prepare_dataset before you change them, or construct the trainer afterwards"
            raise RunError("model", got, "the weights that its contexts are known by", advice)
        # The contexts are the round's starting model's: an adapter that TRL has just put on it stays out.
        with self.model.disable_adapter() if self.pending and todo.adds_adapter else nullcontext():
            for part, generation in self.pending.items():
                generate_pending_contexts(generation, todo.parts[part], self.args)
        full = todo.whole or self._keep_rows(todo.parts, todo.settings)
        self._unprepared = None
        self.row_ids, self.stats = full[TRAIN].table, full[TRAIN].stats
        own = (rows.stats for part, rows in full.items() if part.startswith(EVAL_GENERATED))
        self.eval_stats = sum(own, start=type(self).stats_class())
        self._say_what_is_trained()

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, on the prepared rows; `True` resumes from the last *complete* checkpoint.

        Raises:
            RunError: `True` was given and there is no complete checkpoint.
            TrainingError: the loss, the gradient or a trained weight is not finite.
        """
        checkpoint: Any = resume_from_checkpoint or None
        if checkpoint is True:
            checkpoint = agreed_checkpoint(Path(self.args.output_dir))
            if checkpoint is None:
                advice = "Set resume_from_checkpoint: false, or correct output_dir"
                raise RunError(self.args.output_dir, "no complete checkpoint", "one to resume from", advice)
        self.prepare_dataset()
        if checkpoint:
            self.args.eval_on_start = False  # that evaluation has been made
            if self.args.should_save:
                logger.info("going on from %s", checkpoint)
        output = super().train(checkpoint and str(checkpoint), *args, **kwargs)
        self.check_weights()
        return output

    @classmethod
    def _examples(
        cls,
        given: dict[str, tuple[str, Dataset | ExampleSet]],
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | PeftModel,
        args: Any,
        formatting_func: Callable[[dict[str, Any]], str] | None,
    ) -> dict[str, ExampleSet]:
        """The examples of what the constructor was given, in the cache where it read them itself."""
        parts: dict[str, ExampleSet] = {}
        identity: dict[str, Any] = {}
        for part, (source, dataset) in given.items():
            if isinstance(dataset, ExampleSet):
                parts[part] = dataset
                continue
            identity = identity or artifact_identity(cls, tokenizer, model, cache_key_settings(args))
            dataset = formatted(readable(dataset, source), formatting_func, args.dataset_text_field)
            limit = args.row_limit(part)
            path = examples_path(part, dataset, identity)
            with built_once(path, args, each_machine=True) as builds:
                if builds:
                    save_examples(cls.load_examples(dataset, tokenizer, model, args, source, max_length=limit), path)
            parts[part] = load_saved_examples(path, cls.example_set, check=args.local_process_index == 0)
        return parts

    def _keep_rows(self, parts: dict[str, ExampleSet], settings: dict[str, Any]) -> dict[str, BuiltDataset]:
        """Make the rows that are trained and evaluated, and put them in the place of TRL's placeholder."""
        method, generations = type(self), self.pending
        shared = artifact_identity(method, self.processing_class, self.model, settings)
        keep = partial(build_and_cache_rows, method, tokenizer=self.processing_class, args=self.args, shared=shared)
        full: dict[str, BuiltDataset] = {TRAIN: keep(TRAIN, parts[TRAIN], generation=generations.get(TRAIN))}
        evaluates_references = EVAL in method.eval_sets(self.args)
        for part in [part for part in parts if part != TRAIN]:
            if evaluates_references:
                full[part] = keep(part, parts[part])
            if part in generations:
                own = part.replace(EVAL, EVAL_GENERATED, 1)
                full[own] = keep(own, parts[part], generation=generations[part])
        made = {part: self._prepare(rows, TRAIN if part == TRAIN else EVAL) for part, rows in full.items()}
        self.train_dataset, own_rows = made[TRAIN], by_name(made, EVAL_GENERATED)
        self.eval_dataset = by_name(made) if evaluates_references else own_rows
        self._generated_eval_dataset = own_rows if evaluates_references else None
        return full

    def _say_what_is_trained(self) -> None:
        """Say what the round's rows are made from, now and in the logs of the training that follows."""
        if self.is_world_process_zero():
            round_index = self.args.round_index if isinstance(self.args, RoundArgs) else 1
            summary = self.stats.summary()
            logger.info("round %d: %d rows%s", round_index, len(self.row_ids), f", {summary}" if summary else "")
            if self.examples.loss_on:
                level = logging.WARNING if LESS_THAN_TRL in self.examples.loss_on else logging.INFO
                logger.log(level, "round %d: loss on %s", round_index, self.examples.loss_on)
            for warning in self.stats.warnings(self.args):
                logger.warning("round %d: %s", round_index, warning)
        self.add_callback(LogAtStart(self.log, self.stats.metrics()))

    @classmethod
    def load_model_and_tokenizer(
        cls,
        model: str | PreTrainedModel | PeftModel,
        args: Any,
        tokenizer: PreTrainedTokenizerBase | None,
        quantization_config: Any | None = None,
        peft_config: PeftConfig | None = None,
    ) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """Model and tokenizer, loaded where they are paths, prepared, and in place where the method generates."""
        set_seed(args.seed)
        name = str(model) if isinstance(model, str) else model.config._name_or_path
        revision = (args.model_init_kwargs or {}).get("revision")
        if isinstance(model, str):
            quantized = {"quantization_config": quantization_config} if quantization_config else {}
            model = load_model(model, args, whole=cls.generates_contexts, **quantized)
            if peft_config is not None:
                record_revision(peft_config, revision)
            args.model_init_kwargs = None  # used up; TRL would warn that a loaded model ignores them
        elif args.model_init_kwargs:
            raise ConfigError(
                "model_init_kwargs", "options for a loaded model", "a model given by its name", "Remove the key"
            )
        tokenizer = tokenizer or load_tokenizer(name, args, revision)
        prepare_tokenizer(model, tokenizer, args, uses_peft=peft_config is not None or isinstance(model, PeftModel))
        cls.setup_model(model, tokenizer, args)
        if cls.generates_contexts:
            move_to_device(model, args)
        return model, tokenizer

    def create_model_card(self, model_name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """TRL's card, and in it the method's settings, data, what was generated, and losses."""
        super().create_model_card(model_name, *args, **kwargs)
        if self.is_world_process_zero():
            complete_card(
                Path(self.args.output_dir) / "README.md",
                self.args,
                self.examples,
                self.stats.summary(),
                self.state.log_history,
                base=self.model.config._name_or_path,
                model_name=model_name or Path(self.args.output_dir).name,
                adapter=self.model.active_peft_config if isinstance(self.model, PeftModel) else None,
                decoding_modes=tuple(self.answer_modes),
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in TRL's trainer, with the cache on; with `save_merged_model` the whole model, but for checkpoints.

        All processes call it together.
        """
        with cache_enabled(self.model.config):
            if not self.args.save_merged_model or (
                _internal_call and output_dir is not None
            ):  # so checkpoints are saved
                super().save_model(output_dir, _internal_call)
                return
            directory = Path(output_dir or self.args.output_dir)
            super().save_model(str(directory / ADAPTER), _internal_call=True)
            if self.args.should_save:
                merge_saved(directory, self.model, self.args)
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)


def _weight_version(model: PreTrainedModel | PeftModel) -> int:
    """A number that grows with each change of a weight in its place."""
    return sum(parameter._version for parameter in model.parameters())
