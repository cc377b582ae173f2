"""A key/value cache in which the slot of a token is its position in its own row.

The rows of a batch stand at different positions, so there is no common "next" slot to append to. Here every row writes
each token's key and value at slot = position, and a query at position p attends to the slots 0 … p. A token that is
rejected needs no clean-up: the token that takes its place overwrites its slot before any query can look at it. When a
row's example is finished the next example starts at slot 0 of the same row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from .mode import MASKABLE_ATTENTION


class SlotLayer(DynamicLayer):
    """One layer's keys and values, `[rows, heads, slots, head_dim]`, written where `SlotCache.place` says."""

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self.slots: Tensor | None = None
        self.first, self.visible = 0, capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        # Zeros, not empty memory: a masked slot still enters a product with weight 0, and 0 · NaN is NaN.
        self.keys = key_states.new_zeros(self.rows, key_states.shape[1], self.capacity, key_states.shape[3])
        self.values = value_states.new_zeros(self.rows, value_states.shape[1], self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Scatter `[n, heads, window, head_dim]` states to their slots; return the slots that a query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None and self.slots is not None
        end = self.first + len(self.slots)
        rows = torch.arange(self.first, end, device=self.slots.device)[:, None]
        self.keys[rows, :, self.slots] = key_states.transpose(1, 2)
        self.values[rows, :, self.slots] = value_states.transpose(1, 2)
        return self.keys[self.first : end, :, : self.visible], self.values[self.first : end, :, : self.visible]

    def move_rows(self, source: Tensor, target: Tensor) -> None:
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

    def place(self, slots: Tensor, visible: int, first: int = 0) -> None:
        """Where the next forward pass writes: rows `first` … `first + n - 1` at `slots` (`[n, window]`).

        Queries see the slots below `visible`.
        """
        for layer in self.layers:
            layer.slots, layer.visible, layer.first = slots, visible, first

    def move_rows(self, source: Tensor, target: Tensor) -> None:
        """Copy rows `source` over rows `target` (index tensors)."""
        for layer in self.layers:
            layer.move_rows(source, target)


def slot_mask(slots: Tensor, visible: int, dtype: torch.dtype) -> Tensor:
    """The additive attention mask for queries at `slots` (`[rows, window]`): `[rows, 1, window, visible]`."""
    allowed = torch.arange(visible, device=slots.device) <= slots[:, None, :, None]
    return torch.zeros(allowed.shape, dtype=dtype, device=slots.device).masked_fill_(~allowed, torch.finfo(dtype).min)


class SlotRunner:
    """Forward passes of a model through a `SlotCache`, with logits at chosen places only.

    The vocabulary is often the widest part of a model, and a pass needs logits at few of its positions: the trunk runs
    on all of them, the output embedding on those chosen. Models that scale or cap their logits need their whole
    forward pass.
    """

    def __init__(self, model: PreTrainedModel, *, whole: bool) -> None:
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.model, self.whole = model, whole
        self.trunk, self.head = base.base_model, base.get_output_embeddings()
        self.num_layers = base.config.get_text_config().num_hidden_layers

    def new_cache(self, rows: int, capacity: int) -> SlotCache:
        return SlotCache(self.num_layers, rows, capacity)

    def logits(
        self,
        tokens: Tensor,
        slots: Tensor,
        cache: SlotCache,
        at: tuple[Tensor, Tensor],
        *,
        first: int = 0,
    ) -> Tensor:
        """Feed `tokens` (`[n, window]`) at `slots` (`[n, window]`) of the rows from `first` on.

        Args:
            at: (rows, columns) in the window, k of each, where logits are wanted.

        Returns:
            `[k, vocab]`.
        """
        visible = int(slots.max()) + 1
        cache.place(slots, visible, first)
        model = self.model if self.whole else self.trunk
        output = model(
            input_ids=tokens,
            position_ids=slots,
            attention_mask=slot_mask(slots, visible, self.model.dtype),
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits[at] if self.whole else self.head(output.last_hidden_state[at])


def slot_runner(model: PreTrainedModel, row: Sequence[int], longest_row: int) -> SlotRunner | str:
    """How to run `model` through a slot cache, or the reason why it cannot be.

    `why_no_slot_cache` reads the configuration; the rest is tried: a short row goes through the cache, in ragged
    windows, and through a plain forward pass, and the logits must agree.
    """
    reason = why_no_slot_cache(model, longest_row)
    if reason:
        return reason
    tokens = torch.tensor([list(row[:24])], device=model.device).expand(2, -1)
    expected = model(input_ids=tokens[:1]).logits[0].float()
    low_precision = expected.dtype != model.dtype or torch.is_autocast_enabled(model.device.type)
    tolerance = 5e-2 if low_precision else 1e-3
    error = 0.0
    for whole in (False, True):
        runner = SlotRunner(model, whole=whole)
        error = float((_in_ragged_windows(runner, tokens) - expected).norm() / expected.norm())
        if error <= tolerance:
            return runner
    return f"the slot cache changes its logits (relative error {error:.2g}, allowed {tolerance:g})"


def _in_ragged_windows(runner: SlotRunner, tokens: Tensor) -> Tensor:
    """The first row's logits, `[length, vocab]`, while the second falls behind it."""
    length = tokens.shape[1]
    cache = runner.new_cache(2, length)
    step, at = max(1, length // 3), torch.zeros(2, dtype=torch.int64, device=tokens.device)
    columns = torch.arange(step, device=tokens.device)
    parts: dict[int, Tensor] = {}
    while int(at.min()) < length:
        slots = (at[:, None] + columns).clamp(max=length - 1)
        logits = runner.logits(tokens.gather(1, slots), slots, cache, (torch.zeros_like(columns), columns))
        parts |= dict(zip(slots[0].tolist(), logits.float(), strict=True))
        at = at + torch.tensor([step, max(1, step - 1)], device=tokens.device)
    return torch.stack([parts[position] for position in range(length)])


def why_no_slot_cache(model: PreTrainedModel, longest_row: int) -> str | None:
    """The reason why the slot cache cannot serve `model` on rows of `longest_row` tokens, or None if it can.

    It needs plain attention layers that take explicit positions and a 4-D mask.
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
