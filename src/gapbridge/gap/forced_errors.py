"""Forced errors: one wrong token in a reference, and what a model writes after it.

At a place t of the reference one token is sampled from the model's own distribution after x ⊕ y_<t, without y_t; then
a model goes on from x ⊕ y_<t ⊕ forced error, freely and greedily. The forced errors are a pure function of model,
seed, example and place, and can be given to other models, so that all of them are disturbed alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..compat import vocabulary_size
from ..data.example import Example, ExampleSet
from ..data.special_tokens import (
    never_sampled_mask,
    special_token_ids,
    stop_tokens,
    suppressed_tokens,
    undecodable_token_ids,
)
from ..decoding import Completion, SamplingParams
from ..decoding.forward import forward_logits
from ..decoding.keyed_sampler import KeyedSampler
from ..decoding.model_state import generation_mode, generation_precision
from ..decoding.noise import example_keys
from ..decoding.validate_inputs import context_window
from ..decoding.vllm_generation import ServerEngine
from ..errors import ConfigError
from ..generation.server import Complete, completions_of, generated_by
from ..store.generate_shards import GenerationSpec, generate_or_find
from .logprobs import IdList, batches


DEFAULT_ERROR_POSITIONS = (0.15, 0.35, 0.55, 0.75)  # of the forced errors, as shares of a reference
SELF = "self"  # in place of a model: every model samples its own forced errors
_SHARD_SIZE = 64
_SCHEMA = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.list_(pa.int64()))), ("finished", pa.list_(pa.bool_()))]
)


@dataclass(frozen=True)
class ForcedError:
    """A wrong `token` at position `at` of a reference, counted from 0."""

    at: int
    token: int


@dataclass(frozen=True)
class ForcedErrorSet:
    """The forced errors of one model in a set of examples.

    source: the model that they are sampled from. places: as shares of a reference. references: example → its tokens.
    errors_by_example: example → its forced error at each place, None where the reference has no place for one.
    """

    source: str
    places: list[float]
    references: dict[str, list[int]]
    errors_by_example: dict[str, list[ForcedError | None]]

    def check(self, examples: ExampleSet, model: str) -> None:
        """Raise a ConfigError where the references of another model's tokenizer are other tokens."""
        if any(self.references.get(example.id) != example.completion_ids for example in examples):
            got = f"other tokens for the same references from {model}"
            advice = f"Give --error_source {SELF}, with which every model makes its own errors"
            raise ConfigError(f"command line, --error_source {self.source}", got, "the same tokens", advice)

    def digest(self) -> str:
        """A hash of all forced errors."""
        found = {key: [error and vars(error) for error in own] for key, own in self.errors_by_example.items()}
        return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).hexdigest()


def error_position(y: IdList, share: float, fixed: Sequence[bool], longest: int) -> int | None:
    """t = ⌊share · (T - 1)⌋, or the next place that is not fixed; None where there is none before the last token, or
    none that leaves room for an answer of `longest` tokens to go on.

    Args:
        y: reference, T ids.
        fixed: one flag for each token of y: True where nothing is replaced.
    """
    start = math.floor(share * (len(y) - 1) + 1e-9)  # 0.29 · 100 is a little less than 29
    return next((t for t in range(start, min(len(y), longest) - 1) if not fixed[t]), None)


@torch.no_grad()
def sample_forced_errors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Example],
    args: TrainingArguments,
    *,
    source: str,
    places: Sequence[float],
    max_completion_length: int,
    seed: int = 0,
    batch_size: int = 64,
) -> ForcedErrorSet:
    """Sample a wrong token at each place of each reference, from the model's distribution at temperature 1.

    The reference's token, special tokens, stop tokens and ids that the tokenizer does not know are never sampled.

    Args:
        source: the model's name. places: t as shares of the reference.
        max_completion_length: the most tokens of an answer with a forced error in it.
        seed: of the noise, together with an example's id.
    """
    control, everyone = frozenset(special_token_ids(tokenizer)), list(examples)
    at: list[list[int | None]] = []
    for e in everyone:
        fixed = never_sampled_mask(e.completion_ids, e.loss_mask, control)
        at.append([error_position(e.completion_ids, share, fixed, max_completion_length) for share in places])
    wanted = [sorted({t for t in own if t is not None}) for own in at]
    rows = [[*e.prompt, *e.completion_ids[: max(own, default=0)]] for e, own in zip(everyone, wanted, strict=True)]
    sampler = KeyedSampler(SamplingParams(suppress_tokens=suppressed_tokens(model, tokenizer)), model.device)
    # Not the noise of the example's completion.
    keys = example_keys([f"{e.id}/slip" for e in everyone], seed=seed, round_index=0).to(model.device)
    sampled: dict[tuple[int, int], int] = {}
    with generation_precision(model, args), generation_mode(model):
        for chunk in batches([len(row) for row in rows], vocabulary_size(model), batch_size):
            cells = [(row, i, t) for row, i in enumerate(chunk) for t in wanted[i]]
            if not cells:
                continue
            ids = [torch.tensor(rows[i], device=model.device) for i in chunk]
            mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            logits = forward_logits(model, pad_sequence(ids, batch_first=True), mask)
            predictors = [len(everyone[i].prompt) + t - 1 for _, i, t in cells]
            scores = logits[[row for row, _, _ in cells], predictors].float()  # [cells, vocab]
            scores[range(len(cells)), [everyone[i].completion_ids[t] for _, i, t in cells]] = float("-inf")
            positions = torch.tensor([t for _, _, t in cells], device=model.device)
            tokens = sampler(scores, keys[[i for _, i, _ in cells]], positions).tolist()
            sampled |= {(i, t): token for (_, i, t), token in zip(cells, tokens, strict=True)}
    forced_errors = {
        e.id: [None if t is None else ForcedError(t, sampled[i, t]) for t in at[i]] for i, e in enumerate(everyone)
    }
    return ForcedErrorSet(source, list(places), {e.id: e.completion_ids for e in everyone}, forced_errors)


