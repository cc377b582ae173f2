"""Fingerprints of what determines a context: weights, tokenizer and template."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.pauses import recorded_pauses


_CHUNK = 2**20
_MULTIPLIER = 0x5851F42D4C957F2D


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
