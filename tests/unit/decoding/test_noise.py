"""Keyed noise: right distributions, and a function of its key only."""

import numpy as np
import torch
from scipy import stats

from gapbridge.decoding import noise
from gapbridge.decoding.noise import bernoulli_mask, example_keys, gumbel_noise, position_bits, replacement_bits


def keys_of(count: int, seed: int = 0) -> torch.Tensor:
    return example_keys(list(range(count)), seed=seed, round_index=0)


def test_coins_follow_beta() -> None:
    keys = keys_of(400)[:, None].expand(-1, 100, -1)
    positions = torch.arange(100).expand(400, 100)
    for beta in (0.05, 0.2, 0.5, 0.9):
        heads = int(bernoulli_mask(keys, positions, beta).sum())
        assert stats.binomtest(heads, 40_000, beta).pvalue > 1e-4
    assert not bernoulli_mask(keys, positions, 0.0).any()
    assert bernoulli_mask(keys, positions, 1.0).all()


def test_coins_are_independent_of_their_neighbours() -> None:
    flips = (
        bernoulli_mask(keys_of(500)[:, None].expand(-1, 60, -1), torch.arange(60).expand(500, 60), 0.5)
        .double()
        .numpy()
    )
    along = np.corrcoef(flips[:, :-1].ravel(), flips[:, 1:].ravel())[0, 1]
    across = np.corrcoef(flips[:-1].ravel(), flips[1:].ravel())[0, 1]
    assert abs(along) < 0.025 and abs(across) < 0.025


def test_gumbel_noise_is_gumbel() -> None:
    noise = gumbel_noise(keys_of(200), torch.arange(200), 500)
    assert torch.isfinite(noise).all()
    for sample in (noise.flatten()[::7], noise[:, 3], noise[5]):
        assert stats.kstest(sample.numpy(), stats.gumbel_r.cdf).pvalue > 1e-4


def test_coins_and_tokens_do_not_share_their_bits() -> None:
    keys, positions = keys_of(4000), torch.zeros(4000, dtype=torch.int64)
    heads = bernoulli_mask(keys, positions, 0.5)
    noise = gumbel_noise(keys, positions, 8)
    assert stats.ks_2samp(noise[heads].flatten().numpy(), noise[~heads].flatten().numpy()).pvalue > 1e-4


def test_places_and_strangers_do_not_share_their_bits() -> None:
    keys, positions = keys_of(4000), torch.arange(4000)
    places, replacements = position_bits(keys, positions).double(), replacement_bits(keys, positions)
    for words in (replacements >> 31, replacements & (2**31 - 1)):
        assert abs(np.corrcoef(places.numpy(), words.double().numpy())[0, 1]) < 0.06


def test_a_coin_of_probability_zero_never_falls_on_heads() -> None:
    """Not for the smallest word either, which one key in 2^32 has."""
    position = torch.tensor([5])
    first, _ = noise._keyed_bits(torch.tensor([[3, 0]]), position, noise._COIN)
    keys = torch.stack([torch.tensor([3]), (-first) & noise._WORD], dim=1)  # the second word is 0
    assert bernoulli_mask(keys, position, 2.0**-32).all() and not bernoulli_mask(keys, position, 0.0).any()


def test_argmax_draws_from_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])
    count = 20_000
    sampled = (logits + gumbel_noise(keys_of(count), torch.full((count,), 7), 5)).argmax(dim=1)
    observed = torch.bincount(sampled, minlength=5).numpy()
    assert stats.chisquare(observed, logits.double().softmax(0).numpy() * count).pvalue > 1e-4


def test_noise_depends_on_its_key_only() -> None:
    keys, positions = keys_of(50), torch.arange(50)
    together = gumbel_noise(keys, positions, 300)
    alone = torch.cat([gumbel_noise(keys[i : i + 1], positions[i : i + 1], 300) for i in range(50)])
    assert torch.equal(together, alone)
    shuffled = torch.randperm(50)
    assert torch.equal(gumbel_noise(keys[shuffled], positions[shuffled], 300), together[shuffled])


def test_every_part_of_the_key_matters() -> None:
    position = torch.tensor([3])
    base = gumbel_noise(example_keys(["a"], seed=0, round_index=0), position, 64)
    others = [
        gumbel_noise(example_keys(["b"], seed=0, round_index=0), position, 64),
        gumbel_noise(example_keys(["a"], seed=1, round_index=0), position, 64),
        gumbel_noise(example_keys(["a"], seed=0, round_index=1), position, 64),
        gumbel_noise(example_keys(["a"], seed=0, round_index=0), position + 1, 64),
    ]
    assert not any(torch.equal(base, other) for other in others)
    assert not torch.equal(example_keys([1], seed=0, round_index=0), example_keys(["1"], seed=0, round_index=0))


def test_the_vocabularys_words_are_those_of_the_definition() -> None:
    """32-bit tensors wrap and shift as 32-bit words in wider ones do, up to the rounding of the noise."""
    words = torch.cat([torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1]), torch.randint(2**32, (10_000,))])
    narrow = noise._mix_in_place(words.to(torch.int32))
    assert torch.equal(narrow.long() & noise._WORD, noise._mix(words))
    assert torch.equal(narrow.view(torch.uint32).to(torch.float32), noise._mix(words).to(torch.float32))


def test_noise_is_frozen() -> None:
    """Stored contexts stay reproducible: these values may change with a new store format version only."""
    noise = gumbel_noise(example_keys(["a", 7], seed=3, round_index=2), torch.tensor([0, 11]), 3)
    sampling_mask = bernoulli_mask(example_keys(["a"], seed=0, round_index=0).expand(12, 2), torch.arange(12), 0.5)
    assert [[round(value, 4) for value in row] for row in noise.tolist()] == FROZEN_NOISE
    assert "".join(str(int(coin)) for coin in sampling_mask) == FROZEN_COINS


FROZEN_NOISE = [[1.1307, 0.261, -0.6104], [1.5152, 0.8582, 1.1417]]
FROZEN_COINS = "111111000100"
