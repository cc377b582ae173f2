"""How a model's forward pass is run: through a slot cache where that is exact, else on whole rows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from .memory_limits import is_out_of_memory
from .model_state import MASKABLE_ATTENTION
from .slot_cache import SlotCache, slot_mask


PROBE_LENGTH = 256  # tokens of the row on which slot cache and plain forward pass are compared
_PROBE_PLACES = 64  # of which so many are looked at
_BEYOND_WINDOW = 32  # a sliding window shows only in a row that is longer than it


def forward_logits(model: PreTrainedModel, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The logits of a plain forward pass over right-padded `tokens` `[n, L]`: `[n, L, vocab]`."""
    logits = model(input_ids=tokens, attention_mask=attention_mask, use_cache=False).logits
    return logits[:, logits.shape[1] - tokens.shape[1] :]  # prompt tuning puts its virtual tokens before a row


def forward_logits_at(
    model: nn.Module, head: nn.Module | None, at: tuple[Tensor, Tensor], inputs: dict[str, Any]
) -> Tensor:
    """The logits of `model(**inputs)` at the places `at`, k rows and k columns: `[k, vocab]`.

    The vocabulary is often the widest part of a model. So the model's own forward pass runs, with whatever it does to
    hidden states and logits (scaling, soft-capping), but its output embedding `head` is handed the chosen places
    alone. A model without one makes the logits of the chosen columns (`logits_to_keep`), or all.
    """
    if head is None:
        if "logits_to_keep" not in inspect.signature(type(model).forward).parameters:
            return model(**inputs).logits[at]
        remaining, place = (at[1] % inputs["input_ids"].shape[1]).unique(return_inverse=True)
        return model(**inputs, logits_to_keep=remaining).logits[at[0], place]
    chosen = False

    def choose(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal chosen
        chosen = True
        return arguments[0][at][None], *arguments[1:]

    with head.register_forward_pre_hook(choose):
        logits = model(**inputs).logits
    return logits[0] if chosen else logits[at]


class SlotRunner:
    """Forward passes of a model through a `SlotCache`, with logits at chosen places only.

    Args:
        windows: the sliding window of each type of layer, None where a query sees everything before it.
    """

    def __init__(self, model: PreTrainedModel, windows: dict[str, int | None]) -> None:
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.model, self.windows = model, windows
        self.head: nn.Module | None = base.get_output_embeddings()
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
        visible: int | None = None,
    ) -> Tensor:
        """Feed `tokens` (`[n, window]`) at `slots` (`[n, window]`) of the rows from `first` on.

        Args:
            at: (rows, columns) in the window, k of each, where logits are wanted.
            visible: the largest slot and one; who knows it saves a wait for the device.

        Returns:
            `[k, vocab]`.
        """
        visible = int(slots.max()) + 1 if visible is None else visible
        cache.place(slots, visible, first)
        inputs = {
            "input_ids": tokens,
            "position_ids": slots,
            "attention_mask": self._mask(slots, visible),
            "past_key_values": cache,
            "use_cache": True,
        }
        return forward_logits_at(self.model, self.head, at, inputs)

    def _mask(self, slots: Tensor, visible: int) -> Tensor | dict[str, Tensor]:
        """One mask where all layers see the same, else one for each type of layer."""
        dtype = self.model.dtype
        masks = {window: slot_mask(slots, visible, dtype, window) for window in set(self.windows.values())}
        if len(masks) == 1:
            return next(iter(masks.values()))
        return {kind: masks[window] for kind, window in self.windows.items()}


def slot_runner(model: PreTrainedModel, row: Sequence[int], longest_row: int) -> SlotRunner | str:
    """How to run `model` through a slot cache on rows of up to `longest_row` tokens, or why it cannot be.

    What the configuration does not tell is tried: tokens as in `row` go through the cache, in ragged windows, and
    through a plain forward pass, and the logits must agree.
    """
    reason = slot_cache_unsupported_reason(model)
    if reason:
        return reason
    runner = SlotRunner(model, layer_windows(model, longest_row))
    length = _probe_length(runner.windows, longest_row)
    tokens = torch.tensor([(list(row) * length)[:length]], device=model.device)
    places = torch.linspace(0, length - 1, min(length, _PROBE_PLACES), device=model.device).long()
    expected = forward_logits(model, tokens)[0, places].float()
    tolerance = logit_tolerance(model)
    try:
        error = relative_error(_in_ragged_windows(runner, tokens, places), expected)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as message:  # models refuse in many ways
        if is_out_of_memory(message):
            raise
        return f"it takes no slot cache ({type(message).__name__}: {message})"
    if error <= tolerance:
        return runner
    return f"the slot cache changes its logits (relative error {error:.2g}, allowed {tolerance:g})"


