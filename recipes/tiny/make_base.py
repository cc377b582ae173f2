"""Make `recipes/tiny/base`: a one-million-parameter Llama with its own tokenizer, pre-trained on word problems.

    python recipes/tiny/make_base.py --output recipes/tiny/base        (or: make tiny-base)

The text is plain ("question, new line, worked answer"); the chat format is what the tiny recipes teach. Every batch
holds fresh problems of 1 to 6 steps from the training split, so no test problem is ever seen. The result is a pure
function of the arguments on one machine with one thread.

With `--task word_problems` it makes another small base from scratch, on problems with options of one's own:

    python recipes/tiny/make_base.py --task word_problems --options steps=1 order=answer_first --chat --layers 2 \\
        --hidden_size 64 --steps 1000 --batch_size 32 --check 100 --output outputs/base-answer-first
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from gapbridge.decoding import generate_completions
from gapbridge.files import write_json_atomic
from gapbridge.tasks.word_problems import ANSWER_MARK, MAX_STEPS, ORDERS, Problem, problems


PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Text:
    """What a base is trained on: fresh problems, as plain text or in the chat template's format.

    options: of `problems`. mixed: each batch takes its own number of steps.
    """

    options: dict[str, Any]
    mixed: bool
    chat: bool
    seed: int

    def problems(self, start: int, count: int, steps: tuple[int, ...]) -> Iterator[Problem]:
        options = self.options | ({"steps": steps} if self.mixed else {})
        return problems("train", count=count, seed=1_000_000 * (self.seed + 1) + start, **options)

    def plain(self, start: int, count: int, steps: tuple[int, ...]) -> Iterator[str]:
        for problem in self.problems(start, count, steps):
            yield f"{problem.prompt}\n{problem.answer}"


def train_tokenizer(vocab_size: int, text: Text) -> PreTrainedTokenizerFast:
    """Byte-level BPE (any text can be encoded) whose digits always stand alone; the same for every seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = replace(text, seed=0).plain(0, 6000, tuple(range(1, MAX_STEPS + 1)))
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(
    tokenizer: PreTrainedTokenizerFast, text: Text, steps: int, batch_size: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Every batch holds fresh problems, mixed ones with one number of operations, so that little of it is padding.

    Plain text carries loss everywhere, text in the chat format on the answers.
    """
    for step in range(steps):
        difficulty = (step * 5) % MAX_STEPS + 1  # each number of operations equally often, in no rising order
        if text.chat:
            lines = [chat_text(tokenizer, problem) for problem in text.problems(step + 1, batch_size, (difficulty,))]
        else:
            lines = [line + END for line in text.plain(step + 1, batch_size, (difficulty,))]
        encoded = tokenizer(lines, padding=True, return_tensors="pt")
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        if text.chat:
            opening = encoded["input_ids"] == tokenizer.convert_tokens_to_ids(ROLES[-1])
            labels[opening.cumsum(1) - opening.long() == 0] = -100
        yield {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}


def chat_text(tokenizer: PreTrainedTokenizerFast, problem: Problem) -> str:
    row = problem.row()
    return str(tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False))


def check(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: Text, count: int) -> float:
    """The fraction of greedy answers to `count` validation problems whose result is right."""
    asked_of = list(problems("validation", count=count, **text.options))
    if text.chat:
        how = {"add_generation_prompt": True, "tokenize": False}
        asked = [tokenizer.apply_chat_template(problem.row()["prompt"], **how) for problem in asked_of]
    else:
        asked = [f"{problem.prompt}\n" for problem in asked_of]
    completions = generate_completions(
        model,
        tokenizer(asked)["input_ids"],
        ids=[problem.id for problem in asked_of],
        max_completion_length=16 + max(len(ids) for ids in tokenizer([p.answer for p in asked_of])["input_ids"]),
        stop_tokens=[tokenizer.eos_token_id],
        temperature=0.0,
    )
    answers = [tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions]
    return sum(map(has_right_result, asked_of, answers)) / count


def has_right_result(problem: Problem, answer: str) -> bool:
    """Whether the first line that begins with #### has the result. Answer first, it must be the very first line: no
    number of the working is taken for a result."""
    lines = [line.strip() for line in answer.strip().split("\n")]
    marked = [line for line in lines if line.startswith(ANSWER_MARK)]
    if not marked or (problem.order == "answer_first" and marked[0] is not lines[0]):
        return False
    return marked[0].removeprefix(ANSWER_MARK).strip() == str(problem.result)


def for_older_versions(directory: Path) -> None:
    """Write what transformers 5 saves under names of its own as transformers 4 reads it; 5 reads that, too."""
    config, tokenizer = directory / "config.json", directory / "tokenizer_config.json"
    values = json.loads(config.read_text())
    if "rope_parameters" in values:
        values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    write_json_atomic(config, values)
    values = json.loads(tokenizer.read_text())
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(values.get("extra_special_tokens"), list):
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    write_json_atomic(tokenizer, values)


def learning_rate_at(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def task_options(given: Sequence[str]) -> dict[str, Any]:
    """The options of `--options`: steps=N,N and order=ORDER."""
    parser = argparse.ArgumentParser(prog="--options", allow_abbrev=False)
    parser.add_argument("--steps", type=lambda text: tuple(map(int, text.split(","))), default=(4,))
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0])
    return {"validation_apart": True, **vars(parser.parse_args([f"--{pair}" for pair in given]))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output", type=Path, default=Path("recipes/tiny/base"))
    add("--steps", type=int, default=1000, help="optimizer steps")
    add("--batch_size", type=int, default=64)
    add("--learning_rate", type=float, default=2e-3)
    add("--vocab_size", type=int, default=512)
    add("--hidden_size", type=int, default=128, help="a multiple of 32, the size of a head")
    add("--layers", type=int, default=4)
    add("--seed", type=int, default=0, help="of the weights and the problems")
    add("--task", choices=["word_problems"], help="default: word problems of 1 to 6 steps, in turn")
    add(
        "--options", nargs="*", default=[], metavar="KEY=VALUE", help="of the task, such as steps=1,2 of word_problems"
    )
    add("--chat", action="store_true", help="train in the chat template's format, with loss on the answers alone")
    add("--device", default="cpu", help="cuda trains larger models in bfloat16 autocast; its sums are not repeatable")
    add("--check", type=int, default=0, metavar="N", help="then score greedy answers to N validation problems")
    args = parser.parse_args(argv)
    if args.hidden_size % 32 or args.hidden_size < 32:
        parser.error(f"--hidden_size is {args.hidden_size}: it must be a multiple of 32")
    if args.options and not args.task:
        parser.error("--options needs --task: it says whose options they are")
    if args.task:
        text = Text(task_options(args.options), mixed=False, chat=args.chat, seed=args.seed)
    else:  # the shipped base is older than the validation split
        text = Text({}, mixed=True, chat=args.chat, seed=args.seed)

    torch.set_num_threads(1)  # one thread: the sums, and so the weights, come out the same every time
    set_seed(args.seed)
    tokenizer = train_tokenizer(args.vocab_size, text)
    model = build_model(tokenizer, args.hidden_size, args.layers).to(args.device)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    model.train()
    progress = tqdm(batches(tokenizer, text, args.steps, args.batch_size), total=args.steps, desc="pre-training")
    for step, batch in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, args.steps, args.learning_rate)
        on_device = {name: value.to(args.device) for name, value in batch.items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type != "cpu"):
            loss = model(**on_device).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    for_older_versions(args.output)
    print(f"saved to {args.output}; last loss {loss.item():.4f}")
    if args.check:
        correct = check(model, tokenizer, text, args.check)
        figures = {"problems": args.check, "loss": loss.item(), "correct": correct}
        write_json_atomic(args.output / "check.json", figures)
        print(f"greedy answers to {args.check} validation problems: correct {100 * correct:.1f} %")


if __name__ == "__main__":
    main()
