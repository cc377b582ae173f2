"""What a trained model forgets on other prompts: its loss on the start model's own answers, before and after.

    python benchmarks/evidence/forgetting.py --start outputs/base --model outputs/sft --model outputs/bash

The start model answers prompts that no training used, sampled at temperature 1. Every model is scored on these very
answers. The start model's loss estimates its entropy, and a trained model's loss less the start model's estimates
KL(start ‖ trained) on these prompts, in nats per token: 0 where nothing is forgotten, and hardly below it.

`--prompts` is a text file with one prompt a line; the default has everyday requests. `--temperature 0` scores the
greedy answers instead; the difference is then no estimate of the KL divergence.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gapbridge.cli import guarded
from gapbridge.data.special_tokens import stop_tokens, undecodable_token_ids
from gapbridge.decoding import SamplingParams, generate_completions
from gapbridge.errors import ConfigError
from gapbridge.files import write_json_atomic
from gapbridge.gap.logprobs import score
from gapbridge.gap.prefix_losses import TokenMean, token_mean
from gapbridge.intervals import paired_difference


PROMPTS = Path(__file__).with_name("other_prompts.txt")


def load_model(path: str, device: str) -> PreTrainedModel:
    """A model in float32, so that a difference between two models is none of their precisions."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """The prompts as a chat's first turn, or as plain text where the tokenizer has no chat template."""
    if tokenizer.chat_template is None:
        return [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def sample_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], args: Any
) -> list[list[int]]:
    """The start model's answers as tokens, with their stop tokens."""
    unnamed = tuple(undecodable_token_ids(tokenizer, model))
    options = SamplingParams(
        temperature=args.temperature, seed=args.seed, suppress_tokens=unnamed, batch_size=args.batch_size
    )
    completions = generate_completions(
        model,
        [list(prompt) for prompt in prompts],
        ids=[str(at) for at in range(len(prompts))],
        max_completion_length=args.max_completion_length,
        stop_tokens=stop_tokens(tokenizer, model),
        options=options,
    )
    return [completion.tokens for completion in completions]


def mean_loss(model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[list[int]]) -> TokenMean:
    """The loss on the answers in nats per token, with its interval over prompts."""
    scores = score(model, prompts, answers, answers, batch_size=8)
    return token_mean([-row.log_probs for row in scores], [str(at) for at in range(len(answers))])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    texts = [line for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    tokenizer = AutoTokenizer.from_pretrained(args.start)
    others = {model: AutoTokenizer.from_pretrained(model).get_vocab() for model in args.model}
    changed = [model for model, vocabulary in others.items() if vocabulary != tokenizer.get_vocab()]
    if changed:
        raise ConfigError(
            [
                f"command line, --model {model}: got another vocabulary, expected that of {args.start}. Leave it out"
                for model in changed
            ]
        )
    prompts = prompt_ids(tokenizer, texts)
    start = load_model(args.start, args.device)
    answers = sample_answers(start, tokenizer, prompts, args)
    before = mean_loss(start, prompts, answers)
    del start
    record: dict[str, Any] = {
        "settings": {**vars(args), "prompts": str(args.prompts), "output": str(args.output)},
        "answers": [str(tokenizer.decode(answer)) for answer in answers],
        "models": [{"model": args.start, "loss": asdict(before), "difference": None}],
    }
    print(f"{len(texts)} prompts, loss on the answers of {args.start} (nats/token): {show(asdict(before.mean))}")
    for name in args.model:
        gc.collect()
        after = mean_loss(load_model(name, args.device), prompts, answers)
        keys = list(before.by_example)
        difference = paired_difference([before.by_example[k] for k in keys], [after.by_example[k] for k in keys])
        record["models"].append({"model": name, "loss": asdict(after), "difference": asdict(difference)})
        print(
            f"{name}: {show(asdict(after.mean))}, more than the start model's: {show(asdict(difference))}", flush=True
        )
    return record


def show(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--start", required=True, help="folder of the model before training")
    parser.add_argument("--model", action="append", default=[], help="folder of a trained model; repeatable")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="text file with one prompt a line")
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()

    def work() -> None:
        record = measure(args)
        if args.output:
            write_json_atomic(args.output, record)

    with guarded():
        work()


if __name__ == "__main__":
    main()
