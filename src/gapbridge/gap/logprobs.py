"""The one forward pass of every measure: how likely a model finds given labels after given contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ..compat import vocabulary_size
from ..decoding.model_state import generation_mode
from ..decoding.parallel_sampling import padded_forward_logits_at


IdList = Sequence[int]
_LOGITS = 2**26  # elements of one pass's logits


@dataclass(frozen=True)
class Scores:
    """One row's labels under its context.

    log_probs [T]: in nats. hits [T]: whether each label is the likeliest token. at_temperatures [temperatures, T]:
    `log_probs` after the logits are divided by each temperature that was asked for. entropies [T]: of the model's
    distribution at each position, in nats; empty where no temperature was asked for.
    """

    log_probs: NDArray[np.float64]
    hits: NDArray[np.bool_]
    entropies: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    at_temperatures: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


def batches(lengths: Sequence[int], vocabulary: int, batch_size: int) -> Iterator[list[int]]:
    """The rows of each pass, the longest first: at most `batch_size`, and no more than their logits take room for."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        rows = max(1, min(batch_size, _LOGITS // (lengths[order[start]] * vocabulary)))
        yield order[start : start + rows]
        start += rows


@torch.no_grad()
def score(
    model: PreTrainedModel,
    prompts: Sequence[IdList],
    contexts: Sequence[IdList],
    labels: Sequence[IdList],
    *,
    temperatures: Sequence[float] = (),
    batch_size: int = 64,
    on_scored: Callable[[int], object] | None = None,
) -> list[Scores]:
    """log π(labels_t | x, context_<t) for every position t of every row.

    Rows are batched by length alone, so that contexts of the same lengths are scored in the same batches: equal
    contexts give equal digits.

    Args:
        prompts: [rows], the ids of x; none is empty.
        contexts, labels: [rows], of the same length T within a row. The last context token is no label's context.
        temperatures: at which the labels are scored besides temperature 1; with any the entropies are made, too.
        on_scored: called with the number of newly scored rows.
    """
    lengths = [len(x) + len(y) for x, y in zip(prompts, labels, strict=True)]
    vocabulary = vocabulary_size(model)
    found: list[Scores | None] = [None] * len(lengths)
    with generation_mode(model):
        for chunk in batches(lengths, vocabulary, batch_size):
            ids = [torch.tensor([*prompts[i], *contexts[i]][:-1], device=model.device) for i in chunk]
            fed = torch.tensor([len(row) for row in ids], device=model.device)
            counts = [len(labels[i]) for i in chunk]
            columns = [torch.arange(len(prompts[i]) - 1, lengths[i] - 1, device=model.device) for i in chunk]
            rows = torch.arange(len(chunk), device=model.device).repeat_interleave(fed.new_tensor(counts))
            # The vocabulary is wide and prompts are long: their logits would take longer than the labels' own.
            logits = padded_forward_logits_at(
                model, pad_sequence(ids, batch_first=True), fed, (rows, torch.cat(columns))
            )
            for i, of_row in zip(chunk, logits.split(counts), strict=True):
                own = of_row.float()
                wanted = torch.tensor(list(labels[i]), device=own.device)
                hits = own.argmax(-1) == wanted
                tempered = _at_temperatures(own, wanted, temperatures)
                distribution = own.log_softmax(-1)
                log_probs = distribution.gather(1, wanted[:, None])[:, 0]
                entropies = torch.special.entr(distribution.exp()).sum(-1) if temperatures else own.new_zeros(0)
                log_probs, entropies, tempered = (x.double().cpu() for x in (log_probs, entropies, tempered))
                found[i] = Scores(log_probs.numpy(), hits.cpu().numpy(), entropies.numpy(), tempered.numpy())
            if on_scored is not None:
                on_scored(len(chunk))
    return [scores for scores in found if scores is not None]


def _at_temperatures(logits: torch.Tensor, labels: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """log-probabilities [temperatures, T] of `labels` [T] under `logits` [T, vocabulary]."""
    found = torch.empty(len(temperatures), len(labels), device=logits.device)
    if not temperatures:
        return found
    shifted = logits - logits.amax(-1, keepdim=True)  # no exponential overflows then
    chosen = shifted.gather(1, labels[:, None])[:, 0]
    for row, temperature in zip(found, temperatures, strict=True):
        # One temperature at a time: a second copy of one row's logits is all that it takes.
        row.copy_(chosen / temperature - (shifted / temperature).exp_().sum(-1).log())
    return found
