"""A key/value cache in which the slot of a token is its position in its own row.

The rows of a batch stand at different positions, so there is no common "next" slot to append to. Here every row writes
each token's key and value at slot = position, and a query at position p attends to the slots 0 … p. A token that is
rejected needs no clean-up: the token that takes its place overwrites its slot before any query can look at it. When a
row's example is finished the next example starts at slot 0 of the same row.
"""

from __future__ import annotations

import inspect

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from .mode import MASKABLE_ATTENTION


class SlotLayer(DynamicLayer):
    """One layer's keys and values, `[rows, heads, slots, head_dim]`, written at the slots set by `SlotCache.place`."""

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self.row_index: Tensor | None = None
        self.slots: Tensor | None = None
        self.visible = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(self.rows, key_states.shape[1], self.capacity, key_states.shape[3])
        self.values = value_states.new_zeros(self.rows, value_states.shape[1], self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Scatter `[rows, heads, window, head_dim]` states to their slots; return all slots that any query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self.keys[self.row_index, :, self.slots] = key_states.transpose(1, 2)
        self.values[self.row_index, :, self.slots] = value_states.transpose(1, 2)
        return self.keys[: self.rows, :, : self.visible], self.values[: self.rows, :, : self.visible]

    def move_rows(self, source: Tensor, target: Tensor, remaining: int) -> None:
        self.rows = remaining
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            self.keys[target] = self.keys[source]
            self.values[target] = self.values[source]

    def get_seq_length(self) -> int:
        return 0  # positions are always passed explicitly; nothing may derive them from the cache


class SlotCache(Cache):
    """`SlotLayer`s for a model with `num_layers` attention layers, `rows` rows and `capacity` slots a row."""

    def __init__(self, num_layers: int, rows: int, capacity: int) -> None:
        super().__init__(layers=[SlotLayer(rows, capacity) for _ in range(num_layers)])

    def place(self, slots: Tensor, visible: int) -> None:
        """Say where the next forward pass writes: `slots` is `[rows, window]`; queries see slots below `visible`."""
        row_index = torch.arange(slots.shape[0], device=slots.device)[:, None]
        for layer in self.layers:
            layer.row_index, layer.slots, layer.visible = row_index, slots, visible

    def move_rows(self, source: Tensor, target: Tensor, remaining: int) -> None:
        """Copy rows `source` over rows `target` and serve the first `remaining` rows from now on."""
        for layer in self.layers:
            layer.move_rows(source, target, remaining)


def slot_mask(slots: Tensor, visible: int, dtype: torch.dtype) -> Tensor:
    """The additive attention mask for queries at `slots` (`[rows, window]`): `[rows, 1, window, visible]`."""
    allowed = torch.arange(visible, device=slots.device) <= slots[:, None, :, None]
    return torch.zeros(allowed.shape, dtype=dtype, device=slots.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def slot_forward(model: PreTrainedModel, tokens: Tensor, slots: Tensor, visible: int, cache: SlotCache) -> Tensor:
    """Feed `tokens` (`[rows, window]`) at `slots` (`[rows, window]`); return logits `[rows, window, vocab]`."""
    cache.place(slots, visible)
    return model(
        input_ids=tokens,
        position_ids=slots,
        attention_mask=slot_mask(slots, visible, model.dtype),
        past_key_values=cache,
        use_cache=True,
    ).logits


def why_no_slot_cache(model: PreTrainedModel, longest_row: int) -> str | None:
    """The reason why the slot cache cannot serve `model` on rows of `longest_row` tokens, or None if it can.

    It needs plain attention layers that take explicit positions and a 4-D mask. Whether the numbers agree with a full
    forward pass is checked by `mixing` on the first rows as well, because a configuration file cannot say it.
    """
    config = model.config.get_text_config()
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    parameters = inspect.signature(type(base).forward).parameters
    missing = {"position_ids", "past_key_values", "attention_mask"} - set(parameters)
    if missing:
        return f"its forward pass takes no {', '.join(sorted(missing))}"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder model"
    options = config.to_dict()
    layer_types = set(options.get("layer_types") or ["full_attention"])
    other = layer_types - {"full_attention", "sliding_attention"}
    if other:
        return f"it has layers of type {', '.join(sorted(other))}"
    window = options.get("sliding_window")
    slides = "sliding_attention" in layer_types or (options.get("layer_types") is None and window is not None)
    if slides and window is not None and options.get("use_sliding_window") is not False and window < longest_row:
        return f"its sliding window of {window} tokens is shorter than the longest row ({longest_row} tokens)"
    if model.config._attn_implementation not in MASKABLE_ATTENTION:
        return f"its attention implementation {model.config._attn_implementation!r} takes no 4-D mask"
    return None
