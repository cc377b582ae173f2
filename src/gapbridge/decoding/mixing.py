"""Mixed contexts for BASH (Cen et al. 2025, Algorithm 1): ŷ_t = y_t where the sampling mask is false, else ŷ_t ~ π(· |
x, ŷ_<t).

`mix_contexts_sequential` is the definition, one position at a time and without a cache. `mix_contexts` gives the same
tokens in far fewer passes by using the reference as a speculative draft: between two sampled positions everything is
known, and where it is true the reference token is a good guess of what the model will sample. Each pass feeds every
row its next `verify_window` tokens from its last settled position, samples all masked positions of that window at
once, and settles up to and including the first sampled token that differs from the reference; what was fed beyond that
token stood on a wrong context and is fed again. Every settled token was thus sampled on settled tokens only, with
noise that depends on its place alone (`noise`): the schedule cannot change it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..compat import vocabulary_size
from ..errors import DataError, describe
from .batch_state import Batch, DecodingRows, padded_rows
from .forward import SlotRunner, SlotRunners, forward_logits
from .keyed_sampler import KeyedSampler
from .memory_limits import BatchLimits
from .model_state import generation_mode
from .noise import bernoulli_mask, example_keys
from .parallel_sampling import parallel_sample
from .sampling_params import SamplingParams, resolve_sampling_params
from .validate_inputs import check_examples, check_lengths


logger = logging.getLogger(__name__)

_BLOCK_ROWS = 512  # examples whose padded tensors are held at a time
_LOGITS = 2**28  # logits that a full-sequence pass holds at a time: 1 GB in float32
_PASS_COST = {True: 2.0, False: 16.0}  # fixed cost of a pass on a CPU (True) or another device, in columns of a window


@dataclass(frozen=True)
class MixedContext:
    """A mixed answer: `tokens` is as long as the reference, `sampled` says which were sampled (never at the end)."""

    tokens: list[int]
    sampled: list[bool]


def mix_contexts(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    mixture_coefficient: float,
    fixed: Sequence[Sequence[bool]] | None = None,
    options: SamplingParams | None = None,
    on_finished: Callable[[int], object] | None = None,
    runners: SlotRunners | None = None,
    **draw: Any,
) -> list[MixedContext]:
    """Mix each reference with the model's own tokens, in few passes, exactly as `mix_contexts_sequential` does.

    Args:
        model: a causal language model, on its device. It is put into evaluation mode and restored.
        prompts, references: token ids; none may be empty. A reference's last token is never sampled.
        ids: one stable string or integer an example; with seed and round it fixes the sampling mask and the noise.
        mixture_coefficient: β, the probability in [0, 1] that a position is sampled.
        fixed: for each example as many truth values as its reference has tokens; where one is true the reference token
            stays. The mask and the noise of the other positions do not depend on it.
        options: how tokens are sampled; or give the fields of `SamplingParams` as keywords (`draw`).
        on_finished: called with the number of newly finished examples, for a progress bar.
        runners: keeps the check of the slot cache for the next call; by default each call checks.

    Returns:
        One `MixedContext` for each example, in the order given.

    Raises:
        ConfigError: an option lies outside its range. DataError: the examples cannot be used. All errors are listed.
    """
    options = _checked(model, prompts, references, ids, mixture_coefficient, fixed, options, draw)
    if not ids:
        return []
    done = on_finished or (lambda _: None)
    keys = example_keys(ids, seed=options.seed, round_index=options.round_index)
    lengths = torch.tensor([len(x) + len(y) for x, y in zip(prompts, references, strict=True)])
    order = torch.argsort(lengths, descending=True, stable=True)
    mixed: list[MixedContext | None] = [None] * len(ids)
    longest = int(order[0])
    with generation_mode(model):
        runner = (runners or SlotRunners()).find(model, [*prompts[longest], *references[longest]], int(lengths.max()))
        if isinstance(runner, str):
            logger.warning("contexts are mixed without a cache, in full-sequence passes, because %s", runner)
        sampler = KeyedSampler(options, model.device)
        limits = BatchLimits(options.batch_size, options.batch_tokens)
        for block in order.split(max(_BLOCK_ROWS, 2 * options.batch_size)):
            examples = block.tolist()
            rows = padded_rows(
                [prompts[i] for i in examples],
                [references[i] for i in examples],
                keys[block],
                mixture_coefficient,
                [fixed[i] for i in examples] if fixed is not None else None,
            )
            if isinstance(runner, str):
                _mix_fixed_point(model, rows, sampler, limits, done)
            else:
                _mix_slots(runner, rows, sampler, options.verify_window, limits, done)
            for row, example in enumerate(examples):
                first, end = len(prompts[example]), len(prompts[example]) + len(references[example])
                tokens, sampled = rows.tokens[row, first:end], rows.sampling_mask[row, first:end]
                mixed[example] = MixedContext(tokens.tolist(), sampled.tolist())
    return [context for context in mixed if context is not None]


def mix_contexts_sequential(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    mixture_coefficient: float,
    fixed: Sequence[Sequence[bool]] | None = None,
    options: SamplingParams | None = None,
    on_finished: Callable[[int], object] | None = None,
    **draw: Any,
) -> list[MixedContext]:
    """The definition of a mixed context: every sampled position costs one forward pass over all that stands before it.

    Takes what `mix_contexts` takes; verify_window and batch size have no effect. For tests and reading, not for use.
    """
    options = _checked(model, prompts, references, ids, mixture_coefficient, fixed, options, draw)
    mixed = []
    with generation_mode(model):
        sampler = KeyedSampler(options, model.device)
        for row, (example_id, x, y) in enumerate(zip(ids, prompts, references, strict=True)):
            key = example_keys([example_id], seed=options.seed, round_index=options.round_index)
            sampling_mask = bernoulli_mask(key.expand(len(y), 2), torch.arange(len(y)), mixture_coefficient)
            sampling_mask[-1] = False
            if fixed is not None:
                sampling_mask &= ~torch.tensor(fixed[row], dtype=torch.bool)
            context: list[int] = []
            for t, reference_token in enumerate(y):
                if sampling_mask[t]:
                    before = torch.tensor([[*x, *context]], device=model.device)
                    logits = forward_logits(model, before)[:, -1]
                    position = torch.tensor([t], device=model.device)
                    context.append(int(sampler(logits, key.to(model.device), position)))
                else:
                    context.append(reference_token)
            mixed.append(MixedContext(context, sampling_mask.tolist()))
            if on_finished is not None:
                on_finished(1)
    return mixed


def _mix_slots(
    runner: SlotRunner,
    examples: DecodingRows,
    sampler: KeyedSampler,
    verify_window: int,
    limits: BatchLimits,
    on_finished: Callable[[int], object],
) -> None:
    """Fill `examples.tokens` in place. What is under way when memory runs out begins again, with fewer rows a pass."""
    left = examples.last > 0  # examples without a sampled position need no pass
    on_finished(int((~left).sum()))
    while left.any():
        batch = Batch.of(examples, left, runner, limits)
        try:
            _mix_batch(runner, batch, sampler, verify_window, on_finished)
        except RuntimeError as error:
            if not limits.back_off(error, batch.cache.rows, batch.cache.capacity):
                raise


def _mix_batch(
    runner: SlotRunner, batch: Batch, sampler: KeyedSampler, verify_window: int, on_finished: Callable[[int], object]
) -> None:
    """Mix all that is left. A finished row's place is taken by the next example, longest first.

    A pass feeds each of n rows w tokens, those at its slots s … s + w - 1 with s = `settled`; their logits speak of
    the positions s + 1 … s + w. Between two passes this holds for every row: its tokens 0 … s are those of the
    definition, the cache holds the keys and values of 0 … s - 1, and after s stands the reference. The sampled tokens
    of a window are right up to and including the first that differs from the reference, for up to there the tokens fed
    are those of the definition; the first one that differs is written and becomes the row's new s, so that the next
    pass overwrites the slots that were filled with what it replaced.
    """
    device = runner.model.device
    offsets = torch.arange(verify_window, device=device)
    # sampled tokens that equalled the reference, of how many: first a guess
    accepted = torch.tensor([3, 4], device=device)
    while len(batch.rows):
        # The one wait for the device in a pass.
        finished, width, count, reach = _verify_inputs(batch, offsets, accepted).tolist()
        if finished:
            batch.refill(on_finished)
            continue
        rows, settled, capacity = batch.rows, batch.settled, batch.cache.capacity
        slots = (settled[:, None] + offsets[:width]).clamp(max=capacity - 1)  # [n, w]
        following = slots + 1
        tokens, completion = rows.tokens.gather(1, slots), rows.tokens.gather(1, following)
        at_row, at_column = _places(rows.sampling_mask.gather(1, following) & (slots < capacity - 1), count)  # [k]
        visible = min(reach + width, capacity)
        logits = runner.logits(tokens, slots, batch.cache, (at_row, at_column), visible=visible)  # [k, vocab]
        answer_position = following[at_row, at_column] - rows.start[at_row]
        sampled = completion.clone()
        sampled[at_row, at_column] = sampler(logits, rows.keys[at_row], answer_position)

        differs = sampled != completion
        rejected = differs.any(dim=1)
        first = torch.where(rejected, differs.int().argmax(dim=1), width - 1)  # [n], the last column that settles
        batch.settled = settled + first + 1
        valid = (at_column <= first[at_row]).sum()
        accepted = accepted + torch.stack([valid - rejected.sum(), valid])
        rows.tokens.scatter_(1, following.gather(1, first[:, None]), sampled.gather(1, first[:, None]))


def _places(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the `count` true values of `mask`: `nonzero` without its wait for the device."""
    places = torch.argsort(mask.flatten().int(), descending=True, stable=True)[:count]
    return places // mask.shape[1], places % mask.shape[1]


