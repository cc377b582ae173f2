"""How many greedy completions of a vLLM server differ from this package's, and whether rounding explains each of them.

    vllm serve recipes/tiny/base --dtype float32 --max-model-len 1024 --port 8000
    python benchmarks/vllm_greedy.py --model recipes/tiny/base --vllm_server_base_url http://127.0.0.1:8000

Two completions part at one token. There the model scores both tokens in float32: where their log-probabilities lie as
close together as the precision's rounding, rounding decided. What follows the parting is another context.

In bfloat16 the same model's logits are also rounded by this package's engine alone: it is run in float32 as well.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from mixing import machine_and_versions, write_results
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge.data.special_tokens import stop_tokens, undecodable_token_ids
from gapbridge.decoding import SamplingParams, generate_completions
from gapbridge.decoding.vllm_generation import ServerEngine, check_weights, generate_completions_vllm
from gapbridge.tasks.word_problems import problems


def margin(model: torch.nn.Module, prompt: list[int], ours: list[int], theirs: list[int]) -> float:
    """How far the log-probabilities of two completions' tokens lie apart, in nats, where the completions part."""
    at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    with torch.no_grad():
        scores = model(torch.tensor([[*prompt, *ours[:at]]])).logits[0, -1].float().log_softmax(-1)
    return float((scores[ours[at]] - scores[theirs[at]]).abs())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--vllm_server_base_url", required=True)
    parser.add_argument("--dtype", default="float32", help="of the model here")
    parser.add_argument("--count", type=int, default=200, help="test problems")
    parser.add_argument("--limit", type=int, default=128, help="most tokens of a completion")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    chats = [problem.row()["prompt"] for problem in problems("test", count=args.count)]
    how = {"add_generation_prompt": True, "return_dict": True}
    prompts = [tokenizer.apply_chat_template(chat, **how)["input_ids"] for chat in chats]
    engine = ServerEngine(args.vllm_server_base_url, model=args.model, timeout=60.0, concurrency=64)
    stops = stop_tokens(tokenizer, model)
    difference = check_weights(engine, model, prompts, stops)
    exact = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    options = SamplingParams(0.0, suppress_tokens=undecodable_token_ids(tokenizer, model))
    how = {"ids": range(len(prompts)), "max_completion_length": args.limit, "stop_tokens": stops, "options": options}
    ours, in_float32 = (
        [completion.tokens for completion in generate_completions(one, prompts, **how)] for one in (model, exact)
    )
    theirs = [completion.tokens for completion in generate_completions_vllm(engine, prompts, **how)]
    tokens = sum(map(len, ours))
    print(f"{args.dtype}; log-probabilities differ by {difference:.5f} nats a token on average")
    report = {"difference": difference, "completions": len(prompts), "tokens": tokens}
    for name, others in (("vLLM", theirs), ("this package in float32", in_float32)):
        pairs = zip(prompts, ours, others, strict=True)
        margins = [margin(exact, prompt, a, b) for prompt, a, b in pairs if a != b]
        line = f"{name}: {len(margins)} of {len(prompts)} greedy completions differ ({tokens} tokens in all)"
        if margins:
            line += (
                f"; margin where they part: median {statistics.median(margins):.4f} nats, largest {max(margins):.4f}"
            )
        print(line)
        report[name] = margins
    write_results(args, *machine_and_versions("cpu", 1), report)


if __name__ == "__main__":
    main()
