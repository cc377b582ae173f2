"""Free-running answers ŷ ~ π(· | x), each row ending by itself and its place taken by the next example.

The slot cache lets every row of a batch stand at another position, so a finished row need not wait for the longest of
its batch, and keyed noise makes an example's draft independent of the rows it happens to be decoded with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import DataError
from .checks import check_examples, check_lengths
from .mode import generation_mode
from .noise import example_keys
from .options import DrawOptions, options_from
from .passes import SlotRunner, slot_runner, whole_rows
from .sampling import KeyedSampler
from .slot_cache import SlotCache


logger = logging.getLogger(__name__)

_REFILL_SHARE = 8  # places are refilled together, once an eighth of the batch is free: single prompts make thin passes


@dataclass(frozen=True)
class Draft:
    """A draft's `tokens`, and whether it `finished`: with a stop token, its last, rather than at the length cap."""

    tokens: list[int]
    finished: bool


def draft_answers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    max_completion_length: int,
    stop_tokens: Sequence[int],
    options: DrawOptions | None = None,
    on_finished: Callable[[int], object] | None = None,
    **draw: Any,
) -> list[Draft]:
    """Let the model answer each prompt until a stop token or `max_completion_length` tokens.

    Args:
        model: a causal language model, on its device. It is put into evaluation mode and restored.
        prompts: token ids; none may be empty.
        ids: one stable string or integer for each prompt; with seed and round it fixes the noise.
        stop_tokens: token ids that end a draft.
        options: how tokens are drawn; or give the fields of `DrawOptions` as keywords (`draw`).
        on_finished: called with the number of newly finished drafts, for a progress bar.

    Returns:
        One `Draft` for each prompt, in the order given.

    Raises:
        ConfigError: an option lies outside its range. DataError: the prompts cannot be used. All faults are listed.
    """
    faults = []
    if max_completion_length < 1:
        faults.append(f"max_completion_length is {max_completion_length}: it must be at least 1")
    options = options_from(options, draw, faults)
    if len(prompts) != len(ids):
        raise DataError(f"{len(prompts)} prompts and {len(ids)} ids: give one id a prompt")
    check_examples(model, ids, {"prompt": prompts})
    fed = [len(prompt) + max_completion_length - 1 for prompt in prompts]  # an answer's last token is fed to nobody
    row = f"a prompt and an answer of up to {max_completion_length} tokens"
    check_lengths(model, ids, fed, row, "Shorten the prompts or the longest answer allowed")
    if not ids:
        return []
    keys = example_keys(ids, seed=options.seed, round_index=options.round_index)
    order = sorted(range(len(ids)), key=lambda i: -len(prompts[i]))
    with generation_mode(model):
        runner = slot_runner(model, prompts[order[0]], max(fed))
        drafter = _Drafter(
            model, prompts, keys, KeyedSampler(options, model.device), max_completion_length, stop_tokens
        )
        if isinstance(runner, str):
            logger.warning("drafts are made without a cache, in full-sequence passes, because %s", runner)
            drafter.without_cache(order, options.batch_size, on_finished)
        else:
            drafter.with_slots(runner, order, options.batch_size, on_finished)
    return [draft for draft in drafter.drafts if draft is not None]