def _verify_inputs(batch: Batch, offsets: Tensor, accepted: Tensor) -> Tensor:
    """What the next pass must know: `[4]`, how many rows have finished, its window w, the number of sampled positions
    in it, and the largest of `settled`.

    w, at most as many as `offsets` `[verify_window]`, is the window that settles the most tokens for its cost, where
    each sampled token is accepted at the rate a, `accepted[0] / accepted[1]`. The token at a row's j-th column settles
    if every sample before it is accepted: with a^c for the c sampled positions before it, and not at all after the
    row's last sampled position. A window of w columns thus settles Σ_rows Σ_{j<w} a^c on average and costs (fixed cost
    + w). Wide windows waste what is fed beyond a rejected token, narrow ones pay the fixed cost of a pass too often.
    The cost is modelled, not timed, so that the schedule, and with it every rounding error, is the same in every run.
    """
    rows, settled = batch.rows, batch.settled
    following = settled[:, None] + offsets + 1  # [n, verify_window], as all below
    places = following.clamp(max=rows.sampling_mask.shape[1] - 1)
    sampling_mask = rows.sampling_mask.gather(1, places)  # the last column has none
    coins_before = sampling_mask.cumsum(dim=1) - sampling_mask.long()
    useful = ((accepted[0] / accepted[1]) ** coins_before) * (following <= rows.last[:, None])
    cost = _PASS_COST[settled.device.type == "cpu"] + offsets + 1
    last_column = (useful.sum(dim=0).cumsum(dim=0) / cost).argmax()
    count = sampling_mask.sum(dim=0).cumsum(dim=0).take(last_column)
    return torch.stack([(settled >= rows.last).sum(), last_column + 1, count, settled.max()])


