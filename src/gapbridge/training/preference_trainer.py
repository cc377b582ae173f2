"""Methods on pairs of answers: what lies between `GapTrainerMixin` and TRL's `DPOTrainer`.

    class SPINTrainer(PreferenceTrainerMixin, DPOTrainer): ...

A row is a prompt and two answers to it, as token ids. `DPOTrainer` tokenises text; here ids go in and stay what they
are.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from trl import DPOTrainer

from ..decoding.model_state import is_sharded
from .arguments import named_arguments
from .dataset_builder import BuiltDataset
from .evaluation import LOSS_KEY
from .method import GapTrainerMixin
from .rows import Row, masked_row


PAIR_FEATURES = Features(
    {
        "id": Value("string"),
        "prompt_ids": List(Value("int32")),
        "chosen_ids": List(Value("int32")),
        "rejected_ids": List(Value("int32")),
        "sampled": List(Value("bool")),
    }
)


def pair_row(
    row_id: str,
    prompt: Sequence[int],
    chosen: Sequence[int],
    rejected: Sequence[int],
    sampled: Sequence[bool] | None = None,
) -> Row:
    """A row of the columns that TRL's `DPOTrainer` makes of text, with its id.

    Args:
        prompt, chosen, rejected: P, C and R ids. The loss falls on all of the answers and on nothing of the prompt.
        sampled: R flags: which tokens of the rejected answer the model itself wrote; None for none.
    """
    return {
        "id": row_id,
        "prompt_ids": list(prompt),
        "chosen_ids": list(chosen),
        "rejected_ids": list(rejected),
        "sampled": [False] * len(rejected) if sampled is None else list(sampled),
    }


class PreferenceTrainerMixin(GapTrainerMixin):
    """A method on pairs of answers, before TRL's `DPOTrainer`.

    Where TRL would load the reference model again from the model's name, it is a copy of the weights that the trainer
    starts from: so it is the same model whatever `revision`, path or memory that came from. With a new adapter it is
    the model with the adapter off, and with an adapter that is trained on, TRL's frozen copy of that.

    Args:
        model, *positional: in the order of TRL's `DPOTrainer`, or without its `ref_model`, the configuration second.
        **given: `ref_model`, another reference model, and what [`~gapbridge.training.method.GapTrainerMixin`] takes.
    """

    sft_equivalent_config: ClassVar[dict[str, Any]] = {"beta": 0.0}  # the loss is log 2 whatever the weights
    row_features = PAIR_FEATURES

    __signature__ = inspect.signature(DPOTrainer)

    def __init__(self, model: str | PreTrainedModel | PeftModel, *positional: Any, **given: Any) -> None:
        order = [*self.__signature__.parameters][1:]
        if positional and isinstance(positional[0], TrainingArguments):
            order.remove("ref_model")
        named = named_arguments(order, positional, given)
        if named.get("ref_model") is None:  # TRL would load one by the model's name
            named.pop("ref_model", None)
        super().__init__(model, **named)

    @classmethod
    def shown_sequences(cls, row: Row) -> list[Row]:
        """The chosen completion first."""
        found = []
        for name in ("chosen", "rejected"):
            answer = row[f"{name}_ids"]
            own = row["sampled"] if name == "rejected" else [False] * len(answer)
            sampled = [*[False] * len(row["prompt_ids"]), *own]
            found.append({"id": f"{row['id']}, {name}", **masked_row(row["prompt_ids"], answer), "sampled": sampled})
        return found

    @classmethod
    def tokens_of(cls, row: dict[str, Any]) -> list[list[int]]:
        return [row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]]

    @classmethod
    def forward_equivalents_per_token(cls, args: Any) -> float:
        return super().forward_equivalents_per_token(args) + 1  # the reference model's

    @classmethod
    def figures_of(cls, args: Any) -> tuple[str, ...]:
        return (
            *super().figures_of(args), "logits/chosen", "logits/rejected", "logps/chosen", "logps/rejected",
            "rewards/accuracies", "rewards/chosen", "rewards/margins", "rewards/rejected",
        )  # fmt: skip

    @classmethod
    def trainer_arguments(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        peft_config: PeftConfig | None,
    ) -> dict[str, Any]:
        # What is sharded cannot be copied: TRL loads it again, sharded. Precomputed log-probabilities need no copy.
        adapted = peft_config is not None or isinstance(model, PeftModel)
        if adapted or args.precompute_ref_log_probs or is_sharded(model):
            return {}
        return {"ref_model": copy.deepcopy(model).requires_grad_(False)}

    @classmethod
    def requires_eager_rows(cls, args: Any) -> bool:
        return bool(args.precompute_ref_log_probs)

    @classmethod
    def is_prepared(cls, dataset: Any) -> bool:
        """Pairs of ids are as well; TRL 1.16 prepares text only, and would miss its columns."""
        columns = dataset.column_names if isinstance(dataset, Dataset) else []
        return super().is_prepared(dataset) or set(cls.trained_columns()) <= set(columns)

    def evaluation_weights(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor]:
        """The loss and rewards are means over pairs, what is said of tokens over those of the answers it is about."""
        tokens = inputs["completion_mask"][:, 1:].sum(dim=1)  # of each answer, the chosen ones first
        chosen, rejected = (part.sum() for part in tokens.chunk(2))
        return {
            LOSS_KEY: torch.tensor(len(tokens) // 2, device=tokens.device),
            "entropy": chosen + rejected,
            "mean_token_accuracy": chosen,
            "logits/chosen": chosen,
            "logits/rejected": rejected,
        }

    def _prepare(self, rows: BuiltDataset, part: str) -> Dataset:
        return rows.table.select_columns(self.trained_columns())