class _Drafter:
    """The decoding loop's state that does not change: what to answer, and how tokens are drawn."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        keys: Tensor,
        sampler: KeyedSampler,
        max_completion_length: int,
        stop_tokens: Sequence[int],
    ) -> None:
        self.model, self.prompts, self.sampler = model, prompts, sampler
        self.keys = keys.to(model.device)
        self.limit = max_completion_length
        self.stops = torch.tensor(sorted(set(stop_tokens)), dtype=torch.int64, device=model.device)
        self.drafts: list[Draft | None] = [None] * len(prompts)

    def with_slots(
        self, runner: SlotRunner, order: list[int], batch_size: int, on_finished: Callable[[int], object] | None
    ) -> None:
        """Draw all answers through the slot cache, the first `active` of its rows at work.

        Between two passes this holds for every active row i with c = `length[i]` tokens drawn: `answers[i, :c]` are
        the draft's first tokens, and the cache holds the keys and values of the prompt and of the first c - 1 of them.
        A pass either feeds the last token drawn in each active row and draws the next, or feeds the prompts of
        newcomers, behind the active rows, and draws their first.
        """
        device = self.model.device
        rows = min(batch_size, len(order))
        cache = runner.new_cache(rows, len(self.prompts[order[0]]) + self.limit)
        answers = torch.zeros(rows, self.limit, dtype=torch.int64, device=device)
        example = torch.zeros(rows, dtype=torch.int64, device=device)
        start = torch.zeros(rows, dtype=torch.int64, device=device)  # prompt lengths
        length = torch.zeros(rows, dtype=torch.int64, device=device)  # answer tokens so far
        active, waiting = 0, order
        while active or waiting:
            free = rows - active
            if waiting and (not active or free * _REFILL_SHARE >= rows):
                newcomers, waiting = waiting[:free], waiting[free:]
                places = slice(active, active + len(newcomers))
                example[places] = torch.tensor(newcomers, device=device)
                start[places] = torch.tensor([len(self.prompts[i]) for i in newcomers], device=device)
                answers[places, 0] = self._answer_prompts(runner, newcomers, cache, active)
                length[places] = 1
                active += len(newcomers)
            else:
                last = answers[:active].gather(1, length[:active, None] - 1)  # [active, 1]
                slots = (start[:active] + length[:active] - 1)[:, None]
                row = torch.arange(active, device=device)
                logits = runner.logits(last, slots, cache, (row, torch.zeros_like(row)))  # [active, vocab]
                drawn = self.sampler(logits, self.keys[example[:active]], length[:active])
                answers[:active].scatter_(1, length[:active, None], drawn[:, None])
                length[:active] += 1

            newest = answers[:active].gather(1, length[:active, None] - 1)[:, 0]
            stopped = torch.isin(newest, self.stops)
            done = (stopped | (length[:active] >= self.limit)).nonzero().flatten()
            if not len(done):
                continue
            self._collect(done, answers, example, length, stopped)
            if on_finished is not None:
                on_finished(len(done))
            # The last active rows move into the emptied places.
            active -= len(done)
            target = done[done < active]
            tail = torch.arange(active, active + len(done), device=device)
            source = tail[~torch.isin(tail, done)]
            cache.move_rows(source, target)
            for state in (answers, example, start, length):
                state[target] = state[source]

    def _answer_prompts(self, runner: SlotRunner, newcomers: list[int], cache: SlotCache, first: int) -> Tensor:
        """Feed whole prompts into the rows from `first` on and draw each answer's first token."""
        device = self.model.device
        lengths = torch.tensor([len(self.prompts[i]) for i in newcomers], device=device)
        width = int(lengths.max())
        tokens = torch.tensor(
            [[*self.prompts[i], *[0] * (width - len(self.prompts[i]))] for i in newcomers], device=device
        )
        slots = torch.arange(width, device=device).expand(len(newcomers), width)
        at = (torch.arange(len(newcomers), device=device), lengths - 1)
        last = runner.logits(tokens, slots, cache, at, first=first)
        return self.sampler(last, self.keys[newcomers], torch.zeros_like(lengths))

    def without_cache(self, order: list[int], batch_size: int, on_finished: Callable[[int], object] | None) -> None:
        """One full-sequence pass a token: for models that the slot cache cannot serve."""
        device = self.model.device
        for chunk in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
            start = torch.tensor([len(self.prompts[i]) for i in chunk], device=device)
            width = int(start.max()) + self.limit
            tokens = torch.tensor(
                [[*self.prompts[i], *[0] * (width - len(self.prompts[i]))] for i in chunk], device=device
            )
            example = torch.tensor(chunk, device=device)
            answers = torch.zeros(len(chunk), self.limit, dtype=torch.int64, device=device)
            length = torch.zeros(len(chunk), dtype=torch.int64, device=device)
            while len(example):
                at = start + length
                used = int(at.max())
                mask = (torch.arange(used, device=device) < at[:, None]).long()
                logits = whole_rows(self.model, tokens[:, :used], mask)
                drawn = self.sampler(logits[torch.arange(len(at), device=device), at - 1], self.keys[example], length)
                tokens.scatter_(1, at[:, None], drawn[:, None])
                answers.scatter_(1, length[:, None], drawn[:, None])
                length = length + 1
                stopped = torch.isin(drawn, self.stops)
                finished = stopped | (length >= self.limit)
                self._collect(finished.nonzero().flatten(), answers, example, length, stopped)
                if on_finished is not None and bool(finished.any()):
                    on_finished(int(finished.sum()))
                tokens, start, example, answers, length = (
                    state[~finished] for state in (tokens, start, example, answers, length)
                )

    def _collect(self, done: Tensor, answers: Tensor, example: Tensor, length: Tensor, stopped: Tensor) -> None:
        rows, examples, lengths = answers[done].tolist(), example[done].tolist(), length[done].tolist()
        for row, index, count, finished in zip(rows, examples, lengths, stopped[done].tolist(), strict=True):
            self.drafts[index] = Draft(row[:count], finished)
