"""The gap's measures as pure functions of token ids and log-probabilities.

y is the reference answer (T tokens), ŷ the model's own draft, x the prompt. All measures average over tokens; their
intervals resample examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..answers.intervals import Interval, column_intervals, resampled_means
from ..decoding.mode import generation_mode


IdList = Sequence[int]
_LOGITS = 2**26  # elements of one pass's logits


@dataclass(frozen=True)
class Scores:
    """One row's labels under its context: `log_probs` [T] in nats; `hits` [T], whether each is the likeliest token."""

    log_probs: NDArray[np.float64]
    hits: NDArray[np.bool_]


@torch.no_grad()
def score(
    model: PreTrainedModel,
    prompts: Sequence[IdList],
    contexts: Sequence[IdList],
    labels: Sequence[IdList],
    *,
    batch_size: int = 64,
    on_scored: Callable[[int], object] | None = None,
) -> list[Scores]:
    """log π(labels_t | x, context_<t) for every position t of every row.

    Rows are batched by length alone, so that contexts of the same lengths are scored in the same batches: equal
    contexts give equal digits.

    Args:
        prompts: [rows], the ids of x; none is empty.
        contexts, labels: [rows], of the same length T within a row. The last context token is nobody's context.
        on_scored: called with the number of newly scored rows.
    """
    lengths = [len(x) + len(y) for x, y in zip(prompts, labels, strict=True)]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    vocabulary = model.get_input_embeddings().num_embeddings
    found: list[Scores | None] = [None] * len(lengths)
    start = 0
    with generation_mode(model):
        while start < len(order):
            rows = max(1, min(batch_size, _LOGITS // (lengths[order[start]] * vocabulary)))
            chunk = order[start : start + rows]
            start += rows
            width = max(lengths[i] for i in chunk) - 1
            ids = torch.zeros(len(chunk), width, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for at, i in enumerate(chunk):
                row = [*prompts[i], *contexts[i]][:-1]
                ids[at, : len(row)] = torch.tensor(row)
                mask[at, : len(row)] = 1
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
            for at, i in enumerate(chunk):
                own = logits[at, len(prompts[i]) - 1 : lengths[i] - 1].float()
                wanted = torch.tensor(list(labels[i]), device=own.device)
                log_probs = own.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
                hits = own.argmax(-1) == wanted
                found[i] = Scores(log_probs.double().cpu().numpy(), hits.cpu().numpy())
            if on_scored is not None:
                on_scored(len(chunk))
    return [scores for scores in found if scores is not None]


def recovery_context(y: IdList, y_hat: IdList, k: int) -> list[int]:
    """ŷ_<k ⊕ y_k … y_T: the model's own first k tokens, then the reference."""
    return [*y_hat[:k], *y[k:]]


def recovery_rows(references: Sequence[IdList], drafts: Sequence[IdList], k: int) -> list[int]:
    """The examples that Δ(k) is taken over: own prefix and reference both reach beyond k tokens."""
    return [i for i, (y, own) in enumerate(zip(references, drafts, strict=True)) if len(y) > k and len(own) >= k]


def recovery_losses(reference: Scores, disturbed: Scores, k: int) -> NDArray[np.float64]:
    """log π(y_t | x, y_<t) - log π(y_t | x, ŷ_<k, y_k … y_t-1) for t ≥ k: [T - k], in nats."""
    return reference.log_probs[k:] - disturbed.log_probs[k:]


@dataclass(frozen=True)
class RecoveryCurve:
    """Δ(k) in nats per token with its interval, and over how many examples, for each k."""

    k: list[int]
    delta: list[Interval]
    examples: list[int]
    mean: Interval  # over the tokens of all k ≥ 1


def recovery_curve(losses: dict[int, dict[int, NDArray[np.float64]]], count: int, *, seed: int = 0) -> RecoveryCurve:
    """Δ(k) = mean over tokens t ≥ k of `recovery_losses`.

    Args:
        losses: k → example → losses [T - k].
        count: the number of examples; they are resampled together for all k.
    """
    ks = sorted(losses)
    values, weights = np.zeros((count, len(ks))), np.zeros((count, len(ks)))
    for column, k in enumerate(ks):
        for example, tokens in losses[k].items():
            values[example, column], weights[example, column] = tokens.mean(), len(tokens)
    later = [column for column, k in enumerate(ks) if k > 0]
    total = weights[:, later].sum(1)
    per_example = np.divide((values * weights)[:, later].sum(1), total, out=np.zeros(count), where=total > 0)
    return RecoveryCurve(
        ks,
        column_intervals(values, weights, seed=seed),
        [int((weights[:, column] > 0).sum()) for column in range(len(ks))],
        column_intervals(per_example[:, None], total[:, None], seed=seed)[0],
    )


@dataclass(frozen=True)
class DecisionAccuracy:
    """Share of positions at which the likeliest token is the reference's, by position.

    start, end: the bins of positions, counted from 0, `end` excluded; bins that fewer than a tenth of the examples
    reach are left out. teacher_forced: with the reference as context;
    free_running: with the model's own draft, where it still runs. drop: teacher_forced - free_running at those same
    positions, over all bins.
    """

    start: list[int]
    end: list[int]
    teacher_forced: list[Interval]
    free_running: list[Interval]
    examples: list[int]
    drop: Interval


def decision_accuracy(
    forced: Sequence[Scores], free: Sequence[Scores], *, bins: int = 16, seed: int = 0
) -> DecisionAccuracy:
    """The same decision, the token at position t, with reference context and with own context.

    Args:
        forced: [examples], the references scored behind themselves.
        free: [examples], the references scored behind the drafts, up to the shorter of the two.
    """
    longest = max(len(scores.hits) for scores in free)
    edges = np.unique(np.linspace(0, longest, min(bins, longest) + 1).round().astype(int))
    shape = (len(free), len(edges) - 1)
    own, reference, weights = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for example, (a, b) in enumerate(zip(forced, free, strict=True)):
        for column, (start, end) in enumerate(itertools.pairwise(edges)):
            part = slice(start, min(end, len(b.hits)))
            if part.stop > part.start:
                own[example, column], reference[example, column] = b.hits[part].mean(), a.hits[part].mean()
                weights[example, column] = part.stop - part.start
    reached = int(((weights > 0).sum(0) >= len(free) / 10).sum())  # a longer answer reaches every earlier bin
    own, reference, weights = own[:, :reached], reference[:, :reached], weights[:, :reached]
    edges = edges[: reached + 1]
    total = weights.sum(1)
    drop = np.divide(((reference - own) * weights).sum(1), total, out=np.zeros(len(free)), where=total > 0)
    return DecisionAccuracy(
        edges[:-1].tolist(),
        edges[1:].tolist(),
        column_intervals(reference, weights, seed=seed),
        column_intervals(own, weights, seed=seed),
        (weights > 0).sum(0).tolist(),
        column_intervals(drop[:, None], total[:, None], seed=seed)[0],
    )


@dataclass(frozen=True)
class ExcessError:
    """ExAccErr(l) in per cent: how much more a model errs behind its own words, over the first l positions."""

    length: list[int]
    excess: list[Interval]


def excess_error(
    own: Sequence[NDArray[np.float64]],
    reference: Sequence[NDArray[np.float64]],
    lengths: Sequence[int],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ExcessError:
    """ExAccErr(l) = (KL on own contexts / KL on reference contexts - 1) · 100 % (Arora et al. 2022).

    Args:
        own, reference: [examples], KL(oracle ‖ model) at each position in nats; NaN where the oracle says nothing.
        lengths: the l to report.
    """
    count = len(own)
    excess = []
    for length in lengths:
        means = []
        for rows in (own, reference):
            values, weights = np.zeros((count, 1)), np.zeros((count, 1))
            for example, row in enumerate(rows):
                known = row[:length][~np.isnan(row[:length])]
                if len(known):
                    values[example], weights[example] = known.mean(), len(known)
            # The same seed draws the same examples for both: the ratio is of one resampled set.
            draws = resampled_means(values, weights, resamples=resamples, seed=seed)[:, 0]
            means.append(np.append(draws, (values * weights).sum() / weights.sum()))
        ratio = 100 * (means[0] / means[1] - 1)
        low, high = np.nanquantile(ratio[:-1], [0.025, 0.975])
        excess.append(Interval(float(ratio[-1]), float(low), float(high)))
    return ExcessError(list(lengths), excess)
