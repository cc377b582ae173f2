"""Guards on a TRL trainer: a non-finite loss stops it before the update; it resumes from whole checkpoints only."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainerCallback

from ..compat import rotate_checkpoints
from ..errors import ConfigError, RunError, TrainingError, refusals
from ..files import new_directory, writing
from .checkpoints import SaveAfterEvaluation, StopAtLastStep, last_complete_checkpoint, mark_complete
from .epoch_order import OrderedByEpoch
from .parallel import CheckSharding, check_accelerator
from .starting import starting_faults


class Guards(OrderedByEpoch):
    """Put before a TRL trainer. `row_ids` are the rows before shuffling and packing, with a column `id`: they let an
    error name rows.

    Args:
        callbacks, **kwargs: as for the trainer behind.

    Raises:
        ConfigError: the trainer behind refuses an option, or would when training starts. RunError: the processes do
        not work together. Nothing is left on disk then.
    """

    row_ids: Dataset | None = None

    def __init__(self, *args: Any, callbacks: list[TrainerCallback] | None = None, **kwargs: Any) -> None:
        settings = kwargs["args"]
        # transformers makes it too, before it has refused everything.
        with new_directory(Path(settings.output_dir)) if settings.should_save else nullcontext():
            with refusals():
                super().__init__(
                    *args,
                    callbacks=[CheckSharding(), SaveAfterEvaluation(), StopAtLastStep(), *(callbacks or [])],
                    **kwargs,
                )
            check_accelerator(self.args, self.accelerator, self.model)
            faults = starting_faults(
                self.args,
                self.model,
                own_optimizer=self.optimizer is not None or self.optimizer_cls_and_kwargs is not None,
                metrics=None if self.compute_metrics is not None else self.own_metrics(),
            )
            if faults:
                raise ConfigError(faults)

    def own_metrics(self) -> list[str] | None:
        """The metrics that evaluations return without `compute_metrics`, without their `eval_`; None: not known."""
        return None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in the trainer behind.

        The loss is looked at here and not behind `training_step`: under DeepSpeed the update is part of the backward
        pass, and would have been made by then.

        Raises:
            TrainingError: in training, the loss is not finite.
        """
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        if model.training and not torch.isfinite(loss):
            rows = self._rows_in(inputs)
            named = f"rows {', '.join(rows)}" if rows else "rows that have no id"
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}, in a batch with {named}. No update "
                "was made with it. The last complete checkpoint is good; lower learning_rate or max_grad_norm, use "
                "bf16 rather than fp16, or look at these rows"
            )
        return result

    @classmethod
    def tokens_of(cls, row: dict[str, Any]) -> list[list[int]]:
        """The sequences of tokens that a row of `row_ids` is in a batch."""
        return [row["input_ids"]]

    def _rows_in(self, inputs: dict[str, Tensor | Any]) -> list[str]:
        """The ids of the rows in a batch, found by their tokens; packed and padding-free rows are taken apart
        first."""
        if self.row_ids is None:
            return []
        wanted = {tuple(ids) for ids in _documents(inputs)}
        found = [row["id"] for row in self.row_ids if any(tuple(ids) in wanted for ids in self.tokens_of(row))]
        return list(dict.fromkeys(found))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in [`~trl.SFTTrainer`], then the mark, and only then older checkpoints go: one is whole at any moment.

        Raises:
            RunError: it cannot be written.
        """
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(checkpoint):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(checkpoint, self.args.world_size, only_model=self.args.save_only_model)
            rotate_checkpoints(self)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; `True` resumes from the last *complete* checkpoint.

        Raises:
            RunError: `True` was given and there is no complete checkpoint.
        """
        if resume_from_checkpoint is True:
            checkpoint = last_complete_checkpoint(Path(self.args.output_dir))
            if checkpoint is None:
                raise RunError(f"{self.args.output_dir}: holds no complete checkpoint to resume from")
            resume_from_checkpoint = str(checkpoint)
        if resume_from_checkpoint:
            self.args.eval_on_start = False  # that evaluation has been made
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; nothing at the last step of a run, where a resumed run may begin."""
        if self.state.global_step >= self.state.max_steps:
            return [], None
        return super().get_batch_samples(*args, **kwargs)


def _documents(inputs: dict[str, Tensor | Any]) -> list[list[int]]:
    if "attention_mask" in inputs:
        return [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
    flat = inputs["input_ids"].flatten()
    starts = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], len(flat)]
    return [flat[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
