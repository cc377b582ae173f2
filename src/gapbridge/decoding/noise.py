"""Randomness as a pure function of where it is used: (seed, round, example id, answer position, vocabulary index).

Sampling is Gumbel-max (Gumbel 1954; Maddison et al. 2014): argmax_v [log p_v + G_v] with G_v = -log(-log U_v) is a
sample from p. U_v comes from an integer hash, not from a generator with a state, so the token sampled at a position
does not depend on the batch the example is in, on the order of the rows, on the number of processes, on the decoding
schedule or on where a run was interrupted.

All arithmetic is on 32-bit words, held in int64 tensors: products wrap modulo 2^64, which leaves their low 32 bits
exact. Where there is a word for each index of the vocabulary they are held in int32 tensors, which wrap modulo 2^32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


_WORD = 0xFFFFFFFF
# The uses of randomness at one position must not share their bits.
_COIN, _TOKEN, _PLACE, _STRANGER = 0x636F696E, 0x746F6B65, 0x706C6163, 0x73747261


def example_keys(ids: Sequence[str | int], *, seed: int, round_index: int) -> Tensor:
    """Two 32-bit words for each example, from (seed, round, id). Shape `[len(ids), 2]`, int64.

    An integer id and its decimal string are different ids.
    """
    words = []
    for example_id in ids:
        text = f"{seed}/{round_index}/{type(example_id).__name__}/{example_id}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        words.append([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")])
    return torch.tensor(words, dtype=torch.int64).reshape(-1, 2)


def _mix(word: Tensor) -> Tensor:
    """A bijection of 32-bit words in which every input bit affects every output bit (xor-shift and odd
    multipliers)."""
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & _WORD
    word = ((word ^ (word >> 15)) * 0x846CA68B) & _WORD
    return word ^ (word >> 16)


def _mix_in_place(word: Tensor) -> Tensor:
    """`_mix` of words held in int32: with one more buffer of their size, where int64 takes six."""
    word ^= (word >> 16).bitwise_and_(0xFFFF)  # the shift of a signed number drags its sign along
    word *= 0x7FEB352D
    word ^= (word >> 15).bitwise_and_(0x1FFFF)
    word *= 0x846CA68B - 2**32
    word ^= (word >> 16).bitwise_and_(0xFFFF)
    return word


def _keyed_bits(keys: Tensor, positions: Tensor, use: int) -> tuple[Tensor, Tensor]:
    """Two words for each (example, position, use). `keys` is `[..., 2]`, `positions` is `[...]`."""
    salted = _mix((positions * 0x9E3779B1 + use) & _WORD)
    first = _mix(keys[..., 0] ^ salted)
    second = _mix((keys[..., 1] + first) & _WORD)
    return first, second


def bernoulli_mask(keys: Tensor, positions: Tensor, probability: float) -> Tensor:
    """Bernoulli(`probability`) samples `[...]`, bool, for `keys` `[..., 2]` from `example_keys` and answer `positions`
    `[...]`, counted from 0. Probability 0 never gives true, probability 1 always does."""
    _, word = _keyed_bits(keys, positions, _COIN)
    return word < round(probability * 2**32)


def gumbel_noise(keys: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise `[n, vocab_size]`, float32, for `keys` `[n, 2]` and answer `positions` `[n]`."""
    first, second = _keyed_bits(keys, positions, _TOKEN)
    vocabulary = _mix((torch.arange(vocab_size, device=keys.device, dtype=torch.int64) * 0x85EBCA6B + 1) & _WORD)
    vocabulary, first, second = (words.to(torch.int32) for words in (vocabulary, first, second))
    word = _mix_in_place(vocabulary[None, :] ^ first[:, None])
    word ^= second[:, None]
    word = _mix_in_place(word).view(torch.uint32)
    # 1 - U rather than U: its small values, which decide who wins the race, keep a resolution of 2^-32 in float32.
    complement = word.to(torch.float32).add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
    return complement.neg_().log1p_().neg_().log_().neg_()


def position_bits(keys: Tensor, positions: Tensor) -> Tensor:
    """Words `[...]`, int64, for `keys` `[..., 2]` and answer `positions` `[...]`: sorted by them, the positions of an
    example are in random order."""
    return _keyed_bits(keys, positions, _PLACE)[1]


def replacement_bits(keys: Tensor, positions: Tensor) -> Tensor:
    """As `position_bits`, 62 random bits, for a token that no model samples."""
    first, second = _keyed_bits(keys, positions, _STRANGER)
    return ((first >> 1) << 31) | (second >> 1)
