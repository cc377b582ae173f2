"""How fast are mixed contexts built? All ways side by side in one run, on the same rows, checked to give the same
tokens.

    python benchmarks/mixing.py --model tiny                                      # recipes/tiny/base, word problems
    python benchmarks/mixing.py --model random-25m          # worst case: nearly every sampled token differs
    python benchmarks/mixing.py --model random-25m --kv_heads 2 --answers 400 600      # query heads share keys
    python benchmarks/mixing.py --model random-1b --device cuda --dtype bf16           # a 1 B-shaped model on a GPU

Ways: `token by token` feeds one token a pass into transformers' own growing cache, left-padded, one batch after the
other; `known runs skipped` feeds all tokens up to the next sampled position at once; `reference as draft` is
`mix_contexts`; `keys copied`, where query heads share keys, is the same with transformers' attention; `fixed point` is
its fall-back; `teacher-forced forward` is one plain forward pass over the same rows, the floor to compare with. Each
way runs `--repeats` times in turn with the others; the median is printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache

from gapbridge.decoding import SamplingParams, memory_limits, mix_contexts, mixing, model_state
from gapbridge.decoding.batch_state import padded_rows
from gapbridge.decoding.forward import SlotRunner
from gapbridge.decoding.keyed_sampler import KeyedSampler
from gapbridge.decoding.model_state import generation_mode
from gapbridge.decoding.noise import bernoulli_mask, example_keys
from gapbridge.tasks.word_problems import problems


BASE = Path(__file__).parents[1] / "recipes" / "tiny" / "base"
SHAPES = {  # hidden, intermediate, layers, heads, vocabulary
    "random-25m": (512, 1408, 7, 8, 4096),
    "random-1b": (2048, 8192, 16, 32, 32768),
}


class Rows:
    """The examples of one benchmark, longest first, as every way gets them."""

    def __init__(self, prompts: list[list[int]], references: list[list[int]], beta: float) -> None:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - len(references[i]))
        self.prompts = [prompts[i] for i in order]
        self.references = [references[i] for i in order]
        self.ids = list(range(len(prompts)))
        self.beta = beta

    def batches(self, size: int) -> list[range]:
        return [range(start, min(start + size, len(self.ids))) for start in range(0, len(self.ids), size)]


def tiny_rows(count: int) -> tuple[PreTrainedModel, list[list[int]], list[list[int]]]:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    prompts, references = [], []
    for problem in problems("train", count=count, steps=(1, 2, 3, 4, 5, 6)):
        prompts.append(tokenizer(problem.prompt + "\n")["input_ids"])
        references.append([*tokenizer(problem.answer)["input_ids"], tokenizer.eos_token_id])
    return model, prompts, references


def random_rows(
    name: str, count: int, kv_heads: int | None = None, answers: tuple[int, int] = (150, 250)
) -> tuple[PreTrainedModel, list[list[int]], list[list[int]]]:
    """A random model of that shape, prompts of 30 to 89 tokens and answers of `answers[0]` to `answers[1] - 1`."""
    hidden, intermediate, layers, heads, vocab = SHAPES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads or heads, tie_word_embeddings=False,
        max_position_embeddings=max(2048, answers[1] + 100),
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    prompt_lengths = torch.randint(30, 90, (count,)).tolist()
    answer_lengths = torch.randint(*answers, (count,)).tolist()
    prompts = [torch.randint(vocab, (length,)).tolist() for length in prompt_lengths]
    references = [torch.randint(vocab, (length,)).tolist() for length in answer_lengths]
    return model, prompts, references


def token_by_token(model: PreTrainedModel, rows: Rows, batch_size: int) -> list[list[int]]:
    """One token a pass into a growing cache, left-padded: how `generate` would do it."""
    contexts: list[list[int]] = []
    sampler = KeyedSampler(SamplingParams(), model.device)
    with generation_mode(model):
        for batch in rows.batches(batch_size):
            x, y = [rows.prompts[i] for i in batch], [rows.references[i] for i in batch]
            width, steps = max(map(len, x)), max(map(len, y))
            prompt = torch.tensor([[0] * (width - len(p)) + p for p in x], device=model.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in x], device=model.device)
            reference = torch.tensor([r + [0] * (steps - len(r)) for r in y], device=model.device)
            keys = example_keys([rows.ids[i] for i in batch], seed=0, round_index=0).to(model.device)
            every = torch.arange(steps, device=model.device).expand(len(x), steps)
            last = torch.tensor([len(r) - 1 for r in y], device=model.device)[:, None]
            sampling_mask = bernoulli_mask(keys[:, None].expand(-1, steps, -1), every, rows.beta) & (every < last)
            cache = DynamicCache()
            position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
            fed, context = prompt, []
            for t in range(steps - 1):
                logits = model(
                    input_ids=fed, attention_mask=mask, position_ids=position_ids, past_key_values=cache,
                    use_cache=True, logits_to_keep=1,
                ).logits[:, -1]  # fmt: skip
                token = torch.where(sampling_mask[:, t], sampler(logits, keys, every[:, t]), reference[:, t])
                context.append(token)
                fed, position_ids = token[:, None], position_ids[:, -1:] + 1
                mask = torch.cat([mask, mask.new_ones(len(x), 1)], dim=1)
            stacked = torch.stack([*context, reference[:, -1]], dim=1).tolist()
            contexts += [[*row[: len(r) - 1], r[-1]] for row, r in zip(stacked, y, strict=True)]
    return contexts


def known_runs_skipped(model: PreTrainedModel, rows: Rows, batch_size: int) -> list[list[int]]:
    """All tokens up to the next sampled position in one pass, in the slot cache; sampled positions one at a time."""
    sampler = KeyedSampler(SamplingParams(), model.device)
    keys = example_keys(rows.ids, seed=0, round_index=0)
    runner = SlotRunner(model, {"full_attention": None})
    contexts = []
    with generation_mode(model):
        for batch in rows.batches(batch_size):
            chunk = list(batch)
            padded = padded_rows(
                [rows.prompts[i] for i in chunk], [rows.references[i] for i in chunk], keys[chunk], rows.beta
            )
            examples = padded.to(model.device)
            capacity = int(examples.last.max()) + 1
            cache = runner.new_cache(len(chunk), capacity)
            settled = torch.zeros(len(chunk), dtype=torch.int64, device=model.device)
            column = torch.arange(examples.tokens.shape[1], device=model.device)
            while bool((settled < examples.last).any()):
                ahead = examples.sampling_mask & (column > settled[:, None])
                target = torch.where(ahead.any(1), ahead.int().argmax(1), examples.last)  # the next position to sample
                window = torch.arange(int((target - settled).max()), device=model.device)
                slots = (settled[:, None] + window).clamp(max=capacity - 1)
                live = (target > settled).nonzero().flatten()
                at = target[live]
                tokens = examples.tokens.gather(1, slots)
                logits = runner.logits(tokens, slots, cache, (live, at - 1 - settled[live]))
                sampled = sampler(logits, examples.keys[live], at - examples.start[live])
                examples.tokens[live, at] = sampled
                settled = torch.maximum(settled, target)
            tokens = examples.tokens.tolist()
            for row, i in enumerate(chunk):
                start = len(rows.prompts[i])
                contexts.append(tokens[row][start : start + len(rows.references[i])])
    return contexts


def reference_as_draft(model: PreTrainedModel, rows: Rows, batch_size: int, verify_window: int) -> list[list[int]]:
    mixed = mix_contexts(
        model, rows.prompts, rows.references, ids=rows.ids, mixture_coefficient=rows.beta,
        batch_size=batch_size, verify_window=verify_window,
    )  # fmt: skip
    return [context.tokens for context in mixed]


def keys_copied(model: PreTrainedModel, rows: Rows, batch_size: int, verify_window: int) -> list[list[int]]:
    """`reference_as_draft` with transformers' attention, which copies shared keys for every query head."""
    shares = model_state.uses_gqa
    model_state.uses_gqa = lambda _: False
    try:
        return reference_as_draft(model, rows, batch_size, verify_window)
    finally:
        model_state.uses_gqa = shares


