"""Future heads: what predicts the tokens after the next one (Gloeckle et al. 2024), on an ordinary causal model.

The model's own last layer, final norm and unembedding are head 1. The trunk is everything before its last layer, with
output z; head i = 2 … n is a layer of the model's own class and predicts the token i places ahead:

    log p_i(· | x_≤t) = unembedding(norm(layer_i(z)))_t

They stand on the model as `future_heads`, so that optimizers, wrappers and fingerprints see them. `save_pretrained`
leaves them out: what it writes is the next-token model, and the heads lie beside it in a file of their own.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import ConfigError
from ..files import atomic_file


HEADS_FILE = "future_heads.safetensors"
HEADS_ATTRIBUTE = "future_heads"  # the attribute of the model
# With which a model changes its logits after the unembedding.
_LOGIT_OPTIONS = "final_logit_softcapping logit_scale output_multiplier lm_head_multiplier logits_scaling".split()
_EXPERTS = re.compile(r"(^|\.)(experts|(\w+_)?router(_\w+)?)$")  # modules of a mixture of experts
_ADAPTER_KEYS: tuple[tuple[type[Any], str], ...] = (  # what PEFT puts around a module that it trains, and why
    (ModulesToSaveWrapper, "modules_to_save"),
    (TrainableTokensWrapper, "trainable_token_indices"),
    (BaseTunerLayer, "target_modules"),
)


class MTPHeads(nn.Module):
    """Heads 2 … n of a model: their layers."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def __len__(self) -> int:
        return len(self.heads)


@dataclass(frozen=True)
class DecoderParts:
    """The parts of a causal model that heads share or copy."""

    last_layer: nn.Module
    num_layers: int
    norm: nn.Module
    unembedding: nn.Linear


@dataclass
class CapturedStates:
    """What heads read in a forward pass: `states` `[n, L, d]`, and the further `arguments` of the last layer."""

    parts: DecoderParts
    states: Tensor | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def unwrap_peft(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def find_heads(model: PreTrainedModel | PeftModel) -> MTPHeads | None:
    """The heads that stand on a model."""
    found = dict(unwrap_peft(model).named_children()).get(HEADS_ATTRIBUTE)
    return found if isinstance(found, MTPHeads) else None


def find_decoder_parts(model: PreTrainedModel | PeftModel) -> DecoderParts:
    """Find the parts of a model.

    Raises:
        ConfigError: it is not of the shape of Llama, Mistral, Qwen or GPT-NeoX.
    """
    base = unwrap_peft(model)
    config, stack = base.config.get_text_config(), base.base_model
    count = config.num_hidden_layers
    layers = [part for part in stack.children() if isinstance(part, nn.ModuleList) and len(part) == count]
    norms = [part for name, part in stack.named_children() if name.endswith("norm")]
    unembedding = base.get_output_embeddings()
    options = config.to_dict()
    changed = [f"{name} of its configuration" for name in _LOGIT_OPTIONS if options.get(name) not in (None, 1, 1.0)]
    # By the modules: each family has another key for their number, and some have one without having experts.
    changed += [f"its {name}" for name, _ in base.named_modules() if _EXPERTS.search(name)][:1]
    if key := next((key for kind, key in _ADAPTER_KEYS if isinstance(unembedding, kind)), None):
        name = next(name for name, module in base.named_modules() if module is unembedding)
        got = f"a {key} of the adapter that trains {name}, which the heads share untrained"
        advice = f"Remove {name} from {key}, or set num_future_tokens: 1"
        raise ConfigError("num_future_tokens", got, f"an adapter without {name}", advice)
    full = len(layers) == 1 and len(norms) == 1 and isinstance(unembedding, nn.Linear)
    if not full or changed:
        reason = f" ({', '.join(changed)})" if changed else ""
        got = f"{type(base).__name__}, which is built otherwise{reason}"
        expected = "layers, one final norm and an unembedding as in Llama, Mistral, Qwen or GPT-NeoX, without experts"
        raise ConfigError("num_future_tokens", got, expected, "Set num_future_tokens: 1, or take another model")
    return DecoderParts(layers[0][-1], count, norms[0], unembedding)


def build_heads(model: PreTrainedModel, count: int) -> MTPHeads:
    """`count` heads for a model: copies of its last layer.

    A copied layer gets a place of its own in a key-value cache, after the model's layers. It shares the model's
    configuration: the attention that is set there, now or later, is that of the heads.
    """
    parts = find_decoder_parts(model)
    values = [value for module in parts.last_layer.modules() for value in vars(module).values()]
    configurations = {id(value): value for value in values if isinstance(value, PretrainedConfig)}
    heads = []
    for index in range(count):
        head = copy.deepcopy(parts.last_layer, {**configurations}).requires_grad_(True)
        for module in head.modules():
            if "layer_idx" in vars(module):
                vars(module)["layer_idx"] = parts.num_layers + index
        heads.append(head)
    return MTPHeads(heads).train(model.training)


def add_heads(model: PreTrainedModel, count: int) -> MTPHeads:
    """Put `count` new heads on a model; `save_pretrained` leaves them out."""
    added = build_heads(model, count)
    model.add_module(HEADS_ATTRIBUTE, added)
    names = {f"{HEADS_ATTRIBUTE}.{name}" for name in added.state_dict()}
    model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *names}
    return added


