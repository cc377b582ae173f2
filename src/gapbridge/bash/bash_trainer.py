"""The BASH trainer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from ..errors import ConfigError, DataError, RunError
from ..examples import ExampleSet, build_examples, stop_tokens
from ..loading import load_model, load_tokenizer, prepare_tokenizer
from ..trainer import GuardedSFTTrainer
from .bash_config import BASHConfig
from .contexts import MixingCounts, bash_dataset, build_contexts, reference_dataset


logger = logging.getLogger(__name__)


class BASHTrainer(GuardedSFTTrainer):
    """
    Trainer for batch-scheduled sampling (BASH): the model learns the reference token at every position of a context
    into which its own tokens are mixed.

    It takes what [`~trl.SFTTrainer`] takes. The constructor builds the contexts with the model as it is passed in, or
    finds them in `output_dir/contexts`, and [`~trl.SFTTrainer`] then trains the rows with its own loss. One trainer
    trains one round.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model to train.
        args ([`BASHConfig`], *optional*): Configuration.
        train_dataset ([`~datasets.Dataset`] or `ExampleSet`): Prompts and answers in one of the forms of
            `gapbridge.examples.build_examples`, or what that function returns.
        eval_dataset ([`~datasets.Dataset`] or `ExampleSet`, *optional*): Held-out data in the same form. Gives
        `eval_loss` on
            reference contexts and `eval_own_loss` on contexts mixed like the training ones.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): The tokenizer.
        data_collator, callbacks, optimizers, quantization_config, peft_config, **kwargs: as for [`~trl.SFTTrainer`].

    Raises:
        ConfigError, DataError, StoreError: see `gapbridge.errors`; nothing has been trained then.
    """

    _tag_names = ["trl", "bash", "gapbridge"]
    _name = "BASH"
    _paper = {
        "title": "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
        "id": "2410.14655",
        "citation": (
            "@article{cen2025bridging,\n"
            "    title   = {{Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens}},\n"
            "    author  = "
            "{Cen, Zhepeng and Liu, Yao and Zeng, Siliang and Chaudhari, Pratik and Rangwala, Huzefa and "
            "Karypis, George and Fakoor, Rasool},\n"
            "    journal = {Transactions on Machine Learning Research},\n"
            "    year    = 2025\n"
            "}"
        ),
    }

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: BASHConfig | None = None,
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
        args = BASHConfig(f"{name.rstrip('/').split('/')[-1]}-BASH") if args is None else args
        self._check_arguments(args, train_dataset, eval_dataset, kwargs)
        set_seed(args.seed)
        if isinstance(model, str):
            model = load_model(
                model, args, **({"quantization_config": quantization_config} if quantization_config else {})
            )
            quantization_config = None
            args.model_init_kwargs = None  # used up; SFTTrainer would warn that a loaded model ignores them
        tokenizer = processing_class or load_tokenizer(name, args)
        uses_peft = peft_config is not None or isinstance(model, PeftModel)
        prepare_tokenizer(model, tokenizer, args, uses_peft=uses_peft)
        self.examples = self._examples(train_dataset, tokenizer, model, args, "train_dataset")
        eval_examples = None
        if eval_dataset is not None:
            eval_examples = self._examples(eval_dataset, tokenizer, model, args, "eval_dataset")
        if is_deepspeed_zero3_enabled():
            raise RunError(
                "ZeRO-3 shards the weights while they are loaded, and contexts are made with whole weights: use ddp "
                "or zero2"
            )
        if "hf_device_map" not in vars(model) and not _is_quantized(model):  # those are in place already
            model.to(args.device)

        contexts = Path(args.output_dir) / "contexts"
        store = build_contexts(model, tokenizer, self.examples, args, contexts)
        rows, self.counts = bash_dataset(self.examples, store)
        logger.info(
            "round %d: %d contexts, %.1f %% of the answer tokens sampled, %.1f %% differ from the reference",
            args.round_index, len(rows), 100 * self.counts.share_sampled, 100 * self.counts.share_differing,
        )  # fmt: skip
        self.eval_counts: MixingCounts | None = None
        own_rows: Dataset | None = None
        if eval_examples is not None and args.eval_own_contexts and args.mixture_coefficient > 0:
            eval_store = build_contexts(model, tokenizer, eval_examples, args, contexts.with_name("eval_contexts"))
            own_rows, self.eval_counts = bash_dataset(eval_examples, eval_store)

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
        self._own_eval_dataset = None if own_rows is None else own_rows.remove_columns("id")

    @staticmethod
    def _check_arguments(args: BASHConfig, train_dataset: Any, eval_dataset: Any, kwargs: dict[str, Any]) -> None:
        if not isinstance(args, BASHConfig):
            raise ConfigError(
                f"args is a {type(args).__name__}: BASHTrainer needs a BASHConfig (it takes all that SFTConfig takes)"
            )
        faults = args.faults()
        if args.num_rounds > 1:
            faults.append(
                f"num_rounds is {args.num_rounds}, but one trainer trains one round: use `gapbridge bash` or "
                "gapbridge.rounds.run_rounds, which chain them"
            )
        if kwargs.get("formatting_func") is not None:
            faults.append("formatting_func is not supported: bring the data to `prompt` and `completion` first")
        if args.dataset_kwargs and args.dataset_kwargs.get("skip_prepare_dataset"):
            faults.append(
                "dataset_kwargs: skip_prepare_dataset is not supported: preparing the data is what BASH does"
            )
        if faults:
            raise ConfigError(faults)
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if dataset is None and name == "eval_dataset":
                continue
            if not isinstance(dataset, (Dataset, ExampleSet)):
                raise DataError(
                    f"{name} is {type(dataset).__name__}: BASHTrainer needs a datasets.Dataset or an ExampleSet"
                )

    @staticmethod
    def _examples(
        dataset: Dataset | ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        args: BASHConfig,
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
        """As in [`~trl.SFTTrainer`]; without `eval_dataset` also on the held-out mixed contexts (`eval_own_loss`)."""
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


def _is_quantized(model: PreTrainedModel | PeftModel) -> bool:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.config.to_dict().get("quantization_config") is not None
