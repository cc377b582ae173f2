"""The SPIN trainer (Chen et al. 2024, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from ...contexts.drafts import SCHEMA, drafted_contexts
from ...contexts.fill import Contexts
from ...contexts.store import ContextStore
from ...decoding import Draft
from ...errors import StoreError
from ...examples.example import Example, ExampleSet
from ...examples.forms import require_prompts
from ...training.arguments import EVAL_OWN
from ...training.hooks import Built, Pairs
from ...training.preferences import PreferenceMethod
from ...training.rows import Row
from .config import SPINFields
from .paper import CHEN_2024
from .rows import spin_pair
from .stats import SPINStats


@dataclass
class SPINConfig(SPINFields, DPOConfig):
    """Configuration for [`SPINTrainer`]: everything of [`~trl.DPOConfig`], and the keys of
    [`~gapbridge.methods.spin.config.SPINFields`]."""


class SPINTrainer(PreferenceMethod, DPOTrainer):
    """
    Trainer for self-play fine-tuning (SPIN): the model learns to tell the reference answer from its own, against the
    weights that the round starts from.

    It takes what [`~trl.SFTTrainer`] takes, prompts and reference answers, with a [`SPINConfig`]; see
    [`~gapbridge.training.method.Method`] for the arguments. `eval_loss` is the loss on held-out pairs, whose drafts
    are those of the round's starting weights. `stats` holds [`~gapbridge.methods.spin.stats.SPINStats`].
    """

    _tag_names = ["trl", "spin", "gapbridge"]
    _name = "SPIN"
    _paper = CHEN_2024
    config_class = SPINConfig
    draws = True
    stats_class = SPINStats

    @classmethod
    def read(cls, *args: Any, **kwargs: Any) -> ExampleSet:
        """As in `Method`, one example a trained turn: each is answered by itself."""
        examples = super().read(*args, **kwargs)
        require_prompts(examples, "SPIN drafts an answer to each prompt")
        return examples.by_turn(examples.stops)

    @classmethod
    def argument_faults(cls, args: SPINConfig, given: dict[str, Any]) -> list[str]:
        faults = super().argument_faults(args, given)
        if given.get("ref_model") is not None:
            faults.append("ref_model is given: SPIN's reference is the round's starting model; leave it out")
        return faults

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: SPINConfig
    ) -> Contexts:
        previous = _previous_store(args)  # refused before anything is drawn
        contexts = drafted_contexts("spin", model, tokenizer, args)
        return contexts if previous is None else replace(contexts, sources=(previous.manifest_path,))

    @classmethod
    def plain_row(cls, example: Example) -> Row:
        """A pair of twice the reference: what TRL's constructor looks at while there are no drafts."""
        return spin_pair(example.id, example, Draft(example.reference, True))

    @classmethod
    def build_rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: SPINConfig,
        *,
        evaluation: bool = False,
    ) -> Built:
        """A pair for each draft that differs from the reference and fits into `max_length`, and behind it that of the
        round before.

        Raises:
            StoreError: the round before drafted other examples.
        """
        previous = None if evaluation else _previous_store(args)
        for (example, record), earlier in zip(pairs, _records(previous, examples), strict=False):
            row, stats = _pair(example.id, example, record, args)
            rows = [row] if row else []
            if earlier is not None:
                row, before = _pair(f"{example.id} (round {args.round_index - 1})", example, earlier, args)
                rows += [row] if row else []
                stats += before + SPINStats(previous_round=1)
            yield rows, stats

    @classmethod
    def eval_sets(cls, args: Any) -> tuple[str, ...]:
        return (EVAL_OWN,)


METHOD = SPINTrainer


def _pair(row_id: str, example: Example, record: dict[str, Any], args: SPINConfig) -> tuple[Row | None, SPINStats]:
    """The pair of a draft, None where it teaches nothing or does not fit."""
    draft = Draft(record["tokens"], record["finished"])
    row = spin_pair(row_id, example, draft)
    longest = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    equal = row["chosen_ids"] == row["rejected_ids"]
    too_long = not equal and args.max_length is not None and longest > args.max_length
    stats = SPINStats(drafts=1, capped=not draft.finished, equal=equal, too_long=too_long)
    return None if equal or too_long else row, stats


def _previous_store(args: SPINConfig) -> ContextStore | None:
    """The drafts of the round before; None where they are not trained along.

    Raises:
        StoreError: they are not there, or damaged.
    """
    if not args.previous_round or args.round_index == 1:
        return None
    directory = Path(args.output_dir).with_name(f"round_{args.round_index - 1}") / "_contexts"
    try:
        store = ContextStore.recorded(directory, SCHEMA)
        store.check()
    except StoreError as error:
        raise StoreError(
            [*error.faults, "previous_round: true trains these drafts along; set it to false to do without them"]
        ) from error
    return store


def _records(store: ContextStore | None, examples: ExampleSet) -> Iterator[dict[str, Any] | None]:
    """What a store holds for each example; None for ever where there is none."""
    if store is None:
        yield from repeat(None)
    elif store.identity.get("examples") != examples.fingerprint():
        raise StoreError(
            f"{store.directory}: these drafts answer other examples; set previous_round to false, or put the data back"
        )
    else:
        yield from (record for _, record in store.joined(examples))
