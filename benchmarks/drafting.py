"""How fast are free-running answers? `generate_completions` against transformers, side by side in one run, greedy
tokens checked.

    python benchmarks/drafting.py --model tiny           # recipes/tiny/base, word problems of 1 to 6 steps
    python benchmarks/drafting.py --model tiny --ragged  # the same prompts; an answer ends at its first 3, or at 300
    python benchmarks/drafting.py --model random-25m     # random weights; one token in 16 ends an answer, or 300

Worked answers of the tiny base are about equally long. `--ragged` gives lengths as real answers have them, many short
and a few at the limit: the model's EOS does not count, the digit 3 ends an answer instead.

Ways: `generate, sorted` is `model.generate` on left-padded batches of prompts sorted by length: a batch runs until its
longest answer ends; `generate_batch` is transformers' continuous batching; `generate_completions` gives a finished
row's place to the next prompt. Each way runs `--repeats` times in turn with the others; the median is printed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mixing import SHAPES, machine_and_versions, random_rows, timed, tiny_rows, write_results
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from gapbridge.decoding import generate_completions
from gapbridge.decoding.model_state import generation_mode


EOS, THREE = 1, 23  # ids of the tiny base's tokenizer


def padded_generate(
    model: PreTrainedModel, prompts: list[list[int]], limit: int, stops: list[int], batch_size: int
) -> list[list[int]]:
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    with generation_mode(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in batch)
            ids = [[0] * (width - len(prompts[i])) + prompts[i] for i in batch]
            mask = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
            output = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=limit, do_sample=False, eos_token_id=stops, pad_token_id=0,
            )  # fmt: skip
            for i, row in zip(batch, output[:, width:].tolist(), strict=True):
                end = next((at + 1 for at, token in enumerate(row) if token in stops), len(row))
                answers[i] = row[:end]
    return answers


def continuous(model: PreTrainedModel, prompts: list[list[int]], limit: int, stops: list[int]) -> list[list[int]]:
    """With a cache of a fixed size: by default it takes most of the machine's memory."""
    config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=stops, pad_token_id=0)
    batching = ContinuousBatchingConfig(num_blocks=1024, max_batch_tokens=512)
    with generation_mode(model):
        outputs = model.generate_batch(
            inputs=prompts, generation_config=config, continuous_batching_config=batching, progress_bar=False
        )
    return [list(outputs[key].generated_tokens) for key in sorted(outputs, key=lambda key: int(key.split("_")[-1]))]


def ours(
    model: PreTrainedModel, prompts: list[list[int]], limit: int, stops: list[int], batch_size: int, **options: Any
) -> list[list[int]]:
    """Greedy answers, unless `options` of `generate_completions` say otherwise."""
    completions = generate_completions(
        model, prompts, ids=list(range(len(prompts))), max_completion_length=limit, stop_tokens=stops,
        batch_size=batch_size, **{"temperature": 0.0, **options},
    )  # fmt: skip
    return [completion.tokens for completion in completions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("--model", choices=("tiny", *SHAPES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--rows", type=int, default=None, help="prompts (default: 512 for tiny, 192 otherwise)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--limit", type=int, default=300, help="most tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ragged", action="store_true", help="tiny: answers end at the digit 3, not at EOS")
    parser.add_argument("--stop_every", type=int, default=16, help="random: one id in so many ends an answer")
    parser.add_argument("--skip", nargs="*", default=[], help="names of ways to leave out")
    parser.add_argument("--output", type=Path, default=None, help="also write the figures as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    count = args.rows or (512 if args.model == "tiny" else 192)
    model, prompts, _ = tiny_rows(count) if args.model == "tiny" else random_rows(args.model, count)
    model = model.to(args.device, torch.bfloat16 if args.dtype == "bf16" else torch.float32)
    stops = [THREE if args.ragged else EOS]
    if args.model != "tiny":
        stops = list(range(0, model.config.vocab_size, args.stop_every))
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "generate, sorted": lambda: padded_generate(model, prompts, args.limit, stops, args.batch_size),
        "generate_batch": lambda: continuous(model, prompts, args.limit, stops),
        "generate_completions": lambda: ours(model, prompts, args.limit, stops, args.batch_size),
    }
    ways = {name: way for name, way in ways.items() if name not in args.skip}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, list[list[int]]] = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            taken, _, tokens[name] = timed(model, way)
            seconds[name].append(taken)

    expected = tokens["generate, sorted"]
    lengths = [len(answer) for answer in expected]
    machine, versions = machine_and_versions(args.device, args.threads)
    print(f"{args.model}, {model.num_parameters() / 1e6:.1f} M parameters, {args.dtype}; {machine}; {versions}")
    print(
        f"{count} answers of {statistics.mean(lengths):.0f} tokens on average, longest {max(lengths)}, batch "
        f"{args.batch_size}"
    )
    print(f"{'way':22}{'seconds':>12}{'tokens/s':>12}{'× generate':>12}{'rows equal':>14}")
    report = {}
    for name in ways:
        median = statistics.median(seconds[name])
        equal = sum(a == b for a, b in zip(tokens[name], expected, strict=True))
        faster = statistics.median(seconds["generate, sorted"]) / median
        report[name] = {
            "seconds": median, "all_seconds": seconds[name], "speed_up": faster, "rows_equal": equal,
        }  # fmt: skip
        print(f"{name:22}{median:12.2f}{sum(lengths) / median:12.0f}{faster:12.2f}{f'{equal}/{count}':>14}")
    write_results(args, machine, versions, report)


if __name__ == "__main__":
    main()
