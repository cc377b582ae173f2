"""The lengths of packed rows are those that TRL makes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from datasets import Dataset
from trl import DPOConfig, SFTConfig, pack_dataset

from gapbridge.training.packing import packed_lengths


QUIET: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none"}


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
@pytest.mark.parametrize(
    ("rows", "processes", "shuffled"), [(1, None, False), (7, None, False), (2300, None, False), (2300, 3, True)]
)
def test_packed_rows_are_trls(rows: int, processes: int | None, shuffled: bool, strategy: str) -> None:
    draw = random.Random(rows)
    longest = 64 if strategy == "bfd" else 200
    lengths = [draw.choice([draw.randint(1, longest), 64, 40]) for _ in range(rows)]
    args = SFTConfig(
        "unused", packing=True, packing_strategy=strategy, max_length=64, shuffle_dataset=shuffled, seed=3,
        dataset_num_proc=processes, **QUIET,
    )  # fmt: skip
    dataset = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    if shuffled:
        dataset = dataset.shuffle(seed=3)
    packed = pack_dataset(dataset, 64, strategy, {"num_proc": processes})
    assert sorted(packed_lengths(lengths, args)) == sorted(map(len, packed["input_ids"]))


def test_rows_that_are_not_packed_stay() -> None:
    assert packed_lengths([3, 5], SFTConfig("unused", **QUIET)) == [3, 5]
    assert packed_lengths([3, 5], DPOConfig("unused", **QUIET)) == [3, 5]
    assert packed_lengths([], SFTConfig("unused", packing=True, **QUIET)) == []
