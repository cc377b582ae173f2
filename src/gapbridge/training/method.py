"""What trainers share that train on the model's own tokens: contexts are built in the constructor, then SFT runs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from ..contexts.fill import place_for_generation
from ..errors import ConfigError, DataError
from ..examples.build import build_examples
from ..examples.example import ExampleSet
from ..examples.tokens import stop_tokens
from .config import SelfGenerationConfig
from .guards import GuardedSFTTrainer
from .loading import load_model, load_tokenizer, prepare_tokenizer
from .parallel import check_processes
from .rows import reference_dataset


logger = logging.getLogger(__name__)

CEN_2025 = {
    "title": "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
    "id": "2410.14655",
    "citation": (
        "@article{cen2025bridging,\n"
        "    title   = {{Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens}},\n"
        "    author  = {Cen, Zhepeng and Liu, Yao and Zeng, Siliang and Chaudhari, Pratik and Rangwala, Huzefa and "
        "Karypis, George and Fakoor, Rasool},\n"
        "    journal = {Transactions on Machine Learning Research},\n"
        "    year    = 2025\n"
        "}"
    ),
}


class SelfGenerationTrainer(GuardedSFTTrainer):
    """
    [`~trl.SFTTrainer`] whose training rows are built, in the constructor, from tokens of the model itself.

    Building them is the data preparation: the plain model, before anything is wrapped or sharded, makes the contexts
    or finds them in `output_dir/contexts`; then [`~trl.SFTTrainer`] trains the rows. One trainer trains one round.
    Subclasses say what a row is, in `build_rows`.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model to train.
        args ([`~gapbridge.config.SelfGenerationConfig`], *optional*): Configuration, of the method's class.
        train_dataset ([`~datasets.Dataset`] or `ExampleSet`):
            Prompts and answers in one of the forms of `gapbridge.examples.build_examples`, or what that returns.
        eval_dataset ([`~datasets.Dataset`] or `ExampleSet`, *optional*):
            Held-out data in the same form. Gives `eval_loss` on reference contexts and `eval_own_loss` on own ones.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): The tokenizer.
        data_collator, callbacks, optimizers, quantization_config, peft_config, **kwargs: as for [`~trl.SFTTrainer`].

    Raises:
        ConfigError, DataError, StoreError, RunError: see `gapbridge.errors`; nothing has been trained then.
    """

    config_class: ClassVar[type[SelfGenerationConfig]]

    @abstractmethod
    def build_rows(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: ExampleSet,
        args: Any,
        directory: Path,
        *,
        evaluation: bool,
    ) -> tuple[Dataset | None, Any]:
        """Rows (`id`, `input_ids`, `labels`) from the contexts in `directory`, made if need be, and what to count.

        With `evaluation` only rows with own contexts are wanted, None where these are the reference contexts.
        """

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: Any | None = None,
        data_collator: Any | None = None,
        train_dataset: Dataset | ExampleSet | None = None,
        eval_dataset: Dataset | ExampleSet | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        name = str(model) if isinstance(model, str) else model.config._name_or_path
        if args is None:
            args = self.config_class(f"{name.rstrip('/').split('/')[-1]}-{self._name}")
        self._check_arguments(args, train_dataset, eval_dataset, kwargs)
        check_processes(args)
        set_seed(args.seed)
        if isinstance(model, str):
            quantized = {"quantization_config": quantization_config} if quantization_config else {}
            model, quantization_config = load_model(model, args, **quantized), None
            args.model_init_kwargs = None  # used up; SFTTrainer would warn that a loaded model ignores them
        tokenizer = processing_class or load_tokenizer(name, args)
        prepare_tokenizer(model, tokenizer, args, uses_peft=peft_config is not None or isinstance(model, PeftModel))
        self.examples = self._examples(train_dataset, tokenizer, model, args, "train_dataset")
        eval_examples = None
        if eval_dataset is not None:
            eval_examples = self._examples(eval_dataset, tokenizer, model, args, "eval_dataset")
        place_for_generation(model, args)
        contexts = Path(args.output_dir) / "contexts"
        rows, self.counts = self.build_rows(model, tokenizer, self.examples, args, contexts, evaluation=False)
        assert rows is not None
        logger.info("round %d: %d rows, %s", args.round_index, len(rows), self.counts)
        own_rows, self.eval_counts = None, None
        if eval_examples is not None and args.eval_own_contexts:
            own_rows, self.eval_counts = self.build_rows(
                model, tokenizer, eval_examples, args, contexts.with_name("eval_contexts"), evaluation=True
            )
        self._own_eval_dataset = None if own_rows is None else own_rows.remove_columns("id")

        set_seed(args.seed)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=rows.remove_columns("id"),
            eval_dataset=None if eval_examples is None else reference_dataset(eval_examples).remove_columns("id"),
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            row_ids=rows,
            **kwargs,
        )

    def _check_arguments(
        self, args: SelfGenerationConfig, train_dataset: Any, eval_dataset: Any, kwargs: dict[str, Any]
    ) -> None:
        mine = type(self).__name__
        if not isinstance(args, self.config_class):
            raise ConfigError(
                f"args is a {type(args).__name__}: {mine} needs a {self.config_class.__name__} (it takes all that "
                "SFTConfig takes)"
            )
        faults = args.faults()
        if args.num_rounds > 1:
            faults.append(
                f"num_rounds is {args.num_rounds}, but one trainer trains one round: use the command line or "
                "gapbridge.rounds.run_rounds, which chain them"
            )
        if kwargs.get("formatting_func") is not None:
            faults.append("formatting_func is not supported: bring the data to `prompt` and `completion` first")
        if args.dataset_kwargs and args.dataset_kwargs.get("skip_prepare_dataset"):
            faults.append("dataset_kwargs: skip_prepare_dataset is not supported: preparing the data is the method")
        if faults:
            raise ConfigError(faults)
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if dataset is None and name == "eval_dataset":
                continue
            if not isinstance(dataset, (Dataset, ExampleSet)):
                raise DataError(
                    f"{name} is {type(dataset).__name__}: {mine} needs a datasets.Dataset or an ExampleSet"
                )

    @staticmethod
    def _examples(
        dataset: Dataset | ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        args: SelfGenerationConfig,
        source: str,
    ) -> ExampleSet:
        if isinstance(dataset, ExampleSet):
            return dataset
        return build_examples(
            dataset,
            tokenizer,
            stops=stop_tokens(tokenizer, model),
            max_length=args.max_length,
            on_bad_rows=args.on_bad_rows,
            truncate_long_rows=args.truncate_long_rows,
            num_proc=args.dataset_num_proc,
            source=source,
        )

    def evaluate(
        self, eval_dataset: Any | None = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As in [`~trl.SFTTrainer`]; without `eval_dataset` also on held-out own contexts (`eval_own_loss`)."""
        if eval_dataset is not None or self._own_eval_dataset is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        own = super().evaluate(self._own_eval_dataset, ignore_keys, f"{metric_key_prefix}_own")
        return {**own, **super().evaluate(None, ignore_keys, metric_key_prefix)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if any(key.startswith("eval_own_") for key in logs):
            # SFTTrainer would log the entropy and accuracy of this evaluation as those of the reference contexts.
            metrics = self._metrics["eval"]
            logs.update({f"eval_own_{key}": sum(values) / len(values) for key, values in metrics.items()})
            metrics.clear()
        super().log(logs, start_time)
