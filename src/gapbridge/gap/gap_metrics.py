"""The gap's measures as pure functions of token ids and log-probabilities.

y is the reference answer (T tokens), ŷ the model's generated completion, x the prompt. All measures average over
tokens; their intervals resample examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intervals import Interval, column_intervals, resampled_means
from .logprobs import IdList, Scores


def recovery_context(y: IdList, y_hat: IdList, k: int) -> list[int]:
    """ŷ_<k ⊕ y_k … y_T: the model's own first k tokens, then the reference."""
    return [*y_hat[:k], *y[k:]]


def recovery_rows(references: Sequence[IdList], completions: Sequence[IdList], k: int) -> list[int]:
    """The examples that Δ(k) is taken over: own prefix and reference both reach beyond k tokens."""
    return [i for i, (y, own) in enumerate(zip(references, completions, strict=True)) if len(y) > k and len(own) >= k]


def recovery_losses(reference: Scores, disturbed: Scores, k: int) -> NDArray[np.float64]:
    """log π(y_t | x, y_<t) - log π(y_t | x, ŷ_<k, y_k … y_t-1) for t ≥ k: [T - k], in nats."""
    return reference.log_probs[k:] - disturbed.log_probs[k:]


@dataclass(frozen=True)
class RecoveryCurve:
    """Δ(k) in nats per token with its interval, and over how many examples, for each k.

    mean: Δ over the tokens of all k ≥ 1; by_example: the same for each example that has any.
    """

    k: list[int]
    delta: list[Interval]
    examples: list[int]
    mean: Interval
    by_example: dict[str, float]


def recovery_curve(
    losses: Mapping[int, Mapping[str, NDArray[np.float64]]], ids: Sequence[str], *, seed: int = 0
) -> RecoveryCurve:
    """Δ(k) = mean over tokens t ≥ k of `recovery_losses`.

    Args:
        losses: k → example → losses [T - k].
        ids: of all examples; they are resampled together for all k.
    """
    ks = sorted(losses)
    none = np.zeros(0)
    values, weights = token_means([[losses[k].get(key, none) for k in ks] for key in ids])
    mean, tokens = token_means(
        [[np.concatenate([none, *(losses[k].get(key, none) for k in ks if k > 0)])] for key in ids]
    )
    return RecoveryCurve(
        ks,
        column_intervals(values, weights, seed=seed),
        (weights > 0).sum(0).tolist(),
        column_intervals(mean, tokens, seed=seed)[0],
        {key: float(mean[i, 0]) for i, key in enumerate(ids) if tokens[i, 0]},
    )


@dataclass(frozen=True)
class DecisionAccuracy:
    """Share of positions at which the likeliest token is the reference's, by position.

    start, end: the bins of positions, counted from 0, `end` excluded; bins that fewer than a tenth of the examples
    reach are left out. teacher_forced: with the reference as context;
    free_running: with the model's generated completion, where it still runs. drop: teacher_forced - free_running at
    those same positions, over all bins.
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
    """The same decision, the token at position t, with reference context and with generated context.

    Args:
        forced: [examples], the references scored after themselves.
        free: [examples], the references scored after the completions, up to the shorter of the two.
    """
    lengths = [len(scores.hits) for scores in free]
    edges = np.unique(np.linspace(0, max(lengths), min(bins, max(lengths)) + 1).round().astype(int)).tolist()
    reached = sum(sum(length > start for length in lengths) >= len(free) / 10 for start in edges[:-1])
    edges = edges[: reached + 1]  # a longer answer reaches every earlier bin
    reference = [a.hits[: min(length, edges[-1])] for a, length in zip(forced, lengths, strict=True)]
    own = [b.hits[: edges[-1]] for b in free]
    binned, weights = token_means([[row[s:e] for s, e in itertools.pairwise(edges)] for row in reference])
    binned_own, _ = token_means([[row[s:e] for s, e in itertools.pairwise(edges)] for row in own])
    drop = token_means([[a.astype(float) - b] for a, b in zip(reference, own, strict=True)])
    return DecisionAccuracy(
        edges[:-1],
        edges[1:],
        column_intervals(binned, weights, seed=seed),
        column_intervals(binned_own, weights, seed=seed),
        (weights > 0).sum(0).tolist(),
        column_intervals(*drop, seed=seed)[0],
    )


@dataclass(frozen=True)
class ExcessError:
    """ExAccErr(l) in percent: how much more a model errs after its own words, over the first l positions."""

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
    """ExAccErr(l) = (KL on generated contexts / KL on reference contexts - 1) · 100 % (Arora et al. 2022).

    Args:
        own, reference: [examples], KL(oracle ‖ model) at each position in nats; NaN where the oracle says nothing.
        lengths: the l to report.
    """

    def errors(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Mean error in [resamples + 1, lengths]; the last is that of the examples as they are."""
        values, weights = token_means([[row[:length][~np.isnan(row[:length])] for length in lengths] for row in rows])
        # The same seed samples the same examples for both: the ratio is of one resampled set.
        samples = resampled_means(values, weights, resamples=resamples, seed=seed)
        return np.vstack([samples, (values * weights).sum(0) / weights.sum(0)])

    ratio = 100 * (errors(own) / errors(reference) - 1)
    low, high = np.nanquantile(ratio[:-1], [0.025, 0.975], axis=0)
    return ExcessError(list(lengths), [Interval(*map(float, row)) for row in zip(ratio[-1], low, high, strict=True)])


def token_means(cells: Sequence[Sequence[NDArray[Any]]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of `cells` [examples][columns], each the values of some tokens: their mean (0 of none) and their number."""
    means = np.array([[cell.mean() if len(cell) else 0.0 for cell in row] for row in cells])
    return means, np.array([[float(len(cell)) for cell in row] for row in cells])
