"""The SPIN trainer (Chen et al. 2024, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from ...data.example import Example, ExampleSet
from ...data.formats import require_prompts
from ...decoding import Completion
from ...errors import StoreError, describe
from ...store.context_store import ContextStore
from ...store.generate_shards import GenerationSpec
from ...store.training_completions import COMPLETION_SCHEMA, completion_spec
from ...training.arguments import EVAL_GENERATED
from ...training.hooks import ExamplesWithGenerations, RowsWithStats
from ...training.preference_trainer import PreferenceTrainerMixin
from ...training.rows import Row
from .config import SPINArgs
from .rows import spin_pair
from .stats import SPINStats


_PAPER = {
    "title": "Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models",
    "id": "2401.01335",
    "citation": (
        "@inproceedings{chen2024selfplay,\n"
        "    title     = {{Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models}},\n"
        "    author    = {Chen, Zixiang and Deng, Yihe and Yuan, Huizhuo and Ji, Kaixuan and Gu, Quanquan},\n"
        "    booktitle = {Proceedings of the 41st International Conference on Machine Learning},\n"
        "    year      = 2024\n"
        "}"
    ),
}


@dataclass
class SPINConfig(SPINArgs, DPOConfig):
    """Configuration for [`SPINTrainer`]: everything of [`~trl.DPOConfig`], and the keys of
    [`~gapbridge.methods.spin.config.SPINArgs`]."""


class SPINTrainer(PreferenceTrainerMixin, DPOTrainer):
    """
    Trainer for self-play fine-tuning (SPIN): the model learns to tell the reference answer from its own, against the
    weights that the round starts from.

    It takes what [`~trl.SFTTrainer`] takes, prompts and reference answers, with a [`SPINConfig`]; see
    [`~gapbridge.training.method.GapTrainerMixin`] for the arguments. `eval_loss` is the loss on held-out pairs, whose
    completions are those of the round's starting weights. `stats` holds [`~gapbridge.methods.spin.stats.SPINStats`].
    """

    _tag_names = ["trl", "spin", "gapbridge"]
    _name = "SPIN"
    _paper = _PAPER
    config_class = SPINConfig
    generates_contexts = True
    stats_class = SPINStats

    @classmethod
    def load_examples(cls, *args: Any, **kwargs: Any) -> ExampleSet:
        """As in `GapTrainerMixin`, one example a trained turn: each is answered by itself."""
        examples = super().load_examples(*args, **kwargs)
        require_prompts(examples, "SPIN generates a completion of each prompt")
        return examples.split_turns(examples.stops)

    @classmethod
    def argument_errors(cls, args: SPINConfig, given: dict[str, Any]) -> list[str]:
        errors = super().argument_errors(args, given)
        if given.get("ref_model") is not None:
            expected = "None, since SPIN's reference is the starting model of the round"
            errors.append(describe("ref_model", "a model", expected, "Remove the argument"))
        return errors

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: SPINConfig
    ) -> GenerationSpec:
        previous = _previous_store(args)  # refused before anything is sampled
        contexts = completion_spec("spin", model, tokenizer, args)
        return contexts if previous is None else replace(contexts, sources=(previous.manifest_path,))

    @classmethod
    def sft_row(cls, example: Example) -> Row:
        """A pair of twice the reference: what TRL's constructor looks at while there are no completions."""
        return spin_pair(example.id, example, Completion(example.completion_ids, True))

    @classmethod
    def build_rows(
        cls,
        pairs: ExamplesWithGenerations,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: SPINConfig,
        *,
        evaluation: bool = False,
    ) -> RowsWithStats:
        """A pair for each completion that differs from the reference and fits into `max_length`, and after it that of
        the round before.

        Raises:
            StoreError: the completions of the round before are of other examples.
        """
        previous = None if evaluation else _previous_store(args)
        for (example, record), earlier in zip(pairs, _records(previous, examples), strict=False):
            row, stats = _pair(example.id, example, record, args)
            rows = [row] if row else []
            if earlier is not None:
                row, before = _pair(f"{example.id} (round {args.round_index - 1})", example, earlier, args)
                rows += [row] if row else []
                stats += before + SPINStats(previous_round_pairs=1)
            yield rows, stats

    @classmethod
    def eval_sets(cls, args: Any) -> tuple[str, ...]:
        return (EVAL_GENERATED,)


METHOD = SPINTrainer


def _pair(row_id: str, example: Example, record: dict[str, Any], args: SPINConfig) -> tuple[Row | None, SPINStats]:
    """The pair of a completion, None where it teaches nothing or does not fit."""
    completion = Completion(record["tokens"], record["finished"])
    row = spin_pair(row_id, example, completion)
    longest = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    equal = row["chosen_ids"] == row["rejected_ids"]
    too_long = not equal and args.max_length is not None and longest > args.max_length
    stats = SPINStats(completions=1, truncated=not completion.finished, exact_match=equal, dropped_overlong=too_long)
    return None if equal or too_long else row, stats


def _previous_store(args: SPINConfig) -> ContextStore | None:
    """The completions of the round before; None where they are not trained along.

    Raises:
        StoreError: they are not there, or damaged.
    """
    if not args.include_previous_round_pairs or args.round_index == 1:
        return None
    directory = Path(args.output_dir).with_name(f"round_{args.round_index - 1}") / "_contexts"
    try:
        store = ContextStore.recorded(directory, COMPLETION_SCHEMA)
        store.check()
    except StoreError as error:
        key, got = "include_previous_round_pairs", "true without the completions of the previous round"
        advice = "Set it to false to train without them"
        raise StoreError([*error.errors, describe(key, got, "these completions", advice)]) from error
    return store


def _records(store: ContextStore | None, examples: ExampleSet) -> Iterator[dict[str, Any] | None]:
    """What a store holds for each example; None for ever where there is none."""
    if store is None:
        yield from repeat(None)
    elif store.identity.get("examples") != examples.fingerprint():
        advice = "Restore the data, or set include_previous_round_pairs: false"
        raise StoreError(store.directory, "completions of other examples", "those of this data set", advice)
    else:
        yield from (record for _, record in store.iter_with(examples))
