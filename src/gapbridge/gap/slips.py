"""Forced slips: one wrong token in a reference, and what a model writes behind it.

At a place t of the reference one token is drawn from the model's own distribution behind x ⊕ y_<t, without y_t; then a
model goes on from x ⊕ y_<t ⊕ slip, freely and greedily. The slips are a pure function of model, seed, example and
place, and can be given to other models, so that all of them are disturbed alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..answers.server import Complete, completions_of, generated_by
from ..compat import vocabulary_size
from ..contexts.fill import fill_store, shared_identity
from ..contexts.store import ContextStore
from ..decoding import Draft, DrawOptions, draft_answers
from ..decoding.checks import position_limit
from ..decoding.mode import generation_mode, generation_precision
from ..decoding.noise import example_keys
from ..decoding.passes import whole_rows
from ..decoding.sampling import KeyedSampler
from ..decoding.vllm_drafts import ServerEngine
from ..errors import ConfigError
from ..examples.example import Example, ExampleSet
from ..examples.tokens import control_tokens, fixed_positions, stop_tokens, suppressed_tokens, unnamed_tokens
from .scoring import IdList, batches


PLACES = (0.15, 0.35, 0.55, 0.75)  # of the slips, as shares of a reference
EACH = "each"  # in place of a model: every model draws its own slips
_SHARD_SIZE = 64
_SCHEMA = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.list_(pa.int64()))), ("finished", pa.list_(pa.bool_()))]
)


@dataclass(frozen=True)
class Slip:
    """A wrong `token` at position `at` of a reference, counted from 0."""

    at: int
    token: int


@dataclass(frozen=True)
class Slips:
    """The slips of one model in a set of examples.

    source: the model that they are drawn from. places: as shares of a reference. references: example → its tokens.
    drawn: example → its slip at each place, None where the reference has no place for one.
    """

    source: str
    places: list[float]
    references: dict[str, list[int]]
    drawn: dict[str, list[Slip | None]]

    def check(self, examples: ExampleSet, model: str) -> None:
        """Raise a ConfigError where the references of another model's tokenizer are other tokens."""
        if any(self.references.get(example.id) != example.reference for example in examples):
            raise ConfigError(
                f"command line: --slips_from {self.source}: {model} has other tokens for the same references; give "
                f"--slips_from {EACH}, with which every model draws its own slips"
            )

    def digest(self) -> str:
        """A hash of all slips."""
        found = {key: [slip and vars(slip) for slip in slips] for key, slips in self.drawn.items()}
        return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).hexdigest()


def slip_place(y: IdList, share: float, fixed: Sequence[bool], longest: int) -> int | None:
    """t = ⌊share · (T - 1)⌋, or the next place that is not fixed; None where there is none before the last token, or
    none that leaves room for an answer of `longest` tokens to go on.

    Args:
        y: reference, T ids.
        fixed: one flag for each token of y: True where nothing is replaced.
    """
    start = math.floor(share * (len(y) - 1) + 1e-9)  # 0.29 · 100 is a little less than 29
    return next((t for t in range(start, min(len(y), longest) - 1) if not fixed[t]), None)


@torch.no_grad()
def draw_slips(
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
) -> Slips:
    """Draw a wrong token at each place of each reference, from the model's distribution at temperature 1.

    The reference's token, control tokens, stop tokens and ids that the tokenizer does not know are never drawn.

    Args:
        source: the model's name. places: t as shares of the reference.
        max_completion_length: the most tokens of an answer with a slip in it.
        seed: of the noise, together with an example's id.
    """
    control, everyone = frozenset(control_tokens(tokenizer)), list(examples)
    at: list[list[int | None]] = []
    for e in everyone:
        fixed = fixed_positions(e.reference, e.trained, control)
        at.append([slip_place(e.reference, share, fixed, max_completion_length) for share in places])
    wanted = [sorted({t for t in own if t is not None}) for own in at]
    rows = [[*e.prompt, *e.reference[: max(own, default=0)]] for e, own in zip(everyone, wanted, strict=True)]
    sampler = KeyedSampler(DrawOptions(suppress_tokens=suppressed_tokens(model, tokenizer)), model.device)
    # Not the noise of the example's draft.
    keys = example_keys([f"{e.id}/slip" for e in everyone], seed=seed, round_index=0).to(model.device)
    drawn: dict[tuple[int, int], int] = {}
    with generation_precision(model, args), generation_mode(model):
        for chunk in batches([len(row) for row in rows], vocabulary_size(model), batch_size):
            cells = [(row, i, t) for row, i in enumerate(chunk) for t in wanted[i]]
            if not cells:
                continue
            ids = [torch.tensor(rows[i], device=model.device) for i in chunk]
            mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            logits = whole_rows(model, pad_sequence(ids, batch_first=True), mask)
            behind = [len(everyone[i].prompt) + t - 1 for _, i, t in cells]
            scores = logits[[row for row, _, _ in cells], behind].float()  # [cells, vocab]
            scores[range(len(cells)), [everyone[i].reference[t] for _, i, t in cells]] = float("-inf")
            positions = torch.tensor([t for _, _, t in cells], device=model.device)
            tokens = sampler(scores, keys[[i for _, i, _ in cells]], positions).tolist()
            drawn |= {(i, t): token for (_, i, t), token in zip(cells, tokens, strict=True)}
    slips = {e.id: [None if t is None else Slip(t, drawn[i, t]) for t in at[i]] for i, e in enumerate(everyone)}
    return Slips(source, list(places), {e.id: e.reference for e in everyone}, slips)


