"""An arm of TRL's SDFT (on-policy self-distillation from demonstrations, Shenfeld et al. 2026, arXiv 2601.19897).

    python benchmarks/sdft.py --model outputs/base --data data/scitldr --sft_steps 40 --output_dir outputs/sdft

The student answers a prompt; the teacher, the same model with the reference in its prompt, says how likely each token
of that answer is. The result is a folder that `gapbridge eval` and `gapbridge gap` take as any model.
`--sft_steps N` makes as many steps as cost what N steps of SFT on the same rows cost, in forward-token equivalents
(docs/research/cost.md): SFT 3 forward passes over a row; SDFT 3 over prompt and answer, one of the teacher over its
longer prompt and the answer, and one for generation. An answer is taken to be as long as the references are.
Needs TRL 1.0 or later: `trl.experimental` may change, and nothing of this package depends on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from gapbridge.cli import guarded
from gapbridge.errors import ConfigError, RunError


TEACHER_PROMPT_TOKENS = 40  # of TRL's wording around prompt and demonstration, about


def text_of(value: Any) -> str:
    """A column of one turn, as text."""
    return value if isinstance(value, str) else str(value[-1]["content"])


def read_rows(args: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, float, float]:
    """The rows in SDFT's columns, and the mean tokens of prompts and references.

    Raises:
        ConfigError: no row is short enough.
    """
    data = load_dataset(args.data, split=args.split)
    rows, prompts, answers = [], [], []
    for row in data:
        prompt, reference = text_of(row["prompt"]), text_of(row["completion"])
        turns = [{"role": "user", "content": prompt}]
        template = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (template, reference)]
        if args.max_length is None or sum(lengths) <= args.max_length:
            rows.append({"prompt": turns, "privileged_context": reference})
            prompts.append(lengths[0])
            answers.append(lengths[1])
        if len(rows) == args.max_train_examples:
            break
    if not rows:
        raise ConfigError(
            f"{args.data}, rows: got none of at most {args.max_length} tokens, expected one. Raise --max_length"
        )
    return Dataset.from_list(rows), sum(prompts) / len(rows), sum(answers) / len(rows)


def steps_of_equal_compute(sft_steps: int, prompt: float, answer: float) -> int:
    """SDFT's steps that cost what `sft_steps` of SFT with as many rows cost; at least one.

    Args:
        prompt, answer: mean tokens of a prompt and of a reference.
    """
    sft = 3 * (prompt + answer)
    teacher = prompt + answer + TEACHER_PROMPT_TOKENS + answer
    sdft = 3 * (prompt + answer) + teacher + (prompt + answer)
    return max(1, round(sft_steps * sft / sdft))


def train(args: argparse.Namespace) -> None:
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        raise ConfigError(f"{args.output_dir}: got a folder with files, expected none. Choose another --output_dir")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows, prompt, answer = read_rows(args, tokenizer)
    least = args.batch_size * args.gradient_accumulation_steps
    if len(rows) < least:
        raise ConfigError(
            f"{args.data}, rows: got {len(rows)}, expected at least {least}, those of one step. Make "
            "--gradient_accumulation_steps smaller"
        )
    steps = steps_of_equal_compute(args.sft_steps, prompt, answer)
    print(
        f"{len(rows)} rows of {prompt:.0f} + {answer:.0f} tokens; {args.sft_steps} steps of SFT cost {steps} of SDFT"
    )
    config = SDFTConfig(
        output_dir=str(args.output_dir),
        max_steps=steps,
        learning_rate=args.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 10),
        per_device_train_batch_size=args.batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        gradient_checkpointing=False,
        max_completion_length=args.max_completion_length,
        num_generations=1,
        num_iterations=1,
        seed=args.seed,
        use_cpu=args.use_cpu,
        bf16=args.bf16,
        save_strategy="no",
        report_to="none",
        logging_steps=5,
    )
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
    trainer = SDFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    if trainer.state.global_step != steps:
        raise RunError(f"{args.output_dir}, steps: got {trainer.state.global_step}, expected {steps}. Give more rows")
    trainer.save_model(str(args.output_dir))
    tokenizer.save_pretrained(args.output_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of the model that is trained")
    parser.add_argument("--data", required=True, help="folder or data set with the columns prompt and completion")
    parser.add_argument("--split", default="train")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--sft_steps", type=int, required=True, help="steps of SFT that have the same cost")
    parser.add_argument("--max_train_examples", type=int, help="rows that are short enough (default: all)")
    parser.add_argument("--max_length", type=int, help="most tokens of prompt and reference (default: no limit)")
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    with guarded():
        train(args)


if __name__ == "__main__":
    main()
