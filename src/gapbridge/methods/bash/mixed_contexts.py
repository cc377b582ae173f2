"""BASH's contexts: the reference with the model's own tokens mixed in, or as a control with as many random ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat import vocabulary_size
from ...data.example import Example, ExampleSet
from ...data.special_tokens import TokenPattern, never_sampled_mask, special_token_ids, suppressed_tokens
from ...decoding import MixedContext, mix_contexts
from ...decoding.forward import SlotRunners
from ...decoding.model_state import generation_precision
from ...decoding.random_replacement import RandomReplacements, replace_with_random_tokens
from ...store.generate_shards import Columns, GenerationSpec, Progress
from .context_models import ContextModels


CONTEXT_SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("sampled", pa.list_(pa.bool_()))])


def mixed_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
) -> GenerationSpec:
    """What a round samples, with the options of a configuration."""
    options = args.sampling_params(suppressed_tokens(model, tokenizer, args.suppress_tokens))
    fixed = _Fixed(tokenizer, args.sampling_token_regex)
    runners = SlotRunners()
    models = (
        ContextModels(args.generator_model_name_or_path, model, args) if args.generator_model_name_or_path else None
    )
    identity: dict[str, Any] = {"method": "bash", "mixture_coefficient": args.mixture_coefficient}
    replacements: RandomReplacements | None = None
    # Only where they are set, so that stores made before there was a choice stay valid.
    if args.replacement_source != "model":
        counts = _replacement_counts(model, tokenizer, examples, args)
        replacements = RandomReplacements.from_counts(counts)
        identity["replacement_source"] = args.replacement_source
        payload = json.dumps(sorted(counts.items())).encode()
        identity["strangers"] = hashlib.blake2b(payload, digest_size=16).hexdigest()
    if args.sampling_token_regex is not None:
        identity["sampling_token_regex"] = args.sampling_token_regex

    def mix(generation: PreTrainedModel, part: list[Example], on_finished: Progress) -> list[MixedContext]:
        ids, references = [example.id for example in part], [example.completion_ids for example in part]
        fixed_mask = [fixed.of(example) for example in part]
        with generation_precision(generation, args):
            mixed = mix_contexts(
                generation,
                [example.prompt for example in part],
                references,
                ids=ids,
                mixture_coefficient=args.mixture_coefficient,
                fixed=fixed_mask,
                options=options,
                on_finished=on_finished,
                runners=runners,
            )
        if replacements is None:
            return mixed
        return replace_with_random_tokens(
            mixed, references, ids=ids, fixed=fixed_mask, replacements=replacements, options=options
        )

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        ids = [example.id for example in examples]
        found: dict[str, MixedContext] = {}
        for generation, places in models.shares(ids) if models else [(model, range(len(ids)))]:
            contexts = mix(generation, [examples[at] for at in places], on_finished)
            found |= {ids[at]: context for at, context in zip(places, contexts, strict=True)}
        mixed = [found[example_id] for example_id in ids]
        return {
            "id": ids,
            "tokens": [context.tokens for context in mixed],
            "sampled": [context.sampled for context in mixed],
        }

    what = f"mixing contexts, round {args.round_index}"
    if models is None:
        return GenerationSpec(identity, options, CONTEXT_SCHEMA, draw, what)
    return GenerationSpec(
        identity, options, CONTEXT_SCHEMA, draw, what, close=models.close, weights=models.fingerprint
    )


class _Fixed:
    """Where no token is sampled."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling_token_regex: str | None) -> None:
        self._control = frozenset(special_token_ids(tokenizer))
        self._wanted = None if sampling_token_regex is None else TokenPattern(tokenizer, sampling_token_regex)

    def of(self, example: Example) -> list[bool]:
        """One flag for each token of the reference."""
        fixed = never_sampled_mask(example.completion_ids, example.loss_mask, self._control)
        if self._wanted is None:
            return fixed
        return [
            fixed_mask or token not in self._wanted
            for fixed_mask, token in zip(fixed, example.completion_ids, strict=True)
        ]


def _replacement_counts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
) -> Counter[int]:
    """How often each token stands for a random one: once, or as often as it is trained in the references.

    Control and stop tokens are none, also where `suppress_tokens` lets the model sample them.
    """
    suppressed_ids = {*suppressed_tokens(model, tokenizer, args.suppress_tokens), *suppressed_tokens(model, tokenizer)}
    if args.replacement_source == "uniform":
        return Counter(set(range(vocabulary_size(model))) - suppressed_ids)
    counts: Counter[int] = Counter()
    for example in examples:
        counts.update(token for token, loss in zip(example.completion_ids, example.loss_mask, strict=True) if loss)
    return Counter({token: count for token, count in counts.items() if token not in suppressed_ids})
