"""Cached examples and rows are found by `DATA_VERSION`: while it stays, the code makes the same of the same data.

Each case is a few rows in one form, through one tokenizer and one method, with a fixed text in place of what a model
would generate. `data_version.json` holds the version and a hash of each case: of columns, types, values and what lies
beside them in the cache. After a deliberate change, raise `DATA_VERSION` and record it:
GAPBRIDGE_WRITE_DATA_VERSION=1 python -m pytest FILE
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from datasets import Dataset
from helpers.templates import TOOLS, assistant, byte_tokenizer, user
from transformers import AutoTokenizer

from gapbridge import methods
from gapbridge.data.serialization import save_examples
from gapbridge.data.sources import DataConfig, standard_columns
from gapbridge.tasks.word_problems import problems
from gapbridge.training.artifact_cache import DATA_VERSION


RECORD = Path(__file__).with_name("data_version.json")
CHATML = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Like Llama 2: no header before an answer, and nothing but the stop token after it.
INST = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{% if m.role == 'user' "
    "%}[INST] {{ m.content }} [/INST]{% elif m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>{% else %} "
    "{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
TURNS = [
    user("Ask one."),
    assistant("First.\n\n"),
    user("Ask two?"),
    assistant("Second\n\none, longer than the first."),
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": TURNS}, {"messages": [{"role": "system", "content": "Be brief."}, *TURNS[:2]]}],
    "tools": [{"tools": TOOLS, "messages": TURNS, "chat_template_kwargs": {"a": 1}}],
    "turns": [{"prompt": TURNS[:3], "completion": TURNS[3:]}, {"prompt": TURNS[:1], "completion": TURNS[1:2]}],
    "strings": [
        {"id": "a", "prompt": "Two and two\n", "completion": "\nare four."},
        {"id": "b", "prompt": "One", "completion": " is one."},
    ],
    "text": [{"text": "A sentence.\n\nAnother one."}, {"text": "Ü, and more of it."}],
    "ids": [{"input_ids": [5, 6, 7, 8, 9, 1], "labels": [-100, -100, 7, -100, 9, 1]}],
    "ids with a mask": [{"input_ids": [5, 6, 7, 8, 9], "completion_mask": [0, 0, 1, 1, 1]}],
    "pairs": [{"id": "a", "prompt": TURNS[:3], "chosen": TURNS[3:], "rejected": TURNS[1:2]}],
    "pairs of strings": [{"prompt": "Two\n", "chosen": "\nthree", "rejected": "\nfour"}],
}  # fmt: skip
CASES: list[tuple[str, str, str, dict[str, Any]]] = [  # method, tokenizer, rows, options
    *(("sft", name, rows, {}) for name in ("chatml", "inst") for rows in ROWS if not rows.startswith("pairs")),
    *((name, "tiny", "problems", {}) for name in methods.list_methods() if name != "dpo"),
    ("sft", "tiny", "problems", {"max_length": 60, "truncate_overlong": True, "on_invalid_example": "skip"}),
    ("sft", "chatml", "messages", {"train_on_assistant_turns": "last"}),
    ("sft", "chatml", "messages", {"assistant_only_loss": False}),
    ("sft", "chatml", "turns", {"completion_only_loss": False}),
    ("sft", "inst", "tools", {"chat_template_kwargs": {"b": 2}, "chat_template_date": "2026-01-01"}),
    *(("bash", *data, {"mixture_coefficient": 0.5}) for data in (("chatml", "messages"), ("inst", "text"))),
    ("bash", "tiny", "problems", {"num_masked_labels_after_replacement": 2, "sft_fraction": 0.5}),
    *(("rac", *data, {}) for data in (("chatml", "messages"), ("chatml", "strings"), ("inst", "turns"))),
    ("rac", "tiny", "problems", {"sft_fraction": 0.25, "max_length": 200}),
    *(("spin", *data, {}) for data in (("chatml", "turns"), ("inst", "strings"))),
    *(("dpo", *data, {}) for data in (("chatml", "pairs"), ("inst", "pairs of strings"))),
    ("pause", "tiny", "problems", {"pause_placement": "random"}),
    ("mtp", "chatml", "messages", {}),
]  # fmt: skip
COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of recipes, before tokenization
    "columns": ({"question": "Two?", "answer": "4"}, {"prompt_column": "question", "completion_column": "answer"}),
    "chat": (
        {"prompt": "Two?", "completion": "4"}, {"convert_to_chat": True, "system_prompt": "Be brief."},
    ),
    "conversations": (
        {"conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "4"}]},
        {"system_prompt": "Be brief."},
    ),
    "pairs": ({"prompt": "Two?", "chosen": "4", "rejected": "5"}, {"convert_to_chat": True}),
}  # fmt: skip


@functools.cache
def rows_of(name: str) -> list[dict[str, Any]]:
    return ROWS[name] if name in ROWS else [problem.row() for problem in problems("train", count=4, steps=(1, 2))]


def tokenizer_of(name: str) -> Any:
    """Not shared: a method may add a token."""
    if name == "tiny":
        return AutoTokenizer.from_pretrained(BASE)
    return byte_tokenizer(CHATML, ["<|im_end|>"]) if name == "chatml" else byte_tokenizer(INST, ["<|end|>"])


def generated(examples: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each example with a text as long as its reference: every third token is its predecessor, but not the last."""
    for number, example in enumerate(examples):
        tokens = list(example.completion_ids)
        sampled = [at % 3 == 1 and at < len(tokens) - 1 for at in range(len(tokens))]
        tokens = [tokens[at - 1] if own else tokens[at] for at, own in enumerate(sampled)]
        yield example, {"tokens": tokens, "sampled": sampled, "finished": number % 2 == 0}


def digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def hash_case(method_name: str, tokenizer_name: str, rows_name: str, options: dict[str, Any], folder: Path) -> str:
    method, tokenizer = methods.get_method(method_name), tokenizer_of(tokenizer_name)
    settings = {"use_cpu": True, "bf16": False, "report_to": "none", "max_length": 400, "seed": 3, **options}
    args = method.config_class(str(folder), **settings)
    method.setup_model(None, tokenizer, args)
    dataset = Dataset.from_list(rows_of(rows_name))
    examples = method.load_examples(dataset, tokenizer, None, args, "data", max_length=args.row_limit("train"))
    path = folder / "examples.arrow"
    save_examples(examples, path)
    beside = json.loads(path.with_suffix(".json").read_text())
    beside = {key: value for key, value in beside.items() if key not in ("size", "sha256")}  # pyarrow's bytes
    del beside["known"]["loss_on"]  # a sentence for the log
    made: list[Any] = [str(examples.table.features), examples.table[:], beside, str(method.row_features)]
    held_out = [method.sft_row(example) for example in examples]
    for rows, stats in method.build_rows(generated(examples), examples, tokenizer, args):
        made.append([rows, stats.counts()])
    return digest([made, held_out])


def hashes(folder: Path) -> dict[str, str]:
    found = {}
    for method, tokenizer, rows, options in CASES:
        name = ", ".join([method, tokenizer, rows, *(f"{key} {value}" for key, value in options.items())])
        found[name] = hash_case(method, tokenizer, rows, options, folder)
    for name, (row, keys) in COLUMNS.items():
        table = standard_columns(Dataset.from_list([row]), DataConfig(**keys), "data")
        found[f"standard columns, {name}"] = digest([str(table.features), table[:]])
    return found


def test_rows_change_with_the_data_version_only(tmp_path: Path) -> None:
    before: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {"data_version": 0, "hashes": {}}
    now: dict[str, Any] = {"data_version": DATA_VERSION, "hashes": hashes(tmp_path)}
    changed = [name for name, old in before["hashes"].items() if now["hashes"].get(name, old) != old]
    if changed and DATA_VERSION == before["data_version"]:
        pytest.fail(
            f"the code makes other rows of the same data: {'; '.join(changed)}. A cache of an earlier start would "
            "hide that. If the change is meant, set DATA_VERSION in src/gapbridge/training/artifact_cache.py to "
            f"{DATA_VERSION + 1} and run GAPBRIDGE_WRITE_DATA_VERSION=1 python -m pytest {__file__}"
        )
    if os.environ.get("GAPBRIDGE_WRITE_DATA_VERSION"):
        RECORD.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n")
        return
    assert now == before, (
        f"{RECORD.name} is of another version or of other cases: GAPBRIDGE_WRITE_DATA_VERSION=1 python -m pytest "
        f"{__file__}"
    )