def fixed_point(model: PreTrainedModel, rows: Rows, batch_size: int) -> list[list[int]]:
    padded = padded_rows(rows.prompts, rows.references, example_keys(rows.ids, seed=0, round_index=0), rows.beta)
    with generation_mode(model):
        mixing._mix_fixed_point(
            model, padded, KeyedSampler(SamplingParams(), model.device), memory_limits.BatchLimits(batch_size), None
        )
    tokens = padded.tokens.tolist()
    return [t[len(x) : len(x) + len(y)] for t, x, y in zip(tokens, rows.prompts, rows.references, strict=True)]


def teacher_forced(model: PreTrainedModel, rows: Rows, batch_size: int) -> None:
    with generation_mode(model):
        for batch in rows.batches(batch_size):
            full = [rows.prompts[i] + rows.references[i] for i in batch]
            width = max(map(len, full))
            tokens = torch.tensor([row + [0] * (width - len(row)) for row in full], device=model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in full], device=model.device)
            model(input_ids=tokens, attention_mask=mask)


def timed(model: PreTrainedModel, run: Callable[[], object]) -> tuple[float, int, object]:
    """Seconds, forward passes and result of one run."""
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    # Whole passes of the model go through its trunk as well.
    hook = model.base_model.register_forward_pre_hook(count)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    hook.remove()
    return time.perf_counter() - start, passes, result


