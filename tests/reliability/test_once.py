"""What is expensive is done once a round: hashing the weights, the examples and the shards of the contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, recipe

from gapbridge.data.example import ExampleSet
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import prepare, train
from gapbridge.store import context_store
from gapbridge.training import dataset_builder


def test_a_round_with_contexts_hashes_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = recipe(tmp_path, eval_strategy="epoch", test_split_size=2, generation_shard_size=2)
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    fingerprint = vars(ExampleSet)["_fingerprint"]
    monkeypatch.setattr(fingerprint, "func", counted("examples", fingerprint.func))
    prepare(read_job(arguments))
    before = contents(tmp_path / "run", "round_1/*contexts/*")
    monkeypatch.setattr(
        dataset_builder, "weights_fingerprint", counted("weights", dataset_builder.weights_fingerprint)
    )
    monkeypatch.setattr(context_store, "sha256", counted("shards", context_store.sha256))
    train(read_job(arguments))
    shards = [name for name in before if "shard-" in name]
    assert calls["weights"] == 1 and calls["shards"] == len(shards) == 4
    assert calls["examples"] == 2  # the training part and the held-out one, in both commands together
    assert contents(tmp_path / "run", "round_1/*contexts/*") == before
