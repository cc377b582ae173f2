"""BASH's contexts: the reference with the model's own tokens mixed in, or as a control with as many random ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat import vocabulary_size
from ...contexts.fill import Columns, Contexts, Progress
from ...decoding import MixedContext, mix_contexts
from ...decoding.mode import generation_precision
from ...decoding.strangers import Strangers, with_strangers
from ...examples.example import Example, ExampleSet
from ...examples.tokens import Matching, control_tokens, fixed_positions, suppressed_tokens
from .models import ContextModels


SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("sampled", pa.list_(pa.bool_()))])


def mixed_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
) -> Contexts:
    """What a round draws, with the options of a configuration."""
    options = args.draw_options(suppressed_tokens(model, tokenizer, args.suppress_tokens))
    fixed = _Fixed(tokenizer, args.coin_pattern)
    models = ContextModels(args.context_model, model, args) if args.context_model else None
    identity: dict[str, Any] = {"method": "bash", "mixture_coefficient": args.mixture_coefficient}
    strangers: Strangers | None = None
    # Only where they are set, so that stores made before there was a choice stay valid.
    if args.replacement != "model":
        counts = _stranger_counts(model, tokenizer, examples, args)
        strangers = Strangers.from_counts(counts)
        identity["replacement"] = args.replacement
        told = json.dumps(sorted(counts.items())).encode()
        identity["strangers"] = hashlib.blake2b(told, digest_size=16).hexdigest()
    if args.coin_pattern is not None:
        identity["coin_pattern"] = args.coin_pattern

    def mix(drawing: PreTrainedModel, part: list[Example], on_finished: Progress) -> list[MixedContext]:
        ids, references = [example.id for example in part], [example.reference for example in part]
        stays = [fixed.of(example) for example in part]
        with generation_precision(drawing, args):
            mixed = mix_contexts(
                drawing,
                [example.prompt for example in part],
                references,
                ids=ids,
                mixture_coefficient=args.mixture_coefficient,
                fixed=stays,
                options=options,
                on_finished=on_finished,
            )
        if strangers is None:
            return mixed
        return with_strangers(mixed, references, ids=ids, fixed=stays, strangers=strangers, options=options)

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        ids = [example.id for example in examples]
        found: dict[str, MixedContext] = {}
        for drawing, places in models.shares(ids) if models else [(model, range(len(ids)))]:
            contexts = mix(drawing, [examples[at] for at in places], on_finished)
            found |= {ids[at]: context for at, context in zip(places, contexts, strict=True)}
        mixed = [found[example_id] for example_id in ids]
        return {
            "id": ids,
            "tokens": [context.tokens for context in mixed],
            "sampled": [context.sampled for context in mixed],
        }

    what = f"mixing contexts, round {args.round_index}"
    if models is None:
        return Contexts(identity, options, SCHEMA, draw, what)
    return Contexts(identity, options, SCHEMA, draw, what, close=models.close, weights=models.fingerprint)


class _Fixed:
    """Where no coin falls."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, coin_pattern: str | None) -> None:
        self._control = frozenset(control_tokens(tokenizer))
        self._wanted = None if coin_pattern is None else Matching(tokenizer, coin_pattern)

    def of(self, example: Example) -> list[bool]:
        """One flag for each token of the reference."""
        fixed = fixed_positions(example.reference, example.trained, self._control)
        if self._wanted is None:
            return fixed
        return [stays or token not in self._wanted for stays, token in zip(fixed, example.reference, strict=True)]


def _stranger_counts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
) -> Counter[int]:
    """How often each token stands for a random one: once, or as often as it is trained in the references.

    Control and stop tokens are none, also where `suppress_tokens` lets the model draw them.
    """
    barred = {*suppressed_tokens(model, tokenizer, args.suppress_tokens), *suppressed_tokens(model, tokenizer)}
    if args.replacement == "uniform":
        return Counter(set(range(vocabulary_size(model))) - barred)
    counts: Counter[int] = Counter()
    for example in examples:
        counts.update(token for token, loss in zip(example.reference, example.trained, strict=True) if loss)
    return Counter({token: count for token, count in counts.items() if token not in barred})
