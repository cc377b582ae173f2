"""How the mixture coefficient grows over training (Bengio et al. 2015, section 2.4).

The paper gives ε_i, the probability of a *reference* token in step i; here 1 - ε_i stands before β, the largest
probability of an own token. Free of torch.
"""

from __future__ import annotations

import math


SCHEDULES = ("constant", "linear", "inverse_sigmoid")


def sampling_prob_at(schedule: str, mixture_coefficient: float, step: int, num_steps: int) -> float:
    """The probability of an own token in a step.

    constant: β. linear: β · i / N, the paper's ε_i = max(ε, k - c·i) with k = 1, ε = 1 - β and c = β / N.
    inverse_sigmoid: β · (1 - ε_i) with ε_i = k / (k + exp(i / k)), and k such that ε is ½ in the middle of training.
    It goes from β / (1 + k) to β · k / (1 + k); with 1,000 steps k is 107.

    Args:
        schedule: one of `SCHEDULES`.
        mixture_coefficient: β.
        step: i, how many steps were made before.
        num_steps: N, of the whole training.
    """
    if schedule == "constant":
        return mixture_coefficient
    if schedule == "linear":
        return mixture_coefficient * min(1.0, step / num_steps)
    k = inverse_sigmoid_speed(num_steps)
    # 1 - k / (k + e) = 1 / (1 + k / e), in which no power is too large
    return mixture_coefficient / (1 + k * math.exp(-step / k))


def inverse_sigmoid_speed(num_steps: int) -> float:
    """The k ≥ 1 with k·ln k = N / 2: there k / (k + exp(i / k)) is ½ at i = N / 2.

    With u = ln k this is u·exp(u) = N / 2, solved by Newton's method from above.
    """
    half = num_steps / 2
    u = math.log1p(half)
    for _ in range(50):
        u -= (u - half * math.exp(-u)) / (1 + u)
    return math.exp(u)