def answers_behind(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    slips: Slips,
    args: TrainingArguments,
    directory: Path,
    *,
    max_completion_length: int,
    batch_size: int = 64,
    engine: ServerEngine | None = None,
) -> list[list[Draft | None]]:
    """What the model writes greedily behind each slip, [examples][places], or what a store below `directory` holds.

    With the reference before the slip an answer has at most `max_completion_length` tokens.

    Args:
        engine: the vLLM server that generates; None takes this package's engine.

    Raises:
        StoreError: a shard of the store is damaged.
    """
    draw = DrawOptions(temperature=0, suppress_tokens=tuple(unnamed_tokens(tokenizer, model)), batch_size=batch_size)
    complete: Complete = partial(draft_answers, model)
    if engine is not None:
        complete = completions_of(engine, model, tokenizer, args)
    stops = stop_tokens(tokenizer, model)
    identity = {
        "method": "slips",
        **generated_by(model, engine),
        "max_completion_length": max_completion_length,
        "stop_tokens": stops,
        "slips": slips.digest(),
        **shared_identity(model, tokenizer, examples, args, draw),
    }

    def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
        drafts = continued(model, part, slips, args, draw, stops, max_completion_length, complete)
        on_finished(len(part))
        return {
            "id": [example.id for example in part],
            "tokens": [[draft.tokens if draft else [] for draft in own] for own in drafts],
            "finished": [[bool(draft and draft.finished) for draft in own] for own in drafts],
        }

    store = ContextStore.named_by_identity(
        directory, identity, num_examples=len(examples), shard_size=_SHARD_SIZE, schema=_SCHEMA
    )
    fill_store(store, examples, args, columns, "answering behind slips")
    found: list[list[Draft | None]] = []
    for example, record in store.joined(examples):
        drafts = [Draft(*own) for own in zip(record["tokens"], record["finished"], strict=True)]
        found.append([draft if slip else None for slip, draft in zip(slips.drawn[example.id], drafts, strict=True)])
    return found


def continued(
    model: PreTrainedModel,
    part: Sequence[Example],
    slips: Slips,
    args: TrainingArguments,
    draw: DrawOptions,
    stops: Collection[int],
    longest: int,
    complete: Complete,
) -> list[list[Draft | None]]:
    """Answers from x ⊕ y_<t ⊕ slip on, each cut where it would make y_<t ⊕ slip ⊕ answer longer than `longest`.

    `complete` is `draft_answers` without its model.
    """
    places = [(i, at, slip) for i, e in enumerate(part) for at, slip in enumerate(slips.drawn[e.id]) if slip]
    found: list[list[Draft | None]] = [[None] * len(slips.places) for _ in part]
    if not places:
        return found
    prompts = [[*part[i].prompt, *part[i].reference[: slip.at], slip.token] for i, _, slip in places]
    room = [longest - slip.at - 1 for _, _, slip in places]
    with generation_precision(model, args):
        drafts = complete(
            prompts,
            ids=[f"{part[i].id}/{at}" for i, at, _ in places],
            max_completion_length=room_behind(model, prompts, max(room)),
            stop_tokens=list(stops),
            options=draw,
        )
    for (i, at, _), own, draft in zip(places, room, drafts, strict=True):
        found[i][at] = Draft(draft.tokens[:own], draft.finished and len(draft.tokens) <= own)
    return found


def room_behind(model: PreTrainedModel, prompts: Sequence[IdList], wanted: int) -> int:
    """How many tokens can follow the longest prompt: as many as wanted, or as the model's positions leave room for."""
    limit = position_limit(model)
    return wanted if limit is None else max(1, min(wanted, limit.tokens - max(map(len, prompts)) + 1))
