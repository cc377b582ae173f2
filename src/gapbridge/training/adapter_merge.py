"""A trained model as others load it: with its cache on, and an adapter merged into its base if wanted."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import ConfigError, as_config_error, describe
from .loading import load_model


ADAPTER = "adapter"  # where, in the directory of a merged model, the adapter is kept
QUANTISED = describe(
    "save_merged_model",
    "true with a quantized base (load_in_4bit, load_in_8bit), which would round the merged weights",
    "an unquantized base",
    "Remove the key, and merge the saved adapter into the base in bfloat16 (`PeftModel.merge_and_unload`)",
)
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@contextmanager
def cache_enabled(config: PretrainedConfig) -> Iterator[None]:
    """Inside, a configuration asks for the key-value cache, which transformers switches off for training."""
    before, config.use_cache = config.use_cache, True
    try:
        yield
    finally:
        config.use_cache = before


def check_mergeable(model: PreTrainedModel | PeftModel, new_adapter: PeftConfig | None) -> None:
    """Refuse `save_merged_model` where the run will have no whole model to save, before anything is trained.

    Raises:
        ConfigError: no adapter is trained, its kind cannot be merged, its base is quantised, or is known by no name.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    adapter = model.active_peft_config if isinstance(model, PeftModel) else new_adapter
    errors = []
    if adapter is None:
        advice = "Set use_peft: true, or remove save_merged_model"
        errors.append(describe("save_merged_model", "true without an adapter", "a trained adapter", advice))
    elif adapter.is_prompt_learning:
        got = f"an adapter of type {adapter.peft_type.value}"
        errors.append(describe("save_merged_model", got, "one with weights to merge", "Remove save_merged_model"))
    if base.config.to_dict().get("quantization_config") is not None:
        errors.append(QUANTISED)
    if not base.config._name_or_path:
        got, expected = "a base that was made in memory", "one that can be loaded again"
        errors.append(describe("save_merged_model", got, expected, "Give the base as a path or hub id"))
    if errors:
        raise ConfigError(errors)


def merge_saved(directory: Path, trained: PeftModel, args: Any) -> None:
    """Write the whole model into `directory`: the adapter saved in its folder `adapter`, merged into its base.

    The base is loaded again, on the CPU and in the precision in which it was trained on: what is in memory may be
    sharded, and goes on being evaluated. Configuration and generation configuration are those of the trained model.

    Raises:
        ConfigError: the base cannot be loaded again, or is another one now; the adapter is saved all the same.
    """
    base = trained.get_base_model()
    dtype = next(parameter.dtype for parameter in base.parameters() if parameter.dtype.is_floating_point)
    with torch.device("cpu"):
        loaded = load_model(directory / ADAPTER, args, dtype=dtype)
    if not _same_base(loaded, trained):
        got = f"weights in {base.config._name_or_path} that differ from the trained base"
        advice = f"Save the base, and merge {directory / ADAPTER} into it"
        raise ConfigError("save_merged_model", got, "the same weights", advice)
    _untie(loaded)
    with as_config_error("save_merged_model: "):
        merged = loaded.merge_and_unload(safe_merge=True)
    # A copy: what is in memory goes on with its own.
    merged.config, merged.generation_config = copy.deepcopy(base.config), base.generation_config
    _tie_again(merged)
    for name in _ADAPTER_FILES:  # transformers would take the directory for the adapter
        (directory / name).unlink(missing_ok=True)
    merged.save_pretrained(directory)
    for path in (directory / ADAPTER).iterdir():
        if path.name in (*_ADAPTER_FILES, "README.md", "training_args.bin"):
            continue
        if path.is_dir():
            shutil.copytree(path, directory / path.name, dirs_exist_ok=True)  # further chat templates
        else:
            shutil.copy2(path, directory / path.name)  # the tokenizer's files


def _untie(model: nn.Module) -> None:
    """Give each layer weights of its own. What an adapter adds to the embeddings alone would otherwise be added to an
    output head that is tied to them, which was trained without it."""
    seen: set[int] = set()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) in seen:
                module._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            seen.add(id(weight))


def _tie_again(model: PreTrainedModel) -> None:
    """Tie head and embeddings where they are equal; else the configuration says that they are not tied.

    transformers 4 would take the embeddings for the head whatever the file holds.
    """
    parts = (model.config, model.config.get_text_config())
    tied = [part for part in parts if part.to_dict().get("tie_word_embeddings")]
    head = model.get_output_embeddings()
    if head is None or not tied:
        return
    if torch.equal(head.weight, model.get_input_embeddings().weight):
        model.tie_weights()
        return
    for part in tied:
        part.tie_word_embeddings = False


def _same_base(loaded: PeftModel, trained: PeftModel) -> bool:
    """Whether frozen weights are equal, on up to 4,096 elements of each that is whole in this process."""
    there = dict(trained.named_parameters())
    for name, parameter in loaded.named_parameters():
        other = there.get(name)
        # The base of trained rows may hold anything there: they are kept by value.
        own = "lora_" in name or ".token_adapter." in name
        if other is None or own or isinstance(other, DTensor) or other.numel() != parameter.numel():
            continue
        step = max(1, parameter.numel() // 4096)
        if other.requires_grad or torch.equal(other.detach().flatten()[::step].cpu(), parameter.flatten()[::step]):
            continue
        return False
    return True
