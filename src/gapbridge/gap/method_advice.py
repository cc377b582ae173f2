"""What a probe of the starting model says about the methods: rules with their thresholds, from exploratory runs.

The thresholds are rules of thumb, not laws: docs/research/gap-definitions.md says where they come from. A
comparison on one's own data decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..training.stats import MIN_REPLACED_FRAC


UNTRAINED = 0.3  # token F1 of completions: below, the model does not answer in the references' form
MANY_TRUNCATED = 0.5  # of the completions: above, the model does not know how an answer ends
OFTEN_RIGHT = 0.5  # of the completions: below, an answer that comes before its working leaves much to correct
NEVER_RECOVERED = (
    0.05  # of the tokens after a forced error: below, there is no way back that training could strengthen
)
ALWAYS_RECOVERED = 0.95  # above, there is nothing left to learn


@dataclass(frozen=True)
class ProbeResult:
    """What a probe finds, as shares; None where it is unknown.

    replaced: of the answer tokens in the contexts that would be trained on. recovered: of the reference's tokens
    after a forced error, those that are written all the same. right: of the completions, those with the right final
    answer. token_f1: of the completions. truncated: of the completions, those cut at the limit. answer_first: the
    references give the final answer before its working.
    """

    replaced: float | None
    recovered: float | None
    right: float | None
    token_f1: float
    truncated: float
    answer_first: bool


def advice(found: ProbeResult) -> str:
    """One sentence with its reason: of the rules in this order, the first that holds."""
    if found.truncated > MANY_TRUNCATED:
        return f"Train with SFT first: {_percentage(found.truncated)} of the generated completions reach the limit."
    if found.token_f1 < UNTRAINED:
        return (
            "Train with SFT first: the generated completions do not have the form of the references yet (token F1 "
            f"{_percentage(found.token_f1)})."
        )
    if found.answer_first and found.right is not None and found.right < OFTEN_RIGHT:
        return (
            f"RAC may help: the references state the answer before its reasoning, {_percentage(found.right)} of the "
            "generated completions are right, and a correction can read their reasoning."
        )
    if found.replaced is not None and found.replaced < MIN_REPLACED_FRAC:
        return (
            f"BASH would change almost nothing: {_percentage(found.replaced)} of the tokens are replaced, because the "
            "model samples the reference tokens."
        )
    if found.recovered is None:
        return "No advice: the references are too short for a forced error."
    if found.recovered > ALWAYS_RECOVERED:
        return (
            f"Little to gain: after a forced error the model writes {_percentage(found.recovered)} of the following "
            "reference tokens."
        )
    if found.recovered < NEVER_RECOVERED:
        return (
            f"Expect little of BASH: after a forced error the model writes {_percentage(found.recovered)} of the "
            "following reference tokens, so there is no recovery to strengthen."
        )
    limit = _percentage(MIN_REPLACED_FRAC)
    enough = "" if found.replaced is not None else f"If {limit} of the tokens or more are replaced, "
    return (
        f"{enough}BASH may help if the score gives partial credit: after a forced error the model writes "
        f"{_percentage(found.recovered)} of the following reference tokens, but on small tasks BASH changed which "
        "errors are made and not the recovery, so compare it with SFT and random tokens (replacement_source: uniform) "
        "first."
    )


def _percentage(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"
