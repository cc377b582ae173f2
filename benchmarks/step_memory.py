"""Peak memory and tokens per CPU second of one training step of a model on this machine's CPU, without a trainer.

python benchmarks/step_memory.py MODEL --rows 4 --tokens 300 --bf16
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from transformers import AutoModelForCausalLM


_STEPS = 3  # the last is reported: the first ones make the optimizer's state and warm up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=300, help="of a row (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16; default: float32")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").train()
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    ids = torch.randint(0, model.config.vocab_size, (args.rows, args.tokens))
    rate = 0.0
    for _ in range(_STEPS):
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate = ids.numel() / (time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # in kB on Linux
    print(f"{args.rows} rows of {args.tokens} tokens: {rate:.0f} tokens per CPU second, peak {peak:.1f} GB")


if __name__ == "__main__":
    main()
