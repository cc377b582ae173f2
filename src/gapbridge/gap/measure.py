"""One model's gap on one set of examples: drafts, passes, measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..answers.answering import Answer
from ..answers.intervals import Interval
from ..contexts.fill import generation_precision
from ..errors import DataError
from ..examples.example import Example
from ..training.config import ExampleConfig
from .measures import (
    DecisionAccuracy,
    ExcessError,
    RecoveryCurve,
    Scores,
    decision_accuracy,
    excess_error,
    recovery_context,
    recovery_curve,
    recovery_losses,
    recovery_rows,
    score,
)
from .oracle import WrongSteps, first_wrong_step, oracle_tokens, steps_of, wrong_steps


@dataclass(frozen=True)
class Gap:
    """What `gapbridge gap` reports of one model; the last two are None where the task has no known oracle."""

    examples: int
    capped: int
    recovery: RecoveryCurve
    decisions: DecisionAccuracy
    excess_error: ExcessError | None
    wrong_steps: WrongSteps | None
    recovery_by_example: dict[str, float]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Gap:
        """A gap as `asdict` gave it to a file."""
        curve, decisions = dict(record["recovery"]), dict(record["decisions"])
        excess, steps = record["excess_error"], record["wrong_steps"]
        curve["delta"], curve["mean"] = _intervals(curve["delta"]), Interval(**curve["mean"])
        for key in ("teacher_forced", "free_running"):
            decisions[key] = _intervals(decisions[key])
        decisions["drop"] = Interval(**decisions["drop"])
        return cls(
            record["examples"],
            record["capped"],
            RecoveryCurve(**curve),
            DecisionAccuracy(**decisions),
            excess and ExcessError(excess["length"], _intervals(excess["excess"])),
            steps and WrongSteps(**{**steps, "hazard": _intervals(steps["hazard"])}),
            record["recovery_by_example"],
        )


def measure_gap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    answers: Sequence[Answer],
    args: ExampleConfig,
    *,
    prefix_lengths: Sequence[int],
    batch_size: int = 64,
    seed: int = 0,
) -> Gap:
    """All measures of one model.

    Args:
        examples, answers: in the same order; the answers' drafts are the model's own words.
        prefix_lengths: the k of the recovery curve; those longer than every reference are left out.
        seed: of the bootstrap.

    Raises:
        DataError: no example is long enough for any k.
    """
    prompts = [example.prompt for example in examples]
    references = [example.reference for example in examples]
    # A draft's stop token is no word of the answer: what follows it was never read.
    drafts = [_without_stop(answer.first_draft.tokens, answer.first_draft.finished) for answer in answers]
    rows_of = {k: recovery_rows(references, drafts, k) for k in sorted({0, *prefix_lengths})}
    rows_of = {k: rows for k, rows in rows_of.items() if rows}
    if not any(rows_of):
        raise DataError(f"no reference is longer than {min(prefix_lengths)} tokens: give shorter --prefix_lengths")
    line_ends = _line_ends(tokenizer, references)
    steps = [steps_of(answer.reference) for answer in answers]
    with_oracle = all(step is not None for step in steps)
    twice = sum(len(rows) for k, rows in rows_of.items() if k > 0)  # behind the reference and behind the own prefix
    passes = len(rows_of[0]) + 2 * twice + len(examples) * (2 if with_oracle else 1)
    with (
        generation_precision(model, args),
        tqdm(total=passes, desc="measuring", unit="row", delay=1) as bar,
    ):

        def scored(contexts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], rows: Sequence[int]) -> Any:
            return score(
                model, [prompts[i] for i in rows], contexts, labels, batch_size=batch_size, on_scored=bar.update
            )

        everyone = range(len(examples))
        losses = {}
        forced: list[Scores] = []
        for k, rows in rows_of.items():
            contexts = [recovery_context(references[i], drafts[i], k) for i in rows]
            disturbed = scored(contexts, [references[i] for i in rows], rows)
            if k == 0:
                forced = disturbed
            # The reference in the batches of these rows, so that an undisturbed row differs by exactly 0.
            plain = forced if k == 0 else scored([references[i] for i in rows], [references[i] for i in rows], rows)
            losses[k] = {i: recovery_losses(a, b, k) for i, a, b in zip(rows, plain, disturbed, strict=True)}
        shared = [min(len(y), len(own) + 1) for y, own in zip(references, drafts, strict=True)]
        free = scored(
            [[*own, 0][:length] for own, length in zip(drafts, shared, strict=True)],
            [y[:length] for y, length in zip(references, shared, strict=True)],
            everyone,
        )
        excess = None
        if with_oracle:
            complete = [answer.first_draft.tokens for answer in answers]
            oracle = [oracle_tokens(y, own, line_ends) for y, own in zip(references, complete, strict=True)]
            behind_own = scored(
                complete, [[0 if token is None else token for token in row] for row in oracle], everyone
            )
            own_kl = [
                np.where([token is None for token in row], np.nan, -scores.log_probs)
                for row, scores in zip(oracle, behind_own, strict=True)
            ]
            longest = max(len(y) for y in references)
            lengths = [length for length in prefix_lengths if 0 < length < longest] + [longest]
            excess = excess_error(own_kl, [-scores.log_probs for scores in forced], lengths, seed=seed)
    known_steps = [step for step in steps if step is not None]
    by_example = {
        examples[i].id: float(np.mean(np.concatenate([losses[k][i] for k in losses if k > 0 and i in losses[k]])))
        for i in everyone
        if any(k > 0 and i in losses[k] for k in losses)
    }
    return Gap(
        examples=len(examples),
        capped=sum(not answer.first_draft.finished for answer in answers),
        recovery=recovery_curve(losses, len(examples), seed=seed),
        decisions=decision_accuracy(forced, free, seed=seed),
        excess_error=excess,
        wrong_steps=wrong_steps(
            [first_wrong_step(answer.first, step) for answer, step in zip(answers, known_steps, strict=True)],
            [len(step) for step in known_steps],
            seed=seed,
        )
        if with_oracle
        else None,
        recovery_by_example=by_example,
    )


def _intervals(records: list[dict[str, float]]) -> list[Interval]:
    return [Interval(**record) for record in records]


def _without_stop(tokens: list[int], finished: bool) -> list[int]:
    return tokens[:-1] if finished else tokens


def _line_ends(tokenizer: PreTrainedTokenizerBase, references: Sequence[Sequence[int]]) -> set[int]:
    return {token for y in references for token in set(y) if str(tokenizer.decode([token])).endswith("\n")}