def machine_and_versions(device: str, threads: int) -> tuple[str, str]:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    return f"{name}, {threads} thread(s)", versions


def write_results(args: argparse.Namespace, machine: str, versions: str, report: dict[str, Any]) -> None:
    """Write the figures with their settings to `args.output`, if it is given."""
    if args.output is None:
        return
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    record = {"settings": settings, "machine": machine, "versions": versions, "ways": report}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="see the top of the file")
    parser.add_argument("--model", choices=("tiny", *SHAPES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--rows", type=int, default=None, help="examples (default: 512 for tiny, 64 otherwise)")
    parser.add_argument("--kv_heads", type=int, help="heads of keys of a random model (default: all)")
    parser.add_argument("--answers", type=int, nargs=2, default=(150, 250), help="lengths of a random model's answers")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--verify_window", type=int, nargs="+", default=[16], help="one or several windows to try")
    parser.add_argument("--beta", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip", nargs="*", default=[], help="names of ways to leave out")
    parser.add_argument("--output", type=Path, default=None, help="also write the figures as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    count = args.rows or (512 if args.model == "tiny" else 64)
    if args.model == "tiny":
        model, prompts, references = tiny_rows(count)
    else:
        model, prompts, references = random_rows(args.model, count, args.kv_heads, tuple(args.answers))
    model = model.to(args.device, torch.bfloat16 if args.dtype == "bf16" else torch.float32)
    rows = Rows(prompts, references, args.beta)
    answer_tokens = sum(map(len, references))
    ways: dict[str, Callable[[], object]] = {
        "token by token": lambda: token_by_token(model, rows, args.batch_size),
        "known runs skipped": lambda: known_runs_skipped(model, rows, args.batch_size),
        "fixed point": lambda: fixed_point(model, rows, args.batch_size),
        "teacher-forced forward": lambda: teacher_forced(model, rows, args.batch_size),
    }
    for window in args.verify_window:
        ways[f"reference as draft, {window}"] = lambda w=window: reference_as_draft(model, rows, args.batch_size, w)
    if model_state.uses_gqa(model):
        ways["keys copied"] = lambda: keys_copied(model, rows, args.batch_size, args.verify_window[0])
    ways = {name: way for name, way in ways.items() if name not in args.skip}

    timed(model, lambda: teacher_forced(model, rows, args.batch_size))  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    passes, tokens = {}, {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            taken, passes[name], tokens[name] = timed(model, way)
            seconds[name].append(taken)

    reference_way = f"reference as draft, {args.verify_window[0]}"
    expected = tokens[reference_way]
    differing = sum(
        t != r for c, ref in zip(expected, rows.references, strict=True) for t, r in zip(c, ref, strict=True)
    )
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    machine, versions = machine_and_versions(args.device, args.threads)
    print(f"{args.model}, {model.num_parameters() / 1e6:.1f} M parameters, {args.dtype}; {machine}; {versions}")
    print(
        f"{count} rows, {answer_tokens / count:.0f} answer tokens on average, β = {args.beta}, batch "
        f"{args.batch_size}: {differing / answer_tokens:.1%} of the context tokens differ from the reference"
    )
    head = ("seconds", "passes", "× token by token", "× forward", "rows equal", "tokens differ")
    print(f"{'way':28}" + "".join(f"{title:>18}" for title in head))
    report = {}
    for name in ways:
        equal = mismatch = None
        if isinstance(tokens[name], list):
            equal = sum(a == b for a, b in zip(tokens[name], expected, strict=True))
            mismatch = (
                sum(s != t for a, b in zip(tokens[name], expected, strict=True) for s, t in zip(a, b, strict=True))
                / answer_tokens
            )
        report[name] = {
            "seconds": median[name],
            "all_seconds": seconds[name],
            "passes": passes[name],
            "speed_up": median["token by token"] / median[name] if "token by token" in median else None,
            "times_forward": median[name] / median["teacher-forced forward"],
            "rows_equal": equal,
            "share_of_tokens_that_differ": mismatch,
        }
        entry = report[name]
        faster = f"{entry['speed_up']:.2f}" if entry["speed_up"] else "–"
        same = f"{equal}/{count}" if equal is not None else "–"
        other = f"{mismatch:.2%}" if mismatch is not None else "–"
        cells = (f"{entry['seconds']:.3f}", entry["passes"], faster, f"{entry['times_forward']:.2f}", same, other)
        print(f"{name:28}" + "".join(f"{cell:>18}" for cell in cells))
    write_results(args, machine, versions, report)


if __name__ == "__main__":
    main()
