"""BASH's contexts: the reference with the model's own tokens mixed in, or as a control with as many random ones."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat import vocabulary_size
from ...data.example import Example, ExampleSet
from ...data.special_tokens import never_sampled_mask, special_token_ids, suppressed_tokens
from ...decoding import mix_contexts
from ...decoding.forward import SlotRunners
from ...decoding.model_state import generation_precision
from ...decoding.random_replacement import replace_with_random_tokens
from ...store.generate_shards import Columns, GenerationSpec, Progress


CONTEXT_SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("sampled", pa.list_(pa.bool_()))])


def mixed_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
) -> GenerationSpec:
    """What a round samples, with the options of a configuration."""
    suppressed = suppressed_tokens(model, tokenizer, args.suppress_tokens)
    options = args.sampling_params(suppressed, verify_window=args.verify_window)
    control = frozenset(special_token_ids(tokenizer))
    runners = SlotRunners()
    identity: dict[str, Any] = {"method": "bash", "mixture_coefficient": args.mixture_coefficient}
    replacing: list[int] = []
    if args.replacement_source == "uniform":
        # Control and stop tokens stand for none, also where `suppress_tokens` lets the model sample them.
        barred = {*options.suppress_tokens, *suppressed_tokens(model, tokenizer)}
        replacing = [token for token in range(vocabulary_size(model)) if token not in barred]
        payload = json.dumps([[token, 1] for token in replacing]).encode()
        identity["strangers"] = hashlib.blake2b(payload, digest_size=16).hexdigest()
        identity["replacement_source"] = args.replacement_source  # only where it is set: earlier stores stay valid

    def generate(part: list[Example], on_finished: Progress) -> Columns:
        ids, references = [example.id for example in part], [example.completion_ids for example in part]
        fixed = [never_sampled_mask(example.completion_ids, example.loss_mask, control) for example in part]
        with generation_precision(model, args):
            mixed = mix_contexts(
                model,
                [example.prompt for example in part],
                references,
                ids=ids,
                mixture_coefficient=args.mixture_coefficient,
                fixed=fixed,
                options=options,
                on_finished=on_finished,
                runners=runners,
            )
        if args.replacement_source == "uniform":
            mixed = replace_with_random_tokens(
                mixed, references, ids=ids, fixed=fixed, tokens=replacing, options=options
            )
        tokens, sampled = [context.tokens for context in mixed], [context.sampled for context in mixed]
        return {"id": ids, "tokens": tokens, "sampled": sampled}

    return GenerationSpec(identity, options, CONTEXT_SCHEMA, generate, f"mixing contexts, round {args.round_index}")