def continuations_after_errors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    forced_errors: ForcedErrorSet,
    args: TrainingArguments,
    directory: Path,
    *,
    max_completion_length: int,
    batch_size: int = 64,
    engine: ServerEngine | None = None,
) -> list[list[Completion | None]]:
    """What the model writes greedily after each forced error, [examples][places], or what a store below `directory`
    holds.

    With the reference before the forced error an answer has at most `max_completion_length` tokens.

    Args:
        engine: the vLLM server that generates; None takes this package's engine.

    Raises:
        StoreError: a shard of the store is damaged.
    """
    unnamed = tuple(undecodable_token_ids(tokenizer, model))
    draw = SamplingParams(temperature=0, suppress_tokens=unnamed, batch_size=batch_size)
    complete = completions_of(engine, model, tokenizer, args)
    stops = stop_tokens(tokenizer, model)
    identity = {
        "method": "forced_errors",
        **generated_by(model, engine),
        "max_completion_length": max_completion_length,
        "stop_tokens": stops,
        "forced_errors": forced_errors.digest(),
    }

    def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
        completions = generate_continuations(
            model, part, forced_errors, args, draw, stops, max_completion_length, complete
        )
        on_finished(len(part))
        return {
            "id": [example.id for example in part],
            "tokens": [[completion.tokens if completion else [] for completion in own] for own in completions],
            "finished": [[bool(completion and completion.finished) for completion in own] for own in completions],
        }

    spec = GenerationSpec(identity, draw, _SCHEMA, columns, "answering after forced errors")
    found = generate_or_find(spec, model, tokenizer, examples, args, directory, shard_size=_SHARD_SIZE)
    return [
        [
            Completion(tokens, finished) if error else None
            for error, tokens, finished in zip(
                forced_errors.errors_by_example[example.id], record["tokens"], record["finished"], strict=True
            )
        ]
        for example, record in found
    ]


def generate_continuations(
    model: PreTrainedModel,
    part: Sequence[Example],
    forced_errors: ForcedErrorSet,
    args: TrainingArguments,
    draw: SamplingParams,
    stops: Collection[int],
    longest: int,
    complete: Complete,
) -> list[list[Completion | None]]:
    """Answers from x ⊕ y_<t ⊕ forced error on, each cut where it would make y_<t ⊕ forced error ⊕ answer longer than
    `longest`.

    `complete` is `generate_completions` without its model.
    """
    places = [
        (i, at, error)
        for i, e in enumerate(part)
        for at, error in enumerate(forced_errors.errors_by_example[e.id])
        if error
    ]
    found: list[list[Completion | None]] = [[None] * len(forced_errors.places) for _ in part]
    if not places:
        return found
    prompts = [[*part[i].prompt, *part[i].completion_ids[: error.at], error.token] for i, _, error in places]
    room = [longest - error.at - 1 for _, _, error in places]
    with generation_precision(model, args):
        completions = complete(
            prompts,
            ids=[f"{part[i].id}/{at}" for i, at, _ in places],
            max_completion_length=tokens_left_after_error(model, prompts, max(room)),
            stop_tokens=list(stops),
            options=draw,
        )
    for (i, at, _), own, completion in zip(places, room, completions, strict=True):
        found[i][at] = Completion(completion.tokens[:own], completion.finished and len(completion.tokens) <= own)
    return found


def tokens_left_after_error(model: PreTrainedModel, prompts: Sequence[IdList], wanted: int) -> int:
    """How many tokens can follow the longest prompt: as many as wanted, or as the model's positions leave room for."""
    limit = context_window(model)
    return wanted if limit is None else max(1, min(wanted, limit.tokens - max(map(len, prompts)) + 1))
