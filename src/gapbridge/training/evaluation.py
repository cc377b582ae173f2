"""Evaluation figures that do not depend on the batch size: losses of batches weigh by what they are means of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.example import IGNORE_INDEX


if TYPE_CHECKING:
    from transformers import Trainer as _Behind
else:
    _Behind = object

LOSS_KEY = "loss"


class EvaluationByTokens(_Behind):
    """Put before a TRL trainer: `eval_loss`, and what else TRL reports of an evaluation, are means over all tokens.

    transformers takes the mean of the batches' means, weighed by their rows, and TRL that of its other figures without
    a weight: both change with `per_device_eval_batch_size`.
    """

    _batches: list[tuple[Tensor, dict[str, Tensor]]] | None = None  # loss and weights of each, within an evaluation

    def evaluation_weights(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor]:
        """What the figures of a batch are means over, as counts, by the name that TRL gives a figure; `loss` holds for
        the loss and all that are not named."""
        if "labels" not in inputs:  # of a collator of one's own
            return {LOSS_KEY: torch.tensor(len(inputs["input_ids"]), device=inputs["input_ids"].device)}
        return {LOSS_KEY: (inputs["labels"][..., 1:] != IGNORE_INDEX).sum()}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in TRL's trainer; in an evaluation the loss is noted with its weight."""
        if self._batches is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = self._without_repeated(inputs)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        self._batches.append((loss.detach().mean(), self.evaluation_weights(inputs)))
        return result

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As in transformers, with the means taken over tokens."""
        self._batches = []
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            if self._batches:
                self._weigh(output.metrics, f"{metric_key_prefix}_{LOSS_KEY}", self._batches)
        finally:
            self._batches = None
        return output

    def _weigh(self, metrics: dict[str, float], name: str, batches: list[tuple[Tensor, dict[str, Tensor]]]) -> None:
        weights = {key: torch.stack([counts[key] for _, counts in batches]).float() for key in batches[0][1]}
        losses = torch.stack([loss for loss, _ in batches]).float()
        summed = torch.stack(
            [torch.where(weights[LOSS_KEY] > 0, losses, 0) @ weights[LOSS_KEY], weights[LOSS_KEY].sum()]
        )
        total, count = self.accelerator.reduce(summed, reduction="sum").tolist()
        if count:
            metrics[name] = total / count
        shared = {key: self.accelerator.reduce(value, reduction="sum").tolist() for key, value in weights.items()}
        figures = self._metrics["eval"]
        for key, values in figures.items():
            counts = shared.get(key, shared[LOSS_KEY])
            if len(values) == len(counts) and sum(counts):
                figures[key] = [sum(value * weight for value, weight in zip(values, counts)) / sum(counts)]

    def _without_repeated(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor | Any]:
        """The batch, its labels taken from the rows that fill up the last batches of several processes.

        Rows that TRL has packed, or put together without padding, are not known apart: there they stay.
        """
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return inputs
        if "labels" not in inputs or "attention_mask" not in inputs:
            return inputs
        labels = inputs["labels"].clone()
        labels[max(0, state.remainder - self.args.process_index * len(labels)) :] = IGNORE_INDEX
        return {**inputs, "labels": labels}
