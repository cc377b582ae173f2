"""Self-speculative decoding: future heads propose tokens, and the model's own head confirms them in the next pass.

A pass feeds a row's newest token and the n - 1 tokens proposed after it. Head 1 samples at each of these places; what
it samples counts up to and including the first token that differs from the proposal, since everything before it was
sampled after the right tokens. Then heads 2 … n propose what follows from the last place that counts. A pass gives
between 1 and n tokens, and every one of them is head 1's own sample, with the noise of its place: the answers are
those of plain decoding, greedy or not (up to floating-point ties).

A proposal is sampled from its head with the noise that head 1 will sample with at that place, so that two heads that
say the same give the same token also at a temperature above 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .engine import Answers, BatchedGenerator
from .forward import SlotRunner
from .mtp_heads import MTPHeads, capture_hidden_states, find_decoder_parts, layer_output
from .slot_cache import SlotCache


@dataclass
class SpeculativeStats:
    """The heads that propose, and what came of it."""

    heads: MTPHeads
    passes: int = 0  # of the model, whatever the number of their rows
    row_passes: int = 0  # the rows in them: as many as tokens without speculation
    tokens: int = 0  # that were sampled
    proposed: list[int] = field(default_factory=list)  # by head, 2 first: the proposals that were looked at
    accepted: list[int] = field(default_factory=list)  # and those that the model drew itself

    def generator(self, *parts: Any) -> BatchedGenerator:
        """What samples with these heads; `parts` as for [`BatchedGenerator`]."""
        return SpeculativeGenerator(*parts, speculation=self)

    @property
    def passes_per_token(self) -> float:
        """Forward passes that a row needs for a token; 1 without speculation."""
        return self.row_passes / max(1, self.tokens)

    @property
    def acceptance(self) -> list[float]:
        """Of the proposals of heads 2 to n that were looked at, the share that was right."""
        return [right / max(1, count) for right, count in zip(self.accepted, self.proposed, strict=True)]


class SpeculativeRunner(SlotRunner):
    """A `SlotRunner` whose passes go through the heads as well, which have places in the cache."""

    def __init__(self, model: PreTrainedModel, windows: dict[str, int | None], heads: MTPHeads) -> None:
        super().__init__(model, windows)
        self.heads, self.parts = heads, find_decoder_parts(model)
        self.num_layers += len(heads)
        self._states: list[Tensor] = []

    def logits(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in `SlotRunner`; the heads' keys and values are written, too."""
        with capture_hidden_states(self.parts) as captured:
            logits = super().logits(*args, **kwargs)
        assert captured.states is not None
        self._states = [layer_output(self.heads, index, captured, captured.states) for index in range(len(self.heads))]
        return logits

    def proposals(self, at: tuple[Tensor, Tensor]) -> Tensor:
        """The logits of heads 2 to n at the places `at` (k rows and columns) of the last pass: `[heads, k, vocab]`."""
        chosen = torch.stack([states[at] for states in self._states])  # [heads, k, d]
        logits: Tensor = self.parts.unembedding(self.parts.norm(chosen))
        return logits


class SpeculativeGenerator(BatchedGenerator):
    """A `BatchedGenerator` that samples up to n tokens in a pass."""

    def __init__(self, *parts: Any, speculation: SpeculativeStats) -> None:
        super().__init__(*parts)
        self.speculation = speculation
        self.margin = len(speculation.heads)
        device = self.keys.device
        self._ahead = torch.arange(self.margin + 1, device=device)
        self._proposed = torch.zeros(0, self.margin, dtype=torch.int64, device=device)  # [rows, n - 1]
        self._counts = torch.zeros(2, self.margin, dtype=torch.int64, device=device)  # proposed, accepted

    def with_slots(self, runner: SlotRunner, order: list[int]) -> None:
        speculative = SpeculativeRunner(runner.model, runner.windows, self.speculation.heads)
        self._proposed = self._proposed.new_zeros(len(order), self.margin)
        super().with_slots(speculative, order)
        self.speculation.tokens += sum(len(completion.tokens) for completion in self.completions if completion)
        self.speculation.proposed, self.speculation.accepted = self._counts.tolist()

    def _begin(self, runner: SlotRunner, rows: Tensor, at: tuple[Tensor, Tensor], examples: Tensor) -> None:
        self.speculation.passes += 1
        self.speculation.row_passes += len(rows)
        self._proposed[rows] = self._propose(runner, at, self.keys[examples], torch.ones_like(rows))

    def _sample_next(self, runner: SlotRunner, cache: SlotCache, reach: int, rows: Answers) -> None:
        """Feed the newest token and what is proposed after it; keep what head 1 samples there, up to the first other.

        Column j feeds the answer's token `length - 1 + j` and samples token `length + j`.
        """
        answers, example, start, length = rows
        active, device = len(length), length.device
        proposed, keys = self._proposed[:active], self.keys[example]
        fed = torch.cat([answers.gather(1, length[:, None] - 1), proposed], dim=1)  # [active, n]
        # Behind an answer's last token nothing counts, and all is written to one slot that no other token sees.
        slots = (length[:, None] - 1 + self._ahead).clamp(max=self.limit - 1) + start[:, None]
        row = torch.arange(active, device=device)
        at = row.repeat_interleave(fed.shape[1]), self._ahead.repeat(active)
        logits = runner.logits(fed, slots, cache, at, visible=min(reach + self.margin, cache.capacity))
        places = length[:, None] + self._ahead  # [active, n]
        sampled = self.sampler(logits, keys.repeat_interleave(fed.shape[1], dim=0), places.flatten()).view_as(fed)

        right = (sampled[:, :-1] == proposed).long()  # [active, n - 1]
        going = 1 - torch.isin(sampled[:, :-1], self.stops).long()
        counted = torch.cat([torch.ones_like(length)[:, None], (right * going).cumprod(dim=1)], dim=1)
        counted *= places < self.limit  # [active, n], 1 where a sample counts
        answers.scatter_(1, places, sampled)
        length += counted.sum(dim=1)

        last = counted.sum(dim=1) - 1
        self._proposed[:active] = self._propose(runner, (row, last), keys, length)
        looked_at = counted[:, :-1] * (places[:, 1:] < self.limit)
        looked_at *= going
        self._counts += torch.stack([looked_at.sum(dim=0), (looked_at * right).sum(dim=0)])
        self.speculation.passes += 1
        self.speculation.row_passes += active

    def _propose(self, runner: SlotRunner, at: tuple[Tensor, Tensor], keys: Tensor, places: Tensor) -> Tensor:
        """Tokens for the answer positions from `places` `[k]` on, `[k, n - 1]`, by the heads at the places `at`."""
        assert isinstance(runner, SpeculativeRunner)
        logits = runner.proposals(at)  # [n - 1, k, vocab]
        ahead = (places + self._ahead[:-1, None]).flatten()
        return self.sampler(logits.flatten(0, 1), keys.repeat(self.margin, 1), ahead).view(self.margin, -1).T

    def _move(self, source: Tensor, target: Tensor) -> None:
        self._proposed[target] = self._proposed[source]
