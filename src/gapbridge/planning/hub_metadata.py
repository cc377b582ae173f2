"""The public data sets and models that recipes name: what they look like, without a hub.

Splits with their numbers of rows and the columns of a row are those of the data sets' cards, the models' shapes those
of their configurations. From them recipes are counted (`gapbridge plan`) and tried on stand-ins (`--smoke_test`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ..tasks.word_problems import problems


Row = dict[str, Any]


@dataclass(frozen=True)
class PublishedData:
    """A data set on the hub.

    configs: its configurations, each with its splits and their rows.
    row: (prompt, answer, number) → a row with the columns that the data set has.
    """

    configs: Mapping[str, Mapping[str, int]]
    row: Callable[[str, str, int], Row]


def _turns(prompt: str, *answers: str) -> list[dict[str, str]]:
    """A conversation in which each answer follows the same question."""
    return [
        {"role": role, "content": text}
        for answer in answers
        for role, text in (("user", prompt), ("assistant", answer))
    ]


def _post(prompt: str, answer: str, number: int) -> Row:
    post = f"SUBREDDIT: r/problems\n\nTITLE: Number {number}\n\nPOST: {prompt}\n\nTL;DR:"
    return {"prompt": post, "completion": f" {answer}"}


def conversation_row(prompt: str, answer: str, number: int) -> Row:
    """UltraChat's columns."""
    # One turn, two, three, …: most conversations have several.
    messages = _turns(prompt, *[answer] * (1 + number % 3))
    return {"prompt": prompt, "prompt_id": f"{number:064x}", "messages": messages}


def preference_row(prompt: str, answer: str, number: int) -> Row:
    """UltraFeedback's columns."""
    chosen, rejected = _turns(prompt, answer), _turns(prompt, f"{answer}0")
    marks = {"messages": chosen, "score_chosen": 8.0, "score_rejected": 4.0}
    return {"prompt": prompt, "prompt_id": f"{number:064x}", "chosen": chosen, "rejected": rejected, **marks}


_SUBJECTS = {
    "algebra": (1744, 1187),
    "counting_and_probability": (771, 474),
    "geometry": (870, 479),
    "intermediate_algebra": (1295, 903),
    "number_theory": (869, 540),
    "prealgebra": (1205, 871),
    "precalculus": (746, 546),
}
DATA = {
    # OpenAI's filtered TL;DR (Stiennon et al. 2020) in TRL's columns.
    "trl-lib/tldr": PublishedData({"default": {"train": 116_722, "validation": 6_447, "test": 6_553}}, _post),
    "HuggingFaceH4/ultrachat_200k": PublishedData(
        {"default": {"train_sft": 207_865, "test_sft": 23_110}}, conversation_row
    ),
    "HuggingFaceH4/ultrafeedback_binarized": PublishedData(
        {"default": {"train_prefs": 61_135, "test_prefs": 2_000}}, preference_row
    ),
    "openai/gsm8k": PublishedData(
        {"main": {"train": 7_473, "test": 1_319}},
        lambda prompt, answer, number: {"question": prompt, "answer": answer},
    ),
    "EleutherAI/hendrycks_math": PublishedData(
        {subject: {"train": train, "test": test} for subject, (train, test) in _SUBJECTS.items()},
        lambda prompt, answer, number: {
            "problem": prompt, "level": f"Level {1 + number % 5}", "type": "Algebra",
            "solution": f"{answer.partition('####')[0]}so it is $\\boxed{{{answer.partition('####')[2].strip()}}}$.",
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PublishedModel:
    """A model on the hub. shape: the keys of its configuration; chats: whether its tokenizer has a chat template."""

    shape: Mapping[str, Any]
    chats: bool = False


_MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
    "sliding_window": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
MODELS = {
    "EleutherAI/pythia-1b": PublishedModel({
        "model_type": "gpt_neox", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 8, "vocab_size": 50304, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 0,
    }),
    "mistralai/Mistral-7B-v0.1": PublishedModel(_MISTRAL_7B),
    "alignment-handbook/zephyr-7b-sft-full": PublishedModel(_MISTRAL_7B, chats=True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": PublishedModel({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }, chats=True),
}  # fmt: skip


def published_files(data: PublishedData, rows: int = 8) -> dict[str, str]:
    """The files of a folder that `load_dataset` takes for the data set: its configurations, splits and columns, with
    few rows, by their names below it. No two splits share a prompt."""
    files = {}
    named = [(config, split) for config, splits in data.configs.items() for split in splits]
    for seed, (config, split) in enumerate(named):
        part = next((part for part in ("validation", "test") if part in split), "train")
        made = problems(part, count=rows, seed=seed, steps=(1,))
        lines = [json.dumps(data.row(problem.prompt, problem.answer, at)) + "\n" for at, problem in enumerate(made)]
        files[f"{config}/{split}.jsonl"] = "".join(lines)
    places = {
        config: [{"split": split, "path": f"{config}/{split}.jsonl"} for split in splits]
        for config, splits in data.configs.items()
    }
    card = {"configs": [{"config_name": config, "data_files": place} for config, place in places.items()]}
    return {**files, "README.md": f"---\n{yaml.safe_dump(card)}---\n"}
