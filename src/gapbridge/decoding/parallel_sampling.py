"""Own tokens by full-sequence passes: through a model as it stands in a trainer, wrapped or sharded too.

A pass feeds whole rows and samples every masked position at once from what stands before it in the rows fed; the
samples are written into the rows, and the next pass goes on from there. One pass is the two-pass scheme of Mihaylova &
Martins 2019, K passes are parallel scheduled sampling (Duckworth et al. 2019). Mask and noise are the same in all
passes, so that the rows settle from the left: all tokens before the first one that a pass changed are final, each pass
settles at least one sample more, and a pass that changes nothing proves every sample right. Run to there the rows are
those of the sequential definition (`gapbridge.decoding.mixing`), for any causal model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch import Tensor, nn

from .forward import forward_logits_at
from .keyed_sampler import KeyedSampler


def padded_forward_logits_at(model: nn.Module, tokens: Tensor, lengths: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """The logits `[k, vocab]` of a pass over right-padded rows at the places `at`, k rows and k columns.

    Args:
        model: a causal language model, wrapped or not.
        tokens: `[n, L]`.
        lengths: `[n]`, how many tokens of each row are fed; a row of 0 is fed its first.
    """
    base = extract_model_from_parallel(model, keep_torch_compile=False)
    base = base.get_base_model() if isinstance(base, PeftModel) else base
    attention_mask = (torch.arange(tokens.shape[1], device=tokens.device) < lengths.clamp(min=1)[:, None]).long()
    rows, columns = at
    # Counted from the end, because prompt tuning puts its virtual tokens before a row.
    places = (rows, columns - tokens.shape[1])
    inputs = {"input_ids": tokens, "attention_mask": attention_mask, "use_cache": False}
    return forward_logits_at(model, base.get_output_embeddings(), places, inputs)


def parallel_sample(
    model: nn.Module,
    tokens: Tensor,
    sampling_mask: Tensor,
    start: Tensor,
    keys: Tensor,
    sampler: KeyedSampler,
    *,
    num_sampling_passes: int | None = None,
    anywhere: Callable[[bool], bool] = bool,
) -> Tensor:
    """Sample the masked positions of right-padded rows.

    The caller puts the model into evaluation mode (`gapbridge.decoding.model_state.evaluation_mode`). Where weights
    are sharded all processes must make as many passes, those without such positions too: they do with a number, and
    with `anywhere` otherwise. ZeRO-3 is to be called through its engine: passes through the module inside would upset
    the order of modules that it has learnt, and break the next backward pass.

    Args:
        model: a causal language model, wrapped or not, on the rows' device.
        tokens: `[n, L]`, prompt ⊕ first guess.
        sampling_mask: `[n, L]`, bool: the positions to sample; none in column 0.
        start: `[n]`, the column of answer position 0.
        keys: `[n, 2]` from `gapbridge.decoding.noise.example_keys`.
        num_sampling_passes: how many; None goes on until no pass of any process changes a token.
        anywhere: from a truth value of this process to whether it holds in any process.

    Returns:
        `[n, L]`: `tokens` with the samples written into them.
    """
    tokens = tokens.clone()
    at_row, at_column = sampling_mask.nonzero(as_tuple=True)  # [k]
    columns = torch.arange(sampling_mask.shape[1], device=sampling_mask.device)
    last = torch.where(sampling_mask, columns, 0).amax(dim=1)  # [n]
    width = max(int(last.max()), 1)  # inputs up to position last - 1 are needed
    made, changed = 0, bool(len(at_row))
    while made < num_sampling_passes if num_sampling_passes is not None else anywhere(changed):
        logits = padded_forward_logits_at(model, tokens[:, :width], last, (at_row, at_column - 1))
        sampled = sampler(logits, keys[at_row], at_column - start[at_row])
        changed = bool((tokens[at_row, at_column] != sampled).any())
        tokens[at_row, at_column] = sampled
        made += 1
    return tokens
