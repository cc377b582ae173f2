"""One model's gap on one set of examples: completions, passes, measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..data.example import Example
from ..decoding.model_state import generation_precision
from ..errors import DataError
from ..evaluation.math import is_correct
from ..generation.held_out_completions import ExampleCompletions
from ..tasks import step_oracle as oracle
from . import gap_metrics as metrics
from .error_recovery import ErrorRecovery
from .logprobs import IdList, Scores, score
from .prefix_losses import TEMPERATURE_GRID, PrefixLosses, TokenMean, fit_temperatures, prefix_losses, token_mean


Losses = NDArray[np.float64]


@dataclass(frozen=True)
class GapReport:
    """What `gapbridge gap` reports of one model.

    truncated: of the completions, those cut at the length limit.
    entropy: of the model's distribution after the reference, in nats per token.
    excess_error, wrong_steps and final_answers are None where the task has no known oracle or the completions are
    another model's, forced errors where none are forced.
    """

    examples: int
    truncated: int
    recovery: metrics.RecoveryCurve
    losses: PrefixLosses
    entropy: TokenMean
    decisions: metrics.DecisionAccuracy
    excess_error: metrics.ExcessError | None = None
    wrong_steps: oracle.WrongSteps | None = None
    final_answers: oracle.FinalAnswers | None = None
    forced_errors: ErrorRecovery | None = None


def measure_gap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    answers: Sequence[ExampleCompletions],
    args: TrainingArguments,
    *,
    prefix_lengths: Sequence[int],
    own_completions: bool = True,
    batch_size: int = 64,
) -> GapReport:
    """All measures of one model but those after forced errors.

    Args:
        examples, answers: in the same order; the answers' completions are what the prefixes are taken from.
        own_completions: whether this model generated them; the oracle's measures are of a model's own completions.
        prefix_lengths: the k of the recovery curve; those longer than every reference are left out.

    Raises:
        DataError: no example is long enough for any k.
    """
    ids = [example.id for example in examples]
    references = [example.completion_ids for example in examples]
    complete = [answer.first_completion.tokens for answer in answers]
    truncated = [not answer.first_completion.finished for answer in answers]
    # A completion's stop token is no word of the answer: what follows it was never read.
    completions = [tokens if cut else tokens[:-1] for tokens, cut in zip(complete, truncated, strict=True)]
    rows_of = {k: metrics.recovery_rows(references, completions, k) for k in sorted({0, *prefix_lengths})}
    rows_of = {k: rows for k, rows in rows_of.items() if rows}
    if not any(rows_of):
        got = f"no reference of more than {min(prefix_lengths)} tokens"
        raise DataError("--prefix_lengths", got, "longer references", "Give shorter --prefix_lengths")
    steps = [own for answer in answers if (own := oracle.solution_steps(answer.reference)) is not None]
    with_oracle = own_completions and len(steps) == len(answers)
    # What the model generated word for word like the reference needs no pass of its own, and disturbs by exactly 0.
    disturbed = {
        k: [i for i in rows if list(completions[i][:k]) != list(references[i][:k])] for k, rows in rows_of.items()
    }
    passes = sum(map(len, disturbed.values())) + len(examples) * (3 if with_oracle else 2)
    bar = tqdm(total=passes, desc="measuring", unit="row", delay=1)
    with generation_precision(model, args), bar:
        scored = _Scorer(model, [example.prompt for example in examples], batch_size, bar)
        forced = scored.all(references, references, TEMPERATURE_GRID)
        fitted = fit_temperatures(forced)
        undisturbed = [_at_fitted(scores, fitted) for scores in forced]
        after: dict[int, dict[int, Scores]] = {}  # k → place of the example → its reference scored after ŷ_<k
        for k, rows in rows_of.items():
            contexts = [metrics.recovery_context(references[i], completions[i], k) for i in disturbed[k]]
            scores = scored.rows(disturbed[k], contexts, [references[i] for i in disturbed[k]], fitted)
            after[k] = {i: undisturbed[i] for i in rows} | dict(zip(disturbed[k], scores, strict=True))
        shared = [min(len(y), len(own) + 1) for y, own in zip(references, completions, strict=True)]
        free = scored.all(
            [[*own, 0][:length] for own, length in zip(completions, shared, strict=True)],
            [y[:length] for y, length in zip(references, shared, strict=True)],
        )
        by_oracle: dict[str, Any] = {}
        if with_oracle:
            line_ends = {t for t in {t for y in references for t in y} if str(tokenizer.decode([t])).endswith("\n")}
            known = [oracle.oracle_tokens(y, own, line_ends) for y, own in zip(references, complete, strict=True)]
            by_oracle = _oracle_measures(_errors(scored, known, complete), forced, answers, steps, prefix_lengths)
    losses = {
        k: {ids[i]: metrics.recovery_losses(forced[i], scores, k) for i, scores in of_k.items()}
        for k, of_k in after.items()
    }
    return GapReport(
        examples=len(examples),
        truncated=sum(truncated),
        recovery=metrics.recovery_curve(losses, ids),
        losses=prefix_losses(forced, {k: of_k for k, of_k in after.items() if k > 0}, fitted, ids),
        entropy=token_mean([row.entropies for row in forced], ids),
        decisions=metrics.decision_accuracy(forced, free),
        **by_oracle,
    )


@dataclass(frozen=True)
class _Scorer:
    """`score` with one model, for examples by their places in `prompts`; `bar` counts the rows."""

    model: PreTrainedModel
    prompts: Sequence[IdList]
    batch_size: int
    bar: tqdm[Any]

    def rows(
        self,
        places: Sequence[int],
        contexts: Sequence[IdList],
        labels: Sequence[IdList],
        temperatures: Sequence[float] = (),
    ) -> list[Scores]:
        """The `labels` after the prompts at these `places` and the `contexts`."""
        prompts = [self.prompts[i] for i in places]
        how: dict[str, Any] = {"batch_size": self.batch_size, "on_scored": self.bar.update}
        return score(self.model, prompts, contexts, labels, temperatures=temperatures, **how)

    def all(
        self, contexts: Sequence[IdList], labels: Sequence[IdList], temperatures: Sequence[float] = ()
    ) -> list[Scores]:
        return self.rows(range(len(self.prompts)), contexts, labels, temperatures)


def _at_fitted(reference: Scores, fitted: Sequence[float]) -> Scores:
    """The scores of a reference after itself, at the `fitted` temperatures alone."""
    places = [TEMPERATURE_GRID.index(temperature) for temperature in fitted]
    return replace(reference, at_temperatures=reference.at_temperatures[places])


def _oracle_measures(
    own_errors: Sequence[Losses],
    forced: Sequence[Scores],
    answers: Sequence[ExampleCompletions],
    steps: Sequence[Sequence[str]],
    prefix_lengths: Sequence[int],
) -> dict[str, Any]:
    """The measures of a report that the oracle of word problems gives.

    Args:
        own_errors: from `_errors`, of the completions.
        steps: of the references' solutions.
    """
    longest = max(len(scores.log_probs) for scores in forced)
    lengths = [length for length in prefix_lengths if 0 < length < longest] + [longest]
    first_wrong = [oracle.first_wrong_step(answer.first, own) for answer, own in zip(answers, steps, strict=True)]
    counts = [len(own) for own in steps]
    right = [is_correct(answer.first, answer.reference) for answer in answers]
    return {
        "excess_error": metrics.excess_error(own_errors, [-scores.log_probs for scores in forced], lengths),
        "wrong_steps": oracle.wrong_steps(first_wrong, counts),
        "final_answers": oracle.final_answers(first_wrong, counts, right),
    }


def _errors(scored: _Scorer, tokens: Sequence[Sequence[int | None]], completions: Sequence[IdList]) -> list[Losses]:
    """KL(oracle ‖ model) along the completions, in nats: the oracle knows one token, or nothing (NaN)."""
    labels = [[token or 0 for token in row] for row in tokens]
    known = [np.array([token is not None for token in row]) for row in tokens]
    scores = scored.all(completions, labels)
    return [np.where(k, -row.log_probs, np.nan) for k, row in zip(known, scores, strict=True)]
