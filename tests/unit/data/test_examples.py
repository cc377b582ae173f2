"""Examples: the same tokens and borders as TRL's own preparation, and every bad row listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from gapbridge import ConfigError, DataError, build_examples
from gapbridge.data.special_tokens import special_token_ids, stop_tokens
from gapbridge.training.rows import ROW_FEATURES, sft_row


CHAT = [
    {
        "prompt": [{"role": "user", "content": f"What is {i}+1?"}],
        "completion": [{"role": "assistant", "content": f"It is {i + 1}."}],
    }
    for i in range(4)
]
PLAIN = [{"prompt": f"What is {i}+1?\n", "completion": f"It is {i + 1}."} for i in range(4)]
MESSAGES = [{"messages": row["prompt"] + row["completion"]} for row in CHAT]
BORDER = [{"prompt": "the sky has ", "completion": "blue stones"}, {"prompt": "a ston", "completion": "es more"}]


def build(rows: list[dict[str, Any]], tokenizer: Any, **options: Any) -> Any:
    options = {"stops": stop_tokens(tokenizer), "max_length": 64, **options}
    return build_examples(Dataset.from_list(rows), tokenizer, **options)


def trl_rows(rows: list[dict[str, Any]], tokenizer: Any, folder: Path) -> list[tuple[list[int], list[int]]]:
    """What TRL's SFTTrainer makes of the same rows."""
    args = SFTConfig(str(folder), use_cpu=True, bf16=False, report_to="none", max_length=64, completion_only_loss=True)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    trainer = SFTTrainer(model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


@pytest.mark.parametrize("rows", [CHAT, PLAIN, BORDER], ids=["chat", "plain", "border"])
def test_reference_rows_are_trls_rows(rows: list[dict[str, Any]], tokenizer: Any, tmp_path: Path) -> None:
    ours = Dataset.from_list([*map(sft_row, build(rows, tokenizer))], features=ROW_FEATURES)
    assert [(row["input_ids"], row["labels"]) for row in ours] == trl_rows(rows, tokenizer, tmp_path)


def test_trailing_template_tokens_are_kept_apart(tokenizer: Any, tmp_path: Path) -> None:
    """ChatML-like templates put a line break after the stop token: it is trained as in TRL, but is no part of the
    answer."""
    chatml = AutoTokenizer.from_pretrained(BASE)
    chatml.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    examples = build(CHAT, chatml)
    for example in examples:
        assert example.completion_ids[-1] == chatml.eos_token_id
        assert chatml.decode(example.template_suffix_ids) == "\n"
    rows = [(row["input_ids"], row["labels"]) for row in map(sft_row, examples)]
    assert rows == trl_rows(CHAT, chatml, tmp_path)


def test_messages_can_take_the_last_answer_alone(tokenizer: Any) -> None:
    turns = [*MESSAGES[0]["messages"], *MESSAGES[1]["messages"]]
    (example,) = build([{"messages": turns}], tokenizer, train_on_assistant_turns="last")
    assert tokenizer.decode(example.completion_ids) == "It is 2.<|end|>"
    assert tokenizer.decode(example.prompt).endswith("<|user|>What is 1+1?<|end|><|assistant|>")
    assert list(build(MESSAGES, tokenizer)) == list(build(CHAT, tokenizer))


def test_pretokenised_rows_are_taken_as_they_are(tokenizer: Any) -> None:
    eos = tokenizer.eos_token_id
    rows = [{"id": 7, "input_ids": [9, 8, 7, 6, eos], "labels": [-100, -100, 7, 6, eos]}]
    (example,) = build(rows, tokenizer)
    assert (example.id, example.prompt, example.completion_ids) == ("7", [9, 8], [7, 6, eos])
    rows = [{"input_ids": [9, 8, 7, 6, eos], "completion_mask": [0, 0, 1, 1, 1]}]
    assert build(rows, tokenizer).part(0, 1)[0].completion_ids == [7, 6, eos]


def test_ids_follow_the_content_or_the_column(tokenizer: Any) -> None:
    forward, backward = build(PLAIN, tokenizer), build(PLAIN[::-1], tokenizer)
    assert {e.id: e.completion_ids for e in forward} == {e.id: e.completion_ids for e in backward}
    twice = [e.id for e in build([PLAIN[0], PLAIN[0], PLAIN[0]], tokenizer)]
    assert len(set(twice)) == 3 and twice[1] == f"{twice[0]}-2" and twice[2] == f"{twice[0]}-3"
    named = build([{"id": f"n{i}", **row} for i, row in enumerate(PLAIN)], tokenizer)
    assert [e.id for e in named] == ["n0", "n1", "n2", "n3"]


BAD = {
    "null answer": ({"prompt": "a", "completion": None}, "completion: got null"),
    "empty answer": ({"prompt": "a", "completion": "  "}, "completion: got an empty string"),
    "empty prompt": ({"prompt": "", "completion": "b"}, "prompt: got an empty string"),
    "long": ({"prompt": "a", "completion": "b " * 80}, "over-length"),
    "long prompt": ({"prompt": "b " * 80, "completion": "b"}, "prompt alone"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_listed(name: str, tokenizer: Any) -> None:
    row, reason = BAD[name]
    with pytest.raises(DataError, match=f"train.jsonl, row 1 .*{reason}"):
        build([PLAIN[0], row], tokenizer, source="train.jsonl")
    remaining = build([PLAIN[0], row], tokenizer, on_invalid_example="skip")
    assert (
        len(remaining) == 1
        and [bad.row for bad in remaining.bad_rows] == [1]
        and reason in remaining.bad_rows[0].reason
    )


def test_all_bad_rows_come_at_once(tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        build([row for row, _ in BAD.values()], tokenizer)
    assert all(reason in str(caught.value) for _, reason in BAD.values())
    assert len(caught.value.errors) == 5, "a bad row is an error"
    assert "5 of 5 rows" in str(caught.value) and "on_invalid_example: skip" in str(caught.value)
    assert "truncate_overlong: true" in str(caught.value)
    with pytest.raises(DataError) as caught:
        build([PLAIN[0], BAD["long prompt"][0]], tokenizer)
    assert len(caught.value.errors) == 1 and "truncate_overlong" not in str(caught.value), "cutting would not help"
    with pytest.raises(DataError, match="expected a row to train on"):
        build([row for row, _ in BAD.values()], tokenizer, on_invalid_example="skip")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "got a user turn at the end"),
        ({"messages": []}, "null or an empty list"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no turn before"),
        (
            {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "a"}]},
            "content: got null",
        ),
        ({"input_ids": [5, 6], "labels": [-100, -100]}, "no trainable token"),
        ({"input_ids": [5, 6, 1], "labels": [-100, 7, 1]}, "as in rows of contexts"),
        ({"input_ids": [5, 6, 1], "labels": [-100, 1]}, "got 2 values, expected 3"),
        ({"input_ids": [5, 6, 1], "labels": [5, -100, -100]}, "no trainable token"),
        ({"input_ids": [5, 6, 1], "assistant_masks": [0, 1]}, "assistant_masks: got 2 values, expected 3"),
        ({"input_ids": [5]}, "no trainable token"),
        ({"text": ""}, "text: got an empty string"),
        ({"text": None}, "text: got null"),
        ({"conversations": [{"from": "user", "value": "a"}]}, "got a user turn at the end"),
        ({"messages": [{"role": "user", "content": "a"}], "image": "a.png"}, "column image: got vision-related"),
    ],
)
def test_bad_forms_are_listed(row: dict[str, Any], reason: str, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=reason):
        build([row], tokenizer)


