"""Small stand-ins for models and data sets that are not on this machine, so that a recipe can be tried without them.

They lie in the cache of `datasets`, each in a folder that is named after its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..files import write_text_atomic
from .hub_metadata import PublishedData, PublishedModel, published_files


_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_DERIVED = ("head_dim", "layer_types")  # from the keys above
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def dummy_dataset(data: PublishedData) -> Path:
    """A folder that `load_dataset` takes for the data set, with few rows."""

    def write(folder: Path) -> None:
        for name, text in files.items():
            write_text_atomic(folder / name, text)

    files = published_files(data)
    return _made("data", files, write)


def dummy_model(model: PublishedModel, eos_token: str | None = None) -> Path:
    """A model of the same architecture with two narrow layers and a tokenizer of bytes.

    Args:
        eos_token: what ends an answer, where the recipe says so.
    """
    # Where the two are one token in the original they are one here: a padded row then looks the same.
    ids = [model.shape.get(name) for name in ("bos_token_id", "eos_token_id")]
    bos, eos = ("<|endoftext|>", "<|endoftext|>") if ids[0] is not None and ids[0] == ids[1] else ("<s>", "</s>")
    tokenizer = byte_tokenizer(bos, eos_token or eos)
    if model.chats:
        tokenizer.chat_template = _TEMPLATE
    return _saved(_small_config(model.shape, tokenizer), tokenizer)


def small_copy(path: Path) -> Path:
    """A model of the architecture in a local directory, with two narrow layers, and the directory's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    return _saved(_small_config(AutoConfig.from_pretrained(path).to_dict(), tokenizer), tokenizer)


def byte_tokenizer(bos_token: str, eos_token: str) -> PreTrainedTokenizerBase:
    """One token a byte, and the special tokens; no padding token, as most base models have none."""
    special = list(dict.fromkeys((bos_token, eos_token)))
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos_token, eos_token=eos_token)


def _small_config(shape: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    remaining = {key: value for key, value in shape.items() if key not in _DERIVED}
    heads = {"num_key_value_heads": 2} if "num_key_value_heads" in remaining else {}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return AutoConfig.for_model(**{**remaining, **_SMALL, **heads, **ids, "vocab_size": len(tokenizer)})


def _saved(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Path:
    def write(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    shape = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    return _made("model", [shape, tokenizer.get_vocab(), tokenizer.chat_template, tokenizer.special_tokens_map], write)


def _made(kind: str, content: Any, write: Callable[[Path], None]) -> Path:
    """The folder of this content; written under another name and then renamed, so that it is whole or not there."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    place = Path(datasets.config.HF_DATASETS_CACHE) / "gapbridge" / f"{kind}-{digest}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
            write(Path(temporary) / kind)
            try:
                os.replace(Path(temporary) / kind, place)
            except OSError:  # another process was first
                if not place.is_dir():
                    raise
    return place
