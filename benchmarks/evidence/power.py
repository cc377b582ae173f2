"""How often a comparison of two variants finds a difference of a given size: the power of a plan, by simulation.

    python benchmarks/evidence/power.py --difference 1.5 --example_sd 12 --seed_sd 0.5 --examples 618 --seeds 3

A simulated comparison draws one true difference per seed, and one paired difference per example around it.
It counts as found when both 95 % intervals lie above zero: Student's over the seeds' means, and the normal one over
examples. `--example_correlation` is the fraction of the examples' variance that all seeds share, because every seed is
scored on the same test examples.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats


def simulate_power(
    difference: float,
    *,
    example_sd: float,
    seed_sd: float,
    num_examples: int,
    num_seeds: int,
    example_correlation: float,
    num_simulations: int = 4000,
    seed: int = 0,
) -> float:
    """The fraction of simulated comparisons, from 0 to 1, that find `difference`.

    Args:
        difference: The true mean difference, in points of the score.
        example_sd: Standard deviation of one example's paired difference, in points.
        seed_sd: Standard deviation of the true difference between seeds, in points.
        num_examples, num_seeds: The sizes of the plan.
        example_correlation: Fraction of the examples' variance that all seeds share, from 0 to 1.
    """
    noise = np.random.default_rng(seed)
    shape = (num_simulations, num_seeds)
    # The mean over examples of one seed is all that the tests read, so the examples themselves need no simulation.
    shared_sd = example_sd * np.sqrt(example_correlation / num_examples)
    own_sd = example_sd * np.sqrt((1 - example_correlation) / num_examples)
    shared = noise.normal(0, shared_sd, (num_simulations, 1))
    means = difference + noise.normal(0, seed_sd, shape) + shared + noise.normal(0, own_sd, shape)
    mean = means.mean(1)
    by_seed = stats.t.ppf(0.975, num_seeds - 1) * means.std(1, ddof=1) / np.sqrt(num_seeds)
    by_example = stats.norm.ppf(0.975) * np.hypot(shared_sd, own_sd / np.sqrt(num_seeds))
    return float(np.mean((mean - by_seed > 0) & (mean - by_example > 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--difference", type=float, nargs="+", required=True, help="true mean differences")
    parser.add_argument(
        "--example_sd", type=float, required=True, help="of one example's paired difference, in points"
    )
    parser.add_argument("--seed_sd", type=float, required=True, help="of the difference between seeds, in points")
    parser.add_argument("--examples", type=int, required=True, help="number of test examples")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3], help="numbers of seeds (default: 3)")
    parser.add_argument(
        "--example_correlation",
        type=float,
        default=0.5,
        help="shared fraction of the variance (default: 0.5)",
    )
    args = parser.parse_args()
    print("seeds  difference  power")
    for num_seeds in args.seeds:
        for difference in args.difference:
            power = simulate_power(
                difference,
                example_sd=args.example_sd,
                seed_sd=args.seed_sd,
                num_examples=args.examples,
                num_seeds=num_seeds,
                example_correlation=args.example_correlation,
            )
            print(f"{num_seeds:5d}  {difference:10.3g}  {power:5.0%}")


if __name__ == "__main__":
    main()
