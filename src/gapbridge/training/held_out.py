"""Held-out data of a trainer: one data set or several by name, read like the training data wherever they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..data.example import ExampleSet
from ..data.formats import formatted, readable
from ..errors import DataError
from .arguments import EVAL, as_data_set, source_label
from .dataset_builder import BuiltDataset, rows_in_memory
from .hooks import MethodHooks
from .vocabulary import check_vocabulary


if TYPE_CHECKING:
    from transformers import Trainer

    class _Behind(MethodHooks, Trainer):
        def prepare_dataset(self) -> None: ...
else:
    _Behind = MethodHooks

_PREPARED = "rows of a gapbridge trainer"  # in the description of a data set, which its slices inherit


class EvalDatasetMixin(_Behind):
    """Put before a TRL trainer: `evaluate` and `predict` read a data set as the constructor does.

    `eval_dataset` holds the rows that give `eval_loss`, and `_generated_eval_dataset` those with generated contexts;
    either is a dict where the held-out data sets have names.
    """

    _generated_eval_dataset: Dataset | dict[str, Dataset] | None = None
    _generated_prefix: str | None = None  # of the metrics, while generated contexts are evaluated
    _reading_args: Any = None  # the configuration as it was given: constructors write into theirs
    _text_of_row: Callable[[dict[str, Any]], str] | None = None  # TRL's `formatting_func`

    @classmethod
    def is_prepared(cls, dataset: Any) -> bool:
        """Whether a data set holds rows that a trainer has prepared, or is a part of one that does."""
        return isinstance(dataset, Dataset) and dataset.info.description == _PREPARED

    def _prepare(self, rows: BuiltDataset, part: str) -> Dataset:
        """What is trained of finished rows. TRL's preparation, where it does something: it packs rows, and drops those
        without loss; none is too long."""
        dataset, args = rows.table.select_columns(self.trained_columns()), self.args
        packing = args.eval_packing if part == "eval" and args.eval_packing is not None else args.packing
        if packing or rows.num_rows_without_loss:
            dataset = self._prepare_dataset(dataset, self.processing_class, args, packing, None, part)
        elif args.shuffle_dataset:
            dataset = dataset.shuffle(seed=args.seed, keep_in_memory=True)
        dataset.info.description = _PREPARED
        return dataset

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """What is prepared stays as it is; TRL would prepare it again for each evaluation."""
        return dataset if self.is_prepared(dataset) else super()._prepare_dataset(dataset, *args, **kwargs)

    def rows_to_evaluate(self, dataset: Any, source: str) -> Dataset:
        """The prepared rows of a data set as the constructor makes them: raw, as examples, or prepared already.

        Rows have reference contexts: generated ones are generated before training alone.

        Raises:
            GapbridgeError: what the constructor raises for it, under the name `source`; DataError where the method
            evaluates generated rows only.
        """
        if self.is_prepared(dataset):
            return dataset
        method = type(self)
        tokenizer, args = self.processing_class, self._reading_args
        if EVAL not in method.eval_sets(args):
            got, expected = "a data set after the completions were generated", "one that the constructor was given"
            raise DataError(source, got, expected, f"Give it to {method.__name__} as eval_dataset")
        found = as_data_set(dataset, source, by_index=method.requires_eager_rows(args))
        if not isinstance(found, ExampleSet):
            found = formatted(readable(found, source), self._text_of_row, args.dataset_text_field)
            found = method.load_examples(found, tokenizer, self.model, args, source, max_length=args.row_limit(EVAL))
        check_vocabulary(self.model, tokenizer, {EVAL: found}, args.pad_token)
        return self._prepare(rows_in_memory(method, EVAL, found, tokenizer, args), EVAL)

    def evaluate(
        self, eval_dataset: Any | None = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As in TRL's trainer, for raw data sets, examples, prepared rows, a dict of them, or the name of one of the
        constructor's; without one of its own also on the constructor's held-out generated contexts
        (`eval_generated_loss`).

        Raises:
            GapbridgeError: what the constructor raises for such data; nothing has been evaluated then.
        """
        self.prepare_dataset()
        if eval_dataset is None and isinstance(self.eval_dataset, dict):
            eval_dataset = {name: name for name in self.eval_dataset}
        if isinstance(eval_dataset, dict):
            several = {name: self._found(part, source_label(name)) for name, part in eval_dataset.items()}
            metrics: dict[str, float] = {}
            for name, part in several.items():
                metrics |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        own = self._generated_eval_dataset
        if isinstance(own, dict):
            own = own.get(eval_dataset) if isinstance(eval_dataset, str) else None
        elif eval_dataset is not None:
            own = None
        metrics = {}
        if own is not None:
            self._generated_prefix = f"{metric_key_prefix}_generated"
            try:
                metrics = super().evaluate(own, ignore_keys, self._generated_prefix)
            finally:
                self._generated_prefix = None
        found = None if eval_dataset is None else self._found(eval_dataset, source_label(None))
        return {**metrics, **super().evaluate(found, ignore_keys, metric_key_prefix)}

    def predict(self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test") -> Any:
        """As in transformers, for a raw data set, examples or prepared rows.

        Raises:
            GapbridgeError: what the constructor raises for such data.
        """
        self.prepare_dataset()
        return super().predict(self.rows_to_evaluate(test_dataset, "test_dataset"), ignore_keys, metric_key_prefix)

    def _found(self, dataset: Any, source: str) -> Dataset | str:
        """Prepared rows, or the name of a data set of the constructor."""
        if not isinstance(dataset, str):
            return self.rows_to_evaluate(dataset, source)
        names = list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else []
        if dataset not in names:
            advice = "Give a data set, or a name of the constructor's eval_dataset"
            raise DataError(source, f"the name {dataset!r}", f"one of {names}", advice)
        return dataset

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        prefix = self._generated_prefix
        if prefix is not None and any(key.startswith(f"{prefix}_") for key in logs):
            # TRL would log the entropy and accuracy of this evaluation as those of the reference contexts.
            metrics = self._metrics["eval"]
            logs.update({f"{prefix}_{key}": sum(values) / len(values) for key, values in metrics.items()})
            metrics.clear()
        super().log(logs, start_time)
