"""The losses of heads 2 … n, one head after another.

    L = Σ_i L_i,    L_i = -Σ_t log p_i(x_{t+i} | x_≤t)                                 (Gloeckle et al. 2024, eq. 2)

Every head reads the trunk's output z and touches nothing of another head. One after another, a head is run forward
and backward before the next, its gradient added to that at z, and the trunk goes backward once after all of them
(section 2.2 of the paper): what a head needs of memory, its logits above all, is needed once and not n times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...data.example import IGNORE_INDEX


MAX_LOGITS = 2**25  # logits that are in memory at once


@dataclass(frozen=True)
class HeadLoss:
    """A head, and what it is to predict."""

    states: Callable[[Tensor], Tensor]  # from the trunk's output [n, L, d] to what is unembedded, [n, L, d]
    unembedding: nn.Linear
    targets: Tensor  # [n, L]


def future_targets(labels: Tensor, distance: int, starts: Tensor | None = None) -> Tensor:
    """What a head `distance` tokens ahead is to predict: `[n, L]`, `labels[:, t + distance]`, -100 for nothing.

    A position has a target only if every label from the next token's to the target's carries loss and none of them
    begins another document: no target lies after a prompt, a further turn, padding or the end of a document.

    Args:
        labels: `[n, L]`, of the tokens themselves (not shifted), -100 where no loss falls.
        starts: `[n, L]`, bool: where a document begins in a packed row.
    """
    length = labels.shape[1] - distance
    targets = torch.full_like(labels, IGNORE_INDEX)
    if length < 1:
        return targets
    reachable = torch.ones_like(labels[:, :length], dtype=torch.bool)
    for step in range(1, distance + 1):
        reachable &= labels[:, step : step + length] != IGNORE_INDEX
        if starts is not None:
            reachable &= ~starts[:, step : step + length]
    targets[:, :length] = labels[:, distance:].masked_fill(~reachable, IGNORE_INDEX)
    return targets


def sequential_losses(
    states: Tensor, heads: Sequence[HeadLoss], parameters: Sequence[nn.Parameter]
) -> tuple[Tensor, Tensor]:
    """The losses, with as many positions of a head at a time as have `MAX_LOGITS` logits.

    The gradients are made in the forward pass and kept until the backward pass asks for them, where they are handed
    to autograd as those of one operation: accumulation, data-parallel wrappers and ZeRO-1 and -2 see each parameter
    once, as they do with any other operation.

    Args:
        states: `[n, L, d]`, the trunk's output.
        parameters: those of the heads and of what they share, that are to learn.

    Returns:
        Σ_i Σ_t log p_i, a scalar; and `[heads, 3]`, of each head Σ_t log p_i, how many targets are its likeliest
        token, and how many targets there are.
    """
    total, figures = _InSequence.apply(states, tuple(heads), torch.is_grad_enabled(), *parameters)
    return total, figures


class _InSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, heads: tuple[HeadLoss, ...], wanted: bool, *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        trunk = states.detach().requires_grad_(wanted)  # the same numbers, outside the trunk's graph
        gradients = _Gradients([trunk, *parameters])
        figures = []
        for head in heads:
            with torch.set_grad_enabled(wanted):
                chosen = head.targets != IGNORE_INDEX
                hidden = head.states(trunk)[chosen]  # [k, d]
            figure, slope = _unembedded(hidden.detach(), head, gradients if wanted else None, chosen)
            figures.append(figure)
            if wanted:
                gradients.add_backward(hidden, slope.to(hidden.dtype))
        ctx.gradients = gradients.found if wanted else None
        stacked = torch.stack(figures)
        ctx.mark_non_differentiable(stacked)
        return stacked[:, 0].sum(), stacked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        found, ctx.gradients = ctx.gradients, None
        states, *parameters = (None if gradient is None else gradient.mul_(upstream) for gradient in found)
        return states, None, None, *parameters


class _Gradients:
    """The sums of gradients, one for each of `inputs`; None where none has come."""

    def __init__(self, inputs: list[Tensor]) -> None:
        self.inputs = inputs
        self.found: list[Tensor | None] = [None] * len(inputs)
        self._places = {id(tensor): at for at, tensor in enumerate(inputs)}

    def of(self, tensor: Tensor) -> Tensor | None:
        """The sum for a parameter, to add to; None where it does not learn."""
        at = self._places.get(id(tensor))
        if at is None:
            return None
        if self.found[at] is None:
            self.found[at] = torch.zeros_like(tensor)
        return self.found[at]

    def add_backward(self, output: Tensor, upstream: Tensor) -> None:
        """Send the gradient `upstream` of `output` backward, to all inputs."""
        made = torch.autograd.grad(output, self.inputs, upstream, allow_unused=True)
        for at, gradient in enumerate(made):
            if gradient is None:
                continue
            before = self.found[at]
            self.found[at] = gradient.contiguous() if before is None else before.add_(gradient)


def _unembedded(hidden: Tensor, head: HeadLoss, gradients: _Gradients | None, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """A head's figures, and with `gradients` ∂ Σ log p / ∂ hidden `[k, d]`; that of the unembedding is added to them.

    With p = softmax(W h + b) and a target y: ∂ log p_y / ∂ logits = onehot(y) - p, so that the logits' own memory
    becomes that of their gradient.
    """
    weight, bias = head.unembedding.weight, head.unembedding.bias
    of_weight = gradients.of(weight) if gradients else None
    of_bias = gradients.of(bias) if gradients and bias is not None else None
    targets = head.targets[chosen]
    cast = _compute_dtype(hidden)
    if cast is not None:
        hidden, weight = hidden.to(cast), weight.to(cast)
    hidden_grad = torch.empty_like(hidden)
    total = correct = torch.zeros((), device=hidden.device)
    chunk = max(1, MAX_LOGITS // len(weight))
    for start in range(0, len(targets), chunk):
        part, target = hidden[start : start + chunk], targets[start : start + chunk, None]
        logits = nn.functional.linear(part, weight, None if bias is None else bias.to(part.dtype)).float()
        correct = correct + (logits.argmax(dim=-1, keepdim=True) == target).sum()
        logits.sub_(logits.logsumexp(dim=-1, keepdim=True))
        total = total + logits.gather(1, target).sum()
        if gradients is None:
            continue
        slope = logits.exp_().neg_().scatter_add_(1, target, torch.ones_like(target, dtype=logits.dtype))
        slope = slope.to(part.dtype)
        hidden_grad[start : start + chunk] = slope @ weight
        if of_weight is not None:
            of_weight.addmm_(slope.T.to(of_weight.dtype), part.to(of_weight.dtype))
        if of_bias is not None:
            of_bias.add_(slope.sum(dim=0))
    return _figures(total, correct, len(targets)), hidden_grad


def _compute_dtype(hidden: Tensor) -> torch.dtype | None:
    """What autocast computes products in here; None outside it."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _figures(total: Tensor, correct: Tensor, count: int) -> Tensor:
    return torch.stack([total.float(), correct.float(), torch.full_like(total, count, dtype=torch.float32)])
