"""Fingerprints of what determines a context: weights, tokenizer and template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..examples.pauses import recorded_pauses


_CHUNK = 2**20
_MULTIPLIER = 0x5851F42D4C957F2D
_MODEL_SUFFIXES = frozenset({".safetensors", ".bin", ".model", ".jinja"})
_MODEL_FILES = frozenset(
    """
    config.json generation_config.json adapter_config.json tokenizer.json tokenizer_config.json vocab.json merges.txt
    special_tokens_map.json added_tokens.json
    """.split()
)


def weights_fingerprint(model: PreTrainedModel) -> str:
    """A hash of every parameter and buffer: name, shape, type and content.

    The content enters through an integer checksum that is computed where the tensor lives; changing any one element
    changes it.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_checksum(tensor)}\n".encode())
    return digest.hexdigest()


def _checksum(tensor: Tensor) -> int:
    """A polynomial in the sums of chunks, Σ over i of (word_i + 2^31) · odd_i, modulo 2^64, of words of four bytes.

    It is computed where the tensor lives, and read once.
    """
    raw = tensor.detach().contiguous().flatten().view(torch.uint8)
    if raw.numel() % 4 or raw.storage_offset() % 4:  # words of four bytes start at multiples of four
        raw = torch.nn.functional.pad(raw, (0, -raw.numel() % 4)).clone()
    words = raw.view(torch.int32)
    index = torch.arange(min(_CHUNK, words.numel()), device=raw.device)
    odd = (index * _MULTIPLIER) | 1
    odd = (odd ^ (odd >> 29)) | 1  # odd, so no change of a single word is lost
    total = torch.zeros((), dtype=torch.int64, device=raw.device)
    for part in words.split(_CHUNK):
        shifted = part.to(torch.int64).add_(2**31)
        total = total * _MULTIPLIER + shifted.mul_(odd[: len(part)]).sum()
    return int(total) % 2**64


def weights_sketch(model: PreTrainedModel) -> str:
    """A hash of every parameter's name, shape, type and up to 4,096 evenly spaced elements: cheap at any size.

    It tells one training run's weights from another's; a change of single elements takes `weights_fingerprint`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 4096)].contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode() + sample.cpu().numpy().tobytes())
    return digest.hexdigest()


def model_files(directory: Path) -> list[Path]:
    """The files of a directory that make the model. A run's directory also holds reports, which change."""
    return sorted(p for p in directory.iterdir() if p.suffix in _MODEL_SUFFIXES or p.name in _MODEL_FILES)


def path_sketch(path: str | Path) -> str | None:
    """A hash of a file, or of a model directory's files: each one's name, size, first and last mebibyte.

    It tells whether something else lies under the same name. None where there is nothing: a hub id.
    """
    path = Path(path)
    if not path.exists():
        return None
    files = [path] if path.is_file() else model_files(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''} {size}\n".encode())
        with open(file, "rb") as content:
            digest.update(content.read(2**20))
            content.seek(max(0, size - 2**20))
            digest.update(content.read())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the tokenizer's whole definition, its special tokens, its chat template and its pauses."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # only fast tokenizers have one
    state = {
        "backend": json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab().items()),
        "special": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "template": tokenizer.chat_template,
    }
    for volatile in ("truncation", "padding"):  # set by whoever tokenised last, no part of the definition
        if isinstance(state["backend"], dict):
            state["backend"].pop(volatile, None)
    pauses = recorded_pauses(tokenizer)
    if pauses is not None:
        state["pauses"] = [pauses.token, pauses.count]
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()
