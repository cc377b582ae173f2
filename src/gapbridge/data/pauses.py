"""Pauses: copies of one token that stand between a prompt and its answer, where a model was trained with them.

The tokenizer says so, in its `tokenizer_config.json`, so that whoever builds examples or prompts for the model puts
them there, whatever the method. No answer holds one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from .example import ExampleSet


_KEY = "pauses"
Examples = TypeVar("Examples", bound=ExampleSet)


@dataclass(frozen=True)
class PauseSettings:
    """The pause token of a tokenizer, and how many stand after each prompt."""

    token: str
    count: int


def recorded_pauses(tokenizer: PreTrainedTokenizerBase) -> PauseSettings | None:
    """What the tokenizer says of pauses; None for most."""
    found = tokenizer.init_kwargs.get(_KEY)
    return None if found is None else PauseSettings(**found)


def record_pauses(tokenizer: PreTrainedTokenizerBase, pauses: PauseSettings) -> None:
    """Have the tokenizer say it, and keep it where it is saved."""
    tokenizer.init_kwargs[_KEY] = asdict(pauses)


def pause_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the tokenizer's pause token, if it has one."""
    pauses = recorded_pauses(tokenizer)
    return None if pauses is None else int(tokenizer.convert_tokens_to_ids(pauses.token))


def pauses_after_prompt(tokenizer: PreTrainedTokenizerBase, count: int | None = None) -> list[int]:
    """The ids that stand between a prompt and its answer: M pauses, or nothing. `count`: another M."""
    pauses, pause = recorded_pauses(tokenizer), pause_id(tokenizer)
    if pauses is None or pause is None:
        return []
    return [pause] * (pauses.count if count is None else count)


def with_pauses(examples: Examples, pauses: list[int]) -> Examples:
    """The examples with `pauses` at the end of each prompt, and of what is asked.

    A conversation becomes one example for each trained turn: earlier turns stand in a prompt as the template renders
    them, without pauses, as in whatever asks the model later.

    Args:
        pauses: M ids, from `pauses_after_prompt`; with none the examples are returned as they are.

    Raises:
        DataError: an id of the data looks like that of a turn.
    """
    if not pauses:
        return examples
    turns = examples.split_turns(examples.stops).table

    def add(row: dict[str, Any]) -> dict[str, Any]:
        asked = row["generation_prompt_ids"] and [*row["generation_prompt_ids"], *pauses]
        return {"prompt": [*row["prompt"], *pauses], "generation_prompt_ids": asked}

    # Not through the cache of `datasets`: its key does not cover the code of this module.
    table = turns.map(
        add, features=turns.features, load_from_cache_file=False, keep_in_memory=True, desc="Adding pauses"
    )
    return replace(examples, table=table)
