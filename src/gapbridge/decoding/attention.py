"""Grouped-query attention (Ainslie et al. 2023) under a mask of its own for each row, without copies of the keys.

Under a mask transformers' sdpa copies keys and values for each of the g query heads that share them, in every layer of
every pass. But g heads of w queries over the same keys are one head of g · w queries: here only the mask is repeated.
`slot_runner` compares a pass in this layout with transformers' own before it is used.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


GROUPED = "gapbridge_grouped"  # what a model's configuration names while it generates
# Options of some models' attention, which transformers serves or refuses.
_CHANGES_SCORES = ("softcap", "position_bias")


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: `sdpa_attention_forward`, the g query heads of a key head as one.

    Args:
        query: `[n, g · heads, w, head_dim]`.
        key, value: `[n, heads, visible, head_dim]`.
        attention_mask: `[n, 1, w, visible]`, boolean or added to the scores. Without one, with one for each head, or
            with one that would grow by more than the copies take, attention is transformers' own.

    Returns:
        `[n, w, g · heads, head_dim]`, and None for the weights, which sdpa does not return.
    """
    rows, query_heads, width, dim = query.shape
    heads = key.shape[1]
    groups = query_heads // heads
    changed = any(kwargs.get(name) is not None for name in _CHANGES_SCORES)
    changed = changed or groups == 1 or expands_gqa_keys(heads, dim, width)
    if attention_mask is None or attention_mask.shape[1] != 1 or changed:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    attended = scaled_dot_product_attention(
        query.reshape(rows, heads, groups * width, dim),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, groups, 1),  # [n, 1, g · w, visible]
        dropout_p=dropout,
        scale=scaling,
    )
    return attended.reshape(rows, query_heads, width, value.shape[-1]).transpose(1, 2).contiguous(), None


def expands_gqa_keys(heads: int, dim: int, width: int) -> bool:
    """Whether copies of `heads` heads of keys and values take less than those of a mask with `width` rows."""
    return width > 2 * heads * dim


# transformers finds attention, and the masks that it makes for it, by the name in a model's configuration.
AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