@contextmanager
def capture_hidden_states(parts: DecoderParts) -> Iterator[CapturedStates]:
    """Inside, a forward pass of the model with these parts leaves what its heads read."""
    captured = CapturedStates(parts)

    def before_last_layer(_: nn.Module, arguments: tuple[Any, ...], further: dict[str, Any]) -> None:
        captured.arguments = dict(further)
        captured.states = arguments[0] if arguments else captured.arguments.pop("hidden_states")

    with parts.last_layer.register_forward_pre_hook(before_last_layer, with_kwargs=True):
        yield captured


def layer_output(heads: MTPHeads, index: int, captured: CapturedStates, states: Tensor) -> Tensor:
    """What the layer of head `index` (0 is head 2) makes of `states` `[n, L, d]`, before the final norm.

    `states` are those that were captured, or the same numbers outside their graph.
    """
    output = heads.heads[index](states, **captured.arguments)
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def head_states(heads: MTPHeads, index: int, captured: CapturedStates, states: Tensor) -> Tensor:
    """As `layer_output`, after the final norm: what the unembedding gets."""
    hidden: Tensor = captured.parts.norm(layer_output(heads, index, captured, states))
    return hidden


def save_heads(directory: Path, heads: MTPHeads, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the heads into a model's directory. `state`: their weights, where they are not those in memory."""
    weights = {name: value.detach().cpu().contiguous() for name, value in (state or heads.state_dict()).items()}
    metadata = {"format": "pt", "count": str(len(heads))}
    with atomic_file(directory / HEADS_FILE) as path:
        save_file(weights, path, metadata=metadata)


def saved_heads(directory: str | Path) -> Path | None:
    """The heads' file in a model's directory, where there is one."""
    path = Path(directory) / HEADS_FILE
    return path if path.is_file() else None


def _saved_count(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as content:
            return int((content.metadata() or {})["count"])
    except (OSError, KeyError, ValueError) as error:
        got, advice = f"no future heads ({error})", "Move it away, or save the model again"
        raise ConfigError(path, got, "the heads of a model", advice) from error


def load_heads(model: PreTrainedModel, path: Path) -> MTPHeads:
    """Put the heads of a file on a model, or their weights into the heads that stand on it.

    Raises:
        ConfigError: they do not fit the model, or the heads on it.
    """
    heads = find_heads(model) or add_heads(model, _saved_count(path))
    _fill(heads, model, path)
    return heads


def load_adjacent_heads(model: PreTrainedModel | PeftModel) -> MTPHeads | None:
    """Those on the model, or those that lie where it was loaded from, which are not put on it and do not learn."""
    heads = find_heads(model)
    path = None if heads or isinstance(model, PeftModel) else saved_heads(model.name_or_path)
    if path is None:
        return heads
    heads = build_heads(model, _saved_count(path)).eval()
    _fill(heads, model, path)
    return heads


def _fill(heads: MTPHeads, model: PreTrainedModel, path: Path) -> None:
    count = _saved_count(path)
    if len(heads) != count:
        advice = f"Set num_future_tokens: {count + 1}, or move the file away for new heads"
        raise ConfigError(path, f"{count} heads", len(heads), advice)
    if model.device.type == "meta":
        return
    try:
        heads.load_state_dict(load_file(path))
    except RuntimeError as error:
        got = f"the heads of another model ({error})"
        raise ConfigError(path, got, "those of this model", "Restore the file") from error
