"""The losses behind the gap, in nats per token: after the reference and after generated prefixes.

A model can lose less after generated prefixes because it recovers, or because its distribution is flatter everywhere.
The losses at a fitted temperature tell the two apart. It is fitted by halves: the examples in even places have one
that minimizes the loss after the reference of those in odd places, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..intervals import Interval, column_intervals
from .gap_metrics import token_means
from .logprobs import Scores


TEMPERATURE_GRID = tuple(2 ** (step / 32) for step in range(-32, 33))  # 0.5 to 2, in steps of 2.2 %
AT_ONE, AT_FIT = "temperature_1", "fitted_temperature"
REFERENCE, GENERATED = "after_reference", "after_generated"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class TokenMean:
    """A mean over tokens in nats with its interval over examples, of how many examples, and each example's mean."""

    mean: Interval
    examples: int
    by_example: dict[str, float]


@dataclass(frozen=True)
class PrefixLosses:
    """A model's losses at temperature 1 (`AT_ONE`) and, of two examples or more, at the fitted one (`AT_FIT`).

    overall: temperature → `REFERENCE`, all tokens after the reference prefix; `GENERATED`, the tokens t ≥ k after
        ŷ_<k, for all k ≥ 1 together, each token once for each k.
    by_prefix_length: temperature → k → the tokens t ≥ k after ŷ_<k.
    fitted_temperatures: of the examples in even places, and of those in odd places; empty of one example.
    """

    overall: dict[str, dict[str, TokenMean]]
    by_prefix_length: dict[str, dict[str, TokenMean]]
    fitted_temperatures: list[float]


def fit_temperatures(reference: Sequence[Scores]) -> list[float]:
    """The temperatures of the examples in even and in odd places, each with the least loss over the other half.

    Args:
        reference: [examples], the references scored after themselves at `TEMPERATURE_GRID`.
    """
    if len(reference) < 2:
        return []
    sums = np.array([scores.at_temperatures.sum(1) for scores in reference])  # [examples, temperatures]
    return [TEMPERATURE_GRID[int(sums[other::2].sum(0).argmax())] for other in (1, 0)]


def prefix_losses(
    reference: Sequence[Scores],
    generated: Mapping[int, Mapping[int, Scores]],
    fitted: Sequence[float],
    ids: Sequence[str],
) -> PrefixLosses:
    """All losses of one model.

    Args:
        reference: [examples], the references scored after themselves at `TEMPERATURE_GRID`.
        generated: k → place of the example → its reference scored after ŷ_<k, at the `fitted` temperatures.
        fitted: from `fit_temperatures`.
        ids: of all examples; they are resampled together.
    """
    none = np.zeros(0)
    losses = {AT_ONE: [-row.log_probs for row in reference]}
    after = {AT_ONE: {k: {i: -row.log_probs[k:] for i, row in rows.items()} for k, rows in generated.items()}}
    if fitted:
        places = [TEMPERATURE_GRID.index(temperature) for temperature in fitted]
        losses[AT_FIT] = [-row.at_temperatures[places[i % 2]] for i, row in enumerate(reference)]
        after[AT_FIT] = {
            k: {i: -row.at_temperatures[i % 2, k:] for i, row in rows.items()} for k, rows in generated.items()
        }
    overall: dict[str, dict[str, TokenMean]] = {}
    by_length: dict[str, dict[str, TokenMean]] = {}
    for temperature, by_k in after.items():
        every = [np.concatenate([none, *(rows.get(i, none) for rows in by_k.values())]) for i in range(len(ids))]
        overall[temperature] = {
            REFERENCE: token_mean(losses[temperature], ids),
            GENERATED: token_mean(every, ids),
        }
        by_length[temperature] = {
            str(k): token_mean([rows.get(i, none) for i in range(len(ids))], ids) for k, rows in by_k.items()
        }
    return PrefixLosses(overall, by_length, list(fitted))


def token_mean(values: Sequence[Values], ids: Sequence[str]) -> TokenMean:
    """The mean over the tokens of all examples; an example without tokens is left out.

    Args:
        values: [examples], one number for each token.
    """
    means, tokens = token_means([[row] for row in values])
    by_example = {key: float(means[i, 0]) for i, key in enumerate(ids) if tokens[i, 0]}
    return TokenMean(column_intervals(means, tokens)[0], len(by_example), by_example)
