"""Nothing that is not finite is learned or saved: looked for in the loss, in the gradient and in the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import TrainingError, describe
from .checkpoints import newest_marked


if TYPE_CHECKING:
    from transformers import Trainer as _Behind
else:
    _Behind = object

_NAMED = 16  # rows and weights in a message


class FiniteUpdates(_Behind):
    """Put before a TRL trainer. `row_ids` are the rows before shuffling and packing, with a column `id`: they let an
    error name rows."""

    row_ids: Dataset
    step_batches: Sequence[dict[str, Any]] = ()  # of the running step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in TRL's trainer.

        The loss is looked at here and not after `training_step`: under DeepSpeed the update is part of the backward
        pass, and would have been made by then.

        Raises:
            TrainingError: in training, the loss is not finite.
        """
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        if model.training and not torch.isfinite(loss):
            raise TrainingError(self._stopped(f"a loss of {loss.item()}", [inputs]))
        return result

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """As in TRL's trainer; after the last batch of a step the gradient is looked at.

        Raises:
            TrainingError: its norm is not finite.
        """
        loss: Tensor = super().training_step(model, *args, **kwargs)
        # A scaler finds infinite gradients itself, and makes no update with them.
        if self.accelerator.sync_gradients and self.accelerator.mixed_precision != "fp16":
            gradient_norm = self._gradient_norm(model)
            if not math.isfinite(gradient_norm):
                raise TrainingError(self._stopped(f"a gradient norm of {gradient_norm}", self.step_batches))
        return loss

    def _gradient_norm(self, model: nn.Module) -> float:
        """Of this process's part. DeepSpeed has made its update by then, and keeps the norm."""
        if self.is_deepspeed_enabled:
            remaining = model.get_global_grad_norm()  # type: ignore[operator]
            return 0.0 if remaining is None else float(remaining)
        return _norm(weight.grad for weight in model.parameters() if weight.grad is not None)

    def check_weights(self) -> None:
        """Look at what is trained before it is saved: an update may be infinite though its gradient was not.

        Raises:
            TrainingError: a weight is not finite.
        """
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        if math.isfinite(_norm(trained.values(), order=math.inf)):
            return
        names = [name for name, weight in trained.items() if not math.isfinite(_norm([weight], order=math.inf))]
        got = f"weights that are not finite ({_listed(names)}) and are not saved"
        advice = "Lower learning_rate, or use bf16 instead of fp16"
        raise TrainingError(f"step {self.state.global_step}", got, f"finite ones ({self._kept()})", advice)

    def _stopped(self, what: str, batches: Sequence[dict[str, Any]]) -> str:
        rows = list(dict.fromkeys(row for inputs in batches for row in self._rows_in(inputs)))
        named = f"rows {_listed(rows)}" if rows else "rows that have no id"
        update = "" if self.is_deepspeed_enabled and "gradient" in what else " before any update with it"
        got, expected = f"{what}{update}", f"a finite number ({self._kept()})"
        advice = "Lower learning_rate or max_grad_norm, use bf16 instead of fp16, or check these rows"
        return describe(f"step {self.state.global_step + 1}, a batch with {named}", got, expected, advice)

    def _kept(self) -> str:
        checkpoint = newest_marked(Path(self.args.output_dir))
        return f"the last complete checkpoint is {checkpoint}" if checkpoint else "there is no complete checkpoint"

    @classmethod
    def tokens_of(cls, row: dict[str, Any]) -> list[list[int]]:
        """The sequences of tokens that a row of `row_ids` is in a batch."""
        return [row["input_ids"]]

    def _rows_in(self, inputs: dict[str, Tensor | Any]) -> list[str]:
        """The ids of the rows in a batch, found by their tokens; packed and padding-free rows are taken apart
        first."""
        wanted = {tuple(ids) for ids in _documents(inputs)}
        found = [row["id"] for row in self.row_ids if any(tuple(ids) in wanted for ids in self.tokens_of(row))]
        return list(dict.fromkeys(found))


def _norm(tensors: Iterable[Tensor], order: float = 2.0) -> float:
    """The norm over all elements; of what is sharded, over this process's part."""
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    parts = [part.detach() for part in parts if part.numel() and part.is_floating_point()]
    return float(torch.nn.utils.get_total_norm(parts, order)) if parts else 0.0


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _documents(inputs: dict[str, Tensor | Any]) -> list[list[int]]:
    if "attention_mask" in inputs:
        return [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
    flat = inputs["input_ids"].flatten()
    starts = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], len(flat)]
    return [flat[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
