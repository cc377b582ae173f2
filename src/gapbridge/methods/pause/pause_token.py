"""The pause token, in the tokenizer, the embeddings and an adapter."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat import vocabulary_size
from ...data.chat_template import ChatTemplate
from ...data.pauses import PauseSettings, pause_id, record_pauses, recorded_pauses
from ...decoding.model_state import is_sharded
from ...errors import ConfigError, DataError
from ...training.loading import grow_vocabulary


logger = logging.getLogger(__name__)


def add_pauses(
    model: PreTrainedModel | PeftModel | None, tokenizer: PreTrainedTokenizerBase, *, token: str, count: int
) -> None:
    """Give model and tokenizer a pause token, `count` of which stand after each prompt; nothing is added twice.

    Args:
        model: None for the tokenizer alone; on the `meta` device where only its shapes matter.
        token: text of the token: a new one, or a special token of the vocabulary that nothing uses.

    Raises:
        ConfigError: the token cannot be the pause, or the model cannot be given it.
    """
    known = recorded_pauses(tokenizer)
    if known is not None and known.token != token:
        expected = f"{known.token!r}, the pause token of this model"
        raise ConfigError("pause_token", repr(token), expected, "Correct or remove the key")
    if known is None:
        _check_free(tokenizer, token)
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
    record_pauses(tokenizer, PauseSettings(token, count))
    if model is None:
        return
    index = int(tokenizer.convert_tokens_to_ids(token))
    rows = vocabulary_size(model)
    if known is not None and index < rows:
        return
    if isinstance(model, PeftModel):
        advice = "Merge the adapter (save_merged_model: true in its own run), and start from the merged model"
        raise ConfigError("pause_token", "an adapter whose base has no pause token", "a complete model", advice)
    if is_sharded(model):
        got, expected = "sharded weights (ZeRO-3) without a row for the token", "complete weights, or a model with one"
        raise ConfigError("pause_token", got, expected, "Train with ZeRO-2 or FSDP, or start from such a model")
    if index > rows:
        place = f"{tokenizer.name_or_path}, {tokenizer.convert_ids_to_tokens(rows)!r}"
        expected = f"one below {rows}, the rows of the model's embedding"
        advice = "Resize the embedding first (resize_token_embeddings), or use the model's tokenizer"
        raise ConfigError(place, f"token {rows}", expected, advice)
    grow_vocabulary(model, index + 1)
    init_pause_embedding(model, index, len(tokenizer))
    logger.warning("%s is new to the model: it is token %d, and its rows begin as the mean of all", token, index)
    generation = model.generation_config
    if generation is not None:  # so that the model's own `generate` never writes one
        generation.suppress_tokens = sorted({*(generation.suppress_tokens or []), index})


def _check_free(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Refuse a token of the vocabulary that means something."""
    index = tokenizer.get_vocab().get(token)
    if index is None:
        return
    entry = tokenizer.added_tokens_decoder.get(index)
    if entry is None or not entry.special:
        expected, advice = "a token that no completion holds", "Choose a new token, or a special one that nothing uses"
        raise ConfigError("pause_token", f"{token!r}, a token of text", expected, advice)
    taken = index in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    if taken or token in _chat_text(tokenizer):
        got = f"{token!r}, which the chat template or the tokenizer uses"
        raise ConfigError("pause_token", got, "an unused token", "Choose another")


def _chat_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template, and what it makes of a chat: it may make a token from a role's name."""
    if not tokenizer.chat_template:
        return ""
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    try:
        rendered = ChatTemplate(tokenizer).text(turns, ask=True)
    except (DataError, ConfigError):  # it takes no such conversation
        rendered = ""
    return rendered + str(tokenizer.chat_template)


def init_pause_embedding(model: PreTrainedModel, index: int, size: int) -> None:
    """Set the token's rows of the embeddings, and of an output head with weights of its own, to the mean of the first
    `size` others."""
    layers = filter(None, (model.get_input_embeddings(), model.get_output_embeddings()))
    with torch.no_grad():
        for weight in {id(layer.weight): layer.weight for layer in layers}.values():
            weight[index] = 0
            weight[index] = (weight[:size].float().sum(0) / (size - 1)).to(weight.dtype)


def extend_lora_for_pause(
    config: PeftConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PeftConfig:
    """The adapter, with the pause token's rows in embeddings and output head trained by value, and no other rows.

    Raises:
        ConfigError: it is of a kind that trains no single rows.
    """
    index = pause_id(tokenizer)
    if index is None:
        return config
    layers = [_name(model, model.get_input_embeddings())]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        layers.append(_name(model, head))
    saved: Any = vars(config).get("modules_to_save") or ()
    layers = [layer for layer in layers if layer not in saved]  # trained whole
    if not layers:
        return config
    if "trainable_token_indices" not in vars(config):
        got = f"an adapter of type {config.peft_type.value}, which trains no rows of the embeddings"
        raise ConfigError("pause_token", got, "LoRA", "Use LoRA")
    config = copy.deepcopy(config)
    given = config.trainable_token_indices or {}
    rows = {layers[0]: list(given)} if isinstance(given, list) else {name: list(own) for name, own in given.items()}
    for layer in layers:
        rows[layer] = sorted({*rows.get(layer, []), index})
    config.trainable_token_indices = rows
    return config


def _name(model: PreTrainedModel, wanted: torch.nn.Module) -> str:
    """What PEFT finds a module by: the last part of its name."""
    return next(name for name, module in model.named_modules() if module is wanted).rpartition(".")[2]
