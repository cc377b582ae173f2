"""BASH's contexts: the reference with the model's own tokens mixed in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...contexts.fill import Columns, Contexts, Progress
from ...decoding import mix_contexts
from ...decoding.mode import generation_precision
from ...examples.example import Example
from ...examples.tokens import control_tokens, fixed_positions, suppressed_tokens


SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("sampled", pa.list_(pa.bool_()))])


def mixed_contexts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: Any) -> Contexts:
    """What a round draws, with the options of a configuration."""
    options = args.draw_options(suppressed_tokens(model, tokenizer, args.suppress_tokens))
    control = frozenset(control_tokens(tokenizer))

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        with generation_precision(model, args):
            mixed = mix_contexts(
                model,
                [example.prompt for example in examples],
                [example.reference for example in examples],
                ids=[example.id for example in examples],
                mixture_coefficient=args.mixture_coefficient,
                fixed=[fixed_positions(example.reference, example.trained, control) for example in examples],
                options=options,
                on_finished=on_finished,
            )
        return {
            "id": [example.id for example in examples],
            "tokens": [context.tokens for context in mixed],
            "sampled": [context.sampled for context in mixed],
        }

    identity = {"method": "bash", "mixture_coefficient": args.mixture_coefficient}
    return Contexts(identity, options, SCHEMA, draw, f"mixing contexts, round {args.round_index}")