def _mix_fixed_point(
    model: PreTrainedModel,
    examples: DecodingRows,
    sampler: KeyedSampler,
    limits: BatchLimits,
    on_finished: Callable[[int], object],
) -> None:
    """Fill `examples.tokens` in place by full-sequence passes until nothing changes: exact for any causal model.

    As many rows go into a pass as the limits allow, and as have no more logits sampled than `_LOGITS`: at least one.
    """
    drawable = _LOGITS // vocabulary_size(model)  # places
    num_sampled = examples.sampling_mask.sum(dim=1)
    done = 0
    while done < len(examples):
        width = max(int(examples.last[done:].max()), 1)
        ends = num_sampled[done : done + limits.rows_of(width)].cumsum(dim=0)
        chunk = slice(done, done + max(1, int((ends <= drawable).sum())))
        rows = examples.take(chunk).to(model.device)
        try:
            sampled = parallel_sample(model, rows.tokens, rows.sampling_mask, rows.start, rows.keys, sampler)
        except RuntimeError as error:
            if not limits.back_off(error, len(rows), width):
                raise
            continue
        examples.tokens[chunk] = sampled.cpu()
        done = chunk.stop
        on_finished(len(rows))


def _checked(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    ids: Sequence[str | int],
    mixture_coefficient: float,
    fixed: Sequence[Sequence[bool]] | None,
    options: SamplingParams | None,
    draw: dict[str, Any],
) -> SamplingParams:
    """The options, after all arguments were looked at."""
    wrong = []
    if not 0 <= mixture_coefficient <= 1:
        wrong.append(describe("mixture_coefficient", mixture_coefficient, "a number from 0 to 1", "Correct the value"))
    options = resolve_sampling_params(options, draw, wrong)
    lists: dict[str, Sequence[Any]] = {"prompts": prompts, "references": references, "ids": ids}
    lists |= {} if fixed is None else {"fixed": fixed}
    if len(set(map(len, lists.values()))) > 1:
        found = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise DataError("arguments", found, "one of each an example", "Give lists of equal length")
    check_examples(model, ids, {"prompt": prompts, "reference": references})
    lengths = [len(x) + len(y) for x, y in zip(prompts, references, strict=True)]
    check_lengths(model, ids, lengths, "prompt and reference", "Shorten or leave out such rows (max_length)")
    each = "one for each token of the reference"
    errors = [
        describe(f"example {example_id!r}, fixed", f"{len(mask)} values", f"{len(y)}, {each}", "Correct the mask")
        for example_id, mask, y in zip(ids, fixed or (), references, strict=False)
        if len(mask) != len(y)
    ]
    if errors:
        raise DataError(errors)
    return options