class SlotRunners:
    """What `slot_runner` found in one call, kept for the next of the same model, precision, attention and windows: the
    check costs as much as a thousand tokens."""

    def __init__(self) -> None:
        self._kept: tuple[SlotRunner | str, tuple[object, ...], int] | None = None

    def find(self, model: PreTrainedModel, row: Sequence[int], longest_row: int) -> SlotRunner | str:
        """`slot_runner` with these arguments."""
        windows = layer_windows(model, longest_row)
        settings = (model, logit_tolerance(model), model.dtype, model.config._attn_implementation, windows)
        length = _probe_length(windows, longest_row)
        if self._kept is None or self._kept[1] != settings or self._kept[2] < length:
            self._kept = slot_runner(model, row, longest_row), settings, length
        return self._kept[0]


def _probe_length(windows: dict[str, int | None], longest_row: int) -> int:
    """Tokens of the row that the check looks at."""
    return min(longest_row, max([PROBE_LENGTH, *(window + _BEYOND_WINDOW for window in windows.values() if window)]))


def logit_tolerance(model: PreTrainedModel) -> float:
    """The largest relative error of logits that rounding explains, in the precision in which the model runs."""
    low_precision = model.dtype != torch.float32 or torch.is_autocast_enabled(model.device.type)
    return 5e-2 if low_precision else 1e-3


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found - expected‖ / ‖expected‖, of logits of one shape."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _in_ragged_windows(runner: SlotRunner, tokens: Tensor, places: Tensor) -> Tensor:
    """The logits of the row `tokens` `[1, length]` at `places`, while a second row falls behind it."""
    length, device = tokens.shape[1], tokens.device
    tokens = tokens.expand(2, -1)
    cache = runner.new_cache(2, length)
    step, at = -(-length // 3), torch.zeros(2, dtype=torch.int64, device=device)
    parts: dict[int, Tensor] = {}
    while int(at[0]) < length:
        slots = (at[:, None] + torch.arange(step, device=device)).clamp(max=length - 1)
        columns = torch.isin(slots[0], places).nonzero().flatten()
        logits = runner.logits(tokens.gather(1, slots), slots, cache, (torch.zeros_like(columns), columns))
        parts |= dict(zip(slots[0, columns].tolist(), logits.float(), strict=True))
        at = at + torch.tensor([step, max(1, step - 1)], device=device)
    return torch.stack([parts[place] for place in places.tolist()])


def slot_cache_unsupported_reason(model: PreTrainedModel) -> str | None:
    """The reason, from types and configuration, why the slot cache cannot serve `model`, or None.

    It needs plain attention layers that take explicit positions and a 4-D mask.
    """
    config = model.config.get_text_config()
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(model, PeftModel):
        adapter = model.active_peft_config
        if adapter.is_prompt_learning or adapter.is_adaption_prompt:
            return f"its adapter ({adapter.peft_type.value}) puts virtual tokens before a row"
    parameters = inspect.signature(type(base).forward).parameters
    missing = {"position_ids", "past_key_values", "attention_mask"} - set(parameters)
    if missing:
        return f"its forward pass takes no {', '.join(sorted(missing))}"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder model"
    options = config.to_dict()
    if options.get("alibi"):
        return "its positions are biases of the attention (ALiBi), which it derives from a 2-D mask"
    other = set(options.get("layer_types") or ()) - {"full_attention", "sliding_attention"}
    if other:
        return f"it has layers of type {', '.join(sorted(other))}"
    if model.config._attn_implementation not in MASKABLE_ATTENTION:
        return f"its attention implementation {model.config._attn_implementation!r} takes no 4-D mask"
    return None


def layer_windows(model: PreTrainedModel, longest_row: int) -> dict[str, int | None]:
    """The sliding window of each type of layer, in tokens; None where no row is longer than it, or there is none."""
    options = model.config.get_text_config().to_dict()
    window = options.get("sliding_window") if options.get("use_sliding_window") is not False else None
    if window is not None and window >= longest_row:
        window = None
    kinds = options.get("layer_types") or ["full_attention" if window is None else "sliding_attention"]
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}
