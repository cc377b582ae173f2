"""BASH rows: labels beside contexts, loss on the answer alone, shifted once."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_llama
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import SFTConfig, SFTTrainer

from gapbridge.data.special_tokens import never_sampled_mask
from gapbridge.methods.bash.rows import bash_row


tokens = st.lists(st.integers(0, 96), min_size=1, max_size=12)


@given(
    x=tokens, answer=st.lists(st.tuples(st.integers(0, 96), st.integers(0, 96)), min_size=1, max_size=12), tail=tokens
)
def test_rows_align_position_by_position(x: list[int], answer: list[tuple[int, int]], tail: list[int]) -> None:
    y_hat, y = [list(part) for part in zip(*answer, strict=True)]
    row = bash_row(x, y_hat, y, tail)
    assert len(row["input_ids"]) == len(row["labels"]) == len(x) + len(y) + len(tail)
    assert row["labels"][: len(x)] == [-100] * len(x)
    assert row["labels"][len(x) : len(x) + len(y)] == y and row["input_ids"][len(x) : len(x) + len(y)] == y_hat
    assert row["labels"][len(x) + len(y) :] == tail == row["input_ids"][len(x) + len(y) :]


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens, the reference 2"):
        bash_row([1], [2, 3, 4], [2, 3])


def test_reference_context_is_an_sft_row() -> None:
    row = bash_row([5, 6], [7, 8], [7, 8])
    assert row["input_ids"] == [5, 6, 7, 8] and row["labels"] == [-100, -100, 7, 8]


def test_what_no_assistant_wrote_carries_no_loss_and_no_coin() -> None:
    y, trained = [7, 1, 4, 5, 8, 1], [True, True, False, False, True, True]
    row = bash_row([5, 6], [9, 1, 4, 5, 8, 1], y, [3], trained)
    assert row["labels"] == [-100, -100, 7, 1, -100, -100, 8, 1, 3] and row["input_ids"] == [5, 6, 9, 1, 4, 5, 8, 1, 3]
    assert never_sampled_mask(y, trained, {1}) == [False, True, True, True, False, True]


def test_loss_of_a_hand_made_batch(tmp_path, tokenizer) -> None:
    """-Σ_t log π(y_t | x, ŷ_<t) over all answer tokens of the batch, divided by their number, computed by hand."""
    model = tiny_llama(vocab_size=len(tokenizer), sharpness=1)
    batch = [([5, 6, 7], [20, 31, 1], [20, 30, 1]), ([9], [40, 41, 42, 50, 1], [40, 44, 42, 43, 1])]
    with torch.no_grad():
        total, count = 0.0, 0
        for x, y_hat, y in batch:
            for t, label in enumerate(y):
                before = torch.tensor([x + y_hat[:t]])
                total -= float(model(before).logits[0, -1].log_softmax(-1)[label])
                count += 1
    rows = Dataset.from_list([bash_row(*row) for row in batch])
    args = SFTConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_steps=1, logging_steps=1, save_strategy="no",
        per_device_train_batch_size=2, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_last_context_token_changes_no_loss() -> None:
    """ŷ_T stands before no label: only its own position would see it."""
    model = tiny_llama()
    losses = []
    for last in (1, 60):
        row = bash_row([5, 6], [20, 30, last], [20, 31, 1])
        inputs, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            losses.append(float(model(inputs, labels=labels).loss))
    assert losses[0] == losses[1]
