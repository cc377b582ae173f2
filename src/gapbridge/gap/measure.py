"""One model's gap on one set of examples: completions, passes, measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
# (rows, contexts, labels, temperatures) → the labels' scores after the prompts of these rows and the contexts.
Scorer = Callable[..., list[Scores]]


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
    excess_error: metrics.ExcessError | None
    wrong_steps: oracle.WrongSteps | None
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
    references = [example.completion_ids for example in examples]
    complete = [answer.first_completion.tokens for answer in answers]
    truncated = [not answer.first_completion.finished for answer in answers]
    # A completion's stop token is no word of the answer: what follows it was never read.
    completions = [tokens if cut else tokens[:-1] for tokens, cut in zip(complete, truncated, strict=True)]
    rows_of = {k: metrics.recovery_rows(references, completions, k) for k in sorted({0, *prefix_lengths})}
    rows_of = {k: rows for k, rows in rows_of.items() if rows}
    if not any(rows_of):
        raise DataError(
            "--prefix_lengths",
            f"no reference of more than {min(prefix_lengths)} tokens",
            "longer references",
            "Give shorter --prefix_lengths",
        )
    steps = [step for answer in answers if (step := oracle.solution_steps(answer.reference)) is not None]
    with_oracle = own_completions and len(steps) == len(answers)
    # What the model generated word for word like the reference needs no pass of its own, and disturbs by exactly 0.
    disturbed = {
        k: [i for i in rows if list(completions[i][:k]) != list(references[i][:k])] for k, rows in rows_of.items()
    }
    passes = sum(map(len, disturbed.values())) + len(examples) * (3 if with_oracle else 2)
    with generation_precision(model, args), tqdm(total=passes, desc="measuring", unit="row", delay=1) as bar:

        def scored(
            rows: Sequence[int],
            contexts: Sequence[IdList],
            labels: Sequence[IdList],
            temperatures: Sequence[float] = (),
        ) -> list[Scores]:
            prompts = [examples[i].prompt for i in rows]
            options: dict[str, Any] = {"batch_size": batch_size, "on_scored": bar.update}
            return score(model, prompts, contexts, labels, temperatures=temperatures, **options)

        everyone = range(len(examples))
        forced = scored(everyone, references, references, TEMPERATURE_GRID)
        fitted = fit_temperatures(forced)
        places = [TEMPERATURE_GRID.index(temperature) for temperature in fitted]
        losses: dict[int, dict[str, Losses]] = {}
        generated: dict[int, dict[int, Scores]] = {}
        for k, rows in rows_of.items():
            contexts = [metrics.recovery_context(references[i], completions[i], k) for i in disturbed[k]]
            scores = scored(disturbed[k], contexts, [references[i] for i in disturbed[k]], fitted)
            after = dict(zip(disturbed[k], scores, strict=True))
            for i in rows:
                if i not in after:
                    after[i] = replace(forced[i], at_temperatures=forced[i].at_temperatures[places])
            losses[k] = {examples[i].id: metrics.recovery_losses(forced[i], after[i], k) for i in rows}
            if k > 0:
                generated[k] = after
        shared = [min(len(y), len(own) + 1) for y, own in zip(references, completions, strict=True)]
        free = scored(
            everyone,
            [[*own, 0][:length] for own, length in zip(completions, shared, strict=True)],
            [y[:length] for y, length in zip(references, shared, strict=True)],
        )
        excess, wrong, final = None, None, None
        if with_oracle:
            line_ends = {t for t in {t for y in references for t in y} if str(tokenizer.decode([t])).endswith("\n")}
            known = [oracle.oracle_tokens(y, own, line_ends) for y, own in zip(references, complete, strict=True)]
            own_errors = _errors(scored, known, complete)
            longest = max(map(len, references))
            lengths = [length for length in prefix_lengths if 0 < length < longest] + [longest]
            excess = metrics.excess_error(own_errors, [-scores.log_probs for scores in forced], lengths)
            first_wrong = [
                oracle.first_wrong_step(answer.first, step) for answer, step in zip(answers, steps, strict=True)
            ]
            counts = [len(step) for step in steps]
            wrong = oracle.wrong_steps(first_wrong, counts)
            right = [is_correct(answer.first, answer.reference) for answer in answers]
            final = oracle.final_answers(first_wrong, counts, right)
    ids = [example.id for example in examples]
    return GapReport(
        examples=len(examples),
        truncated=sum(truncated),
        recovery=metrics.recovery_curve(losses, ids),
        losses=prefix_losses(forced, generated, fitted, ids),
        entropy=token_mean([row.entropies for row in forced], ids),
        decisions=metrics.decision_accuracy(forced, free),
        excess_error=excess,
        wrong_steps=wrong,
        final_answers=final,
    )


def _errors(scored: Scorer, tokens: Sequence[Sequence[int | None]], completions: Sequence[IdList]) -> list[Losses]:
    """KL(oracle ‖ model) along the completions, in nats: the oracle knows one token, or nothing (NaN)."""
    labels = [[token or 0 for token in row] for row in tokens]
    known = [np.array([token is not None for token in row]) for row in tokens]
    scores = scored(range(len(completions)), completions, labels)
    return [np.where(k, -row.log_probs, np.nan) for k, row in zip(known, scores, strict=True)]