def test_duplicate_ids_are_bad_rows(tokenizer: Any) -> None:
    rows = [{"id": "same", **row} for row in PLAIN[:2]]
    with pytest.raises(DataError, match="row 1 .*got the duplicate of row 0"):
        build(rows, tokenizer)


def test_truncation_is_a_choice(tokenizer: Any) -> None:
    long = {"prompt": "one\n", "completion": "two " * 80}
    examples = build([long], tokenizer, truncate_overlong=True)
    (example,) = examples
    assert len(example.prompt) + len(example.completion_ids) == 64 and examples.truncated == 1
    assert tokenizer.eos_token_id not in example.completion_ids


def test_unknown_columns_and_empty_data(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="question, expected"):
        build([{"question": "a"}], tokenizer)
    with pytest.raises(DataError, match="empty"):
        build_examples(Dataset.from_list([]), tokenizer, stops=[1], max_length=8)


def test_stop_and_control_tokens(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 9]
    assert stop_tokens(tokenizer, model) == [tokenizer.eos_token_id, 9]
    names = tokenizer.convert_ids_to_tokens(special_token_ids(tokenizer))
    assert set(names) == {"<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"}
    without = AutoTokenizer.from_pretrained(BASE)
    without.eos_token = None
    with pytest.raises(ConfigError, match="got no EOS token"):
        stop_tokens(without)


def test_fingerprint_changes_with_any_token(tokenizer: Any) -> None:
    base = build(PLAIN, tokenizer).fingerprint()
    assert base == build(PLAIN, tokenizer).fingerprint()
    changed = [dict(row) for row in PLAIN]
    changed[2]["completion"] = "It is 4."
    assert base != build(changed, tokenizer).fingerprint() != build(PLAIN[::-1], tokenizer).fingerprint()


@settings(max_examples=40, deadline=None)
@given(prompt=st.text(min_size=1, max_size=40), completion=st.text(min_size=1, max_size=40))
def test_any_text_becomes_a_row_or_a_listed_fault(prompt: str, completion: str) -> None:
    tokenizer = _shared_tokenizer()
    examples = None
    try:
        examples = build([{"prompt": prompt, "completion": completion}], tokenizer, max_length=None)
    except DataError as error:
        assert "row 0" in str(error)
    if examples is not None:
        (example,) = examples
        assert (
            tokenizer.decode(example.prompt + example.completion_ids + example.template_suffix_ids)
            == prompt + completion + "<|end|>"
        )


_CACHE: list[Any] = []


def _shared_tokenizer() -> Any:
    if not _CACHE:
        _CACHE.append(AutoTokenizer.from_pretrained(BASE))
    return _CACHE[0]


def test_torch_is_single_threaded() -> None:
    assert torch.get_num_threads() == 1
