"""SPIN pairs (Chen et al. 2024, eq. 4.7): the reference y chosen, the model's own answer ŷ rejected."""

from __future__ import annotations

from ...data.chat_splitting import common_length
from ...data.example import Example
from ...decoding import Completion
from ...training.preference_trainer import pair_row
from ...training.rows import Row


def spin_pair(row_id: str, example: Example, completion: Completion) -> Row:
    """The pair whose loss is ℓ(λ log π(y|x)/π_k(y|x) - λ log π(ŷ|x)/π_k(ŷ|x)).

    Both answers end where they ended: y with its stop token and without what a template puts after it, which no model
    is asked to write; ŷ with the stop token that it drew, or with none where it was cut at the length limit.

    Where tokens merge across the border, `example.prompt` lacks the end that the completion's prompt `example.asked`
    has; the pair's prompt is what both begin with, as in TRL.
    """
    common = common_length(example.prompt, example.generation_prompt_ids)
    chosen = [*example.prompt[common:], *example.completion_ids]
    rejected = [*example.generation_prompt_ids[common:], *completion.tokens]
    sampled = [at >= len(rejected) - len(completion.tokens) for at in range(len(rejected))]
    return pair_row(row_id, example.generation_prompt_ids[:common], chosen, rejected, sampled)
