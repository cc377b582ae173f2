"""The decoding loop of free-running answers: each row ends by itself, and its place is taken by the next example.

The slot cache lets every row of a batch stand at another position, so a finished row need not wait for the longest of
its batch. Keyed noise makes an example's answer independent of the rows that are decoded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .forward import SlotRunner
from .keyed_sampler import KeyedSampler
from .memory_limits import BatchLimits
from .parallel_sampling import padded_forward_logits_at
from .slot_cache import SlotCache


_REFILL_SHARE = 8  # places are refilled together, once an eighth of the batch is free: single prompts make thin passes
PROMPT_COLUMNS = 512  # of prompts in one pass


@dataclass(frozen=True)
class Completion:
    """A completion's `tokens`, and whether it `finished`: with a stop token, its last, rather than at the length
    cap."""

    tokens: list[int]
    finished: bool


class Answers(NamedTuple):
    """The rows of the cache: the tokens sampled so far, the place of the prompt, and the lengths of both."""

    tokens: Tensor  # [rows, longest]
    example: Tensor  # [rows], as all below
    start: Tensor  # of the prompt
    length: Tensor  # of the answer

    def take(self, rows: slice | Tensor) -> Answers:
        return Answers(*(part[rows] for part in self))


class BatchedGenerator:
    """The decoding loop's state that does not change: what to answer, and how tokens are sampled."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        keys: Tensor,
        sampler: KeyedSampler,
        max_completion_length: int,
        stop_tokens: Sequence[int],
        limits: BatchLimits,
        on_finished: Callable[[int], object],
    ) -> None:
        self.model, self.prompts, self.sampler = model, prompts, sampler
        self.keys = keys.to(model.device)
        self.limit = max_completion_length
        self.limits, self.on_finished = limits, on_finished
        self.stops = torch.tensor(sorted(set(stop_tokens)), dtype=torch.int64, device=model.device)
        self.completions: list[Completion | None] = [None] * len(prompts)
        self.margin = 0  # how many tokens a pass may write after an answer's end

    def with_slots(self, runner: SlotRunner, order: list[int]) -> None:
        """Sample all answers through the slot cache. Those under way when memory runs out begin again, fewer a pass.

        Args:
            order: the prompts, longest first.
        """
        while waiting := [i for i in order if self.completions[i] is None]:
            capacity = len(self.prompts[waiting[0]]) + self.limit
            cache = runner.new_cache(min(self.limits.rows_of(capacity), len(waiting)), capacity)
            try:
                self._fill_slots(runner, cache, waiting)
            except RuntimeError as error:
                if not self.limits.back_off(error, cache.rows, cache.capacity):
                    raise

    def _fill_slots(self, runner: SlotRunner, cache: SlotCache, waiting: list[int]) -> None:
        """Answer the prompts `waiting`, longest first; the first `active` rows of the cache are at work.

        Between two passes this holds for every active row i with c = `length[i]` tokens sampled: `answers[i, :c]` are
        the completion's first tokens, and the cache holds the keys and values of the prompt and of the first c - 1 of
        them. A pass either feeds the last token sampled in each active row and samples the next, or feeds the prompts
        of newcomers, after the active rows, and samples their first.
        """
        device = self.model.device
        rows = min(self.limits.rows, len(waiting))  # the cache may get as many, once prompts are short
        answers = torch.zeros(rows, self.limit + self.margin, dtype=torch.int64, device=device)
        state = Answers(answers, *(torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(3)))
        active, reach = 0, 0  # reach: the most tokens, of prompt and answer, in an active row
        while active or waiting:
            free = cache.rows - active
            if waiting and (not active or free * _REFILL_SHARE >= cache.rows):
                newcomers, waiting = waiting[:free], waiting[free:]
                new = state.take(slice(active, active + len(newcomers)))
                new.example[:] = torch.tensor(newcomers, device=device)
                new.start[:] = torch.tensor([len(self.prompts[i]) for i in newcomers], device=device)
                new.tokens[:, 0] = self._answer_prompts(runner, newcomers, cache, active)
                new.length[:] = 1
                active += len(newcomers)
            else:
                self._sample_next(runner, cache, reach, state.take(slice(active)))

            tokens, _, start, length = current = state.take(slice(active))
            stopped = torch.isin(tokens.gather(1, length[:, None] - 1)[:, 0], self.stops)
            ended = stopped | (length >= self.limit)
            # The one wait for the device in a pass.
            count, reach = torch.stack([ended.sum(), (start + length).max()]).tolist()
            self.on_finished(count)  # after passes that finish none, too: a bar shows that time goes on
            if not count:
                continue
            done = ended.nonzero().flatten()
            self._collect(done, current, stopped)
            # The last active rows move into the emptied places.
            active -= count
            target = done[done < active]
            tail = torch.arange(active, active + count, device=device)
            source = tail[~torch.isin(tail, done)]
            cache.move_rows(source, target)
            for part in state:
                part[target] = part[source]
            self._move(source, target)
            if waiting:
                self._widen(cache, [*state.example[:active].tolist(), waiting[0]], active + len(waiting))

    def _sample_next(self, runner: SlotRunner, cache: SlotCache, reach: int, rows: Answers) -> None:
        """Sample one token or more in each of the active rows: write them and count them in `rows`."""
        row = torch.arange(len(rows.length), device=rows.length.device)
        last = rows.tokens.gather(1, rows.length[:, None] - 1)  # [active, 1]
        slots, visible = (rows.start + rows.length - 1)[:, None], min(reach, cache.capacity)
        logits = runner.logits(last, slots, cache, (row, torch.zeros_like(row)), visible=visible)
        sampled = self.sampler(logits, self.keys[rows.example], rows.length)
        rows.tokens.scatter_(1, rows.length[:, None], sampled[:, None])
        rows.length.add_(1)

    def _move(self, source: Tensor, target: Tensor) -> None:
        """Take what is kept of the rows `source` over to the rows `target`."""

    def _begin(self, runner: SlotRunner, rows: Tensor, at: tuple[Tensor, Tensor], examples: Tensor) -> None:
        """The rows `rows` of the cache have their first token: their prompts ended at the places `at` of the pass."""

    def _widen(self, cache: SlotCache, examples: list[int], wanted: int) -> None:
        """Give `cache` more rows, up to those `wanted`, where prompts are so short that twice as many have room."""
        capacity = max(len(self.prompts[i]) for i in examples) + self.limit
        if self.limits.rows_of(capacity) >= 2 * cache.rows:
            cache.resize(min(self.limits.rows_of(capacity), wanted), capacity)

    def _answer_prompts(self, runner: SlotRunner, newcomers: list[int], cache: SlotCache, first: int) -> Tensor:
        """Feed whole prompts, longest first, into the rows from `first` on and sample each answer's first token.

        `PROMPT_COLUMNS` are fed at a time, of the prompts that are so long: the mask of a pass has as many rows.
        """
        device = self.model.device
        lengths = [len(self.prompts[i]) for i in newcomers]
        width = lengths[0]
        tokens = torch.tensor(
            [[*self.prompts[i], *[0] * (width - len(self.prompts[i]))] for i in newcomers], device=device
        )
        slots = torch.arange(width, device=device).expand(len(newcomers), width)
        sampled = torch.zeros(len(newcomers), dtype=torch.int64, device=device)
        for begin in range(0, width, PROMPT_COLUMNS):
            end = min(begin + PROMPT_COLUMNS, width)
            fed = sum(length > begin for length in lengths)
            ending = [row for row in range(fed) if lengths[row] <= end]
            row = torch.tensor(ending, dtype=torch.int64, device=device)
            column = torch.tensor([lengths[i] - 1 - begin for i in ending], dtype=torch.int64, device=device)
            part = tokens[:fed, begin:end], slots[:fed, begin:end]
            last = runner.logits(*part, cache, (row, column), first=first, visible=end)
            if ending:
                examples = torch.tensor([newcomers[i] for i in ending], device=device)
                sampled[row] = self.sampler(last, self.keys[examples], torch.zeros_like(row))
                self._begin(runner, row + first, (row, column), examples)
        return sampled

    def without_cache(self, order: list[int]) -> None:
        """One full-sequence pass a token: for models that the slot cache cannot serve."""
        while waiting := [i for i in order if self.completions[i] is None]:
            longest = len(self.prompts[waiting[0]]) + self.limit
            chunk = waiting[: self.limits.rows_of(longest)]
            try:
                self._in_whole_rows(chunk)
            except RuntimeError as error:
                if not self.limits.back_off(error, len(chunk), longest):
                    raise

    def _in_whole_rows(self, chunk: list[int]) -> None:
        device = self.model.device
        start = torch.tensor([len(self.prompts[i]) for i in chunk], device=device)
        width = int(start.max()) + self.limit
        tokens = torch.tensor(
            [[*self.prompts[i], *[0] * (width - len(self.prompts[i]))] for i in chunk], device=device
        )
        zeros = torch.zeros(len(chunk), self.limit, dtype=torch.int64, device=device)
        rows = Answers(zeros, torch.tensor(chunk, device=device), start, torch.zeros_like(start))
        while len(rows.example):
            at = rows.start + rows.length
            row = torch.arange(len(at), device=device)
            logits = padded_forward_logits_at(self.model, tokens[:, : int(at.max())], at, (row, at - 1))  # [n, vocab]
            sampled = self.sampler(logits, self.keys[rows.example], rows.length)
            tokens.scatter_(1, at[:, None], sampled[:, None])
            rows.tokens.scatter_(1, rows.length[:, None], sampled[:, None])
            rows.length.add_(1)
            stopped = torch.isin(sampled, self.stops)
            finished = stopped | (rows.length >= self.limit)
            done = finished.nonzero().flatten()
            self._collect(done, rows, stopped)
            self.on_finished(len(done))
            tokens, rows = tokens[~finished], rows.take(~finished)

    def _collect(self, done: Tensor, rows: Answers, stopped: Tensor) -> None:
        tokens, examples, _, lengths = (part[done].tolist() for part in rows)
        for row, index, count, finished in zip(tokens, examples, lengths, stopped[done].tolist(), strict=True):
            self.completions[index] = Completion(row[:count], finished)
