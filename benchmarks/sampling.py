"""How many logits should be sampled from at a time? Nanoseconds a logit over the size of the part and the vocabulary.

    python benchmarks/sampling.py --output benchmarks/results/sampling-cpu.json
    python benchmarks/sampling.py --device cuda

The tokens are the same whatever the size: noise and sampling options look at one row at a time. The size of a part is
`SCORES` of `gapbridge.decoding.keyed_sampler`. `user` and `system` are the process's CPU time: the second is what the
operating system takes to hand out memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from mixing import machine_and_versions, write_results

from gapbridge.decoding import SamplingParams, keyed_sampler


def measure(logits: torch.Tensor, options: SamplingParams, repeats: int) -> tuple[float, float, float]:
    """Wall, user and system nanoseconds a logit."""
    rows = len(logits)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(2**32, (rows, 2), generator=generator).to(logits.device)
    positions = torch.arange(rows, device=logits.device)
    sampler = keyed_sampler.KeyedSampler(options, logits.device)
    sampler(logits, keys, positions).tolist()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(repeats):
        sampler(logits, keys, positions).tolist()  # the copy waits for the device
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    parts = (seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    wall, user, system = (1e9 * part / repeats / logits.numel() for part in parts)
    return wall, user, system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_768, 131_072, 262_144])
    parser.add_argument("--parts", type=int, nargs="+", default=[16, 18, 20, 22, 24], help="powers of two, in logits")
    parser.add_argument("--logits", type=int, default=25, help="a power of two: how many are sampled from")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options, default = SamplingParams(top_p=args.top_p), dict(keyed_sampler.MAX_SCORES)
    found = []
    print("| vocabulary | logits at a time | wall, ns a logit | user | system |\n|---|---|---|---|---|")
    for vocabulary in args.vocabulary:
        logits = torch.randn(2**args.logits // vocabulary, vocabulary).to(args.device)
        for part in args.parts:
            keyed_sampler.MAX_SCORES = dict.fromkeys(default, 2**part)
            wall, user, system = measure(logits, options, args.repeats)
            found.append({"vocabulary": vocabulary, "part": 2**part, "wall": wall, "user": user, "system": system})
            print(f"| {vocabulary} | 2^{part} | {wall:.1f} | {user:.1f} | {system:.1f} |", flush=True)
    machine, versions = machine_and_versions(args.device, args.threads)
    print(f"{machine}; {versions}")
    write_results(args, machine, versions, {"sizes": found})


if __name__ == "__main__":
    main()
