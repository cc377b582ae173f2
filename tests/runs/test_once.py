"""What is expensive is done once a round: hashing the weights, the examples and the shards of the contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, recipe

from gapbridge.contexts import store
from gapbridge.examples.example import ExampleSet
from gapbridge.runs.job import read_job
from gapbridge.runs.train import generate, train
from gapbridge.training import building


def test_a_round_with_contexts_hashes_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = recipe(tmp_path, eval_strategy="epoch", test_split_size=2, shard_size=2)
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    fingerprint = vars(ExampleSet)["_fingerprint"]
    monkeypatch.setattr(fingerprint, "func", counted("examples", fingerprint.func))
    generate(read_job(arguments))
    before = contents(tmp_path / "run", "round_1/*contexts/*")
    monkeypatch.setattr(building, "weights_fingerprint", counted("weights", building.weights_fingerprint))
    monkeypatch.setattr(store, "sha256", counted("shards", store.sha256))
    train(read_job(arguments))
    shards = [name for name in before if "shard-" in name]
    assert calls["weights"] == 1 and calls["shards"] == len(shards) == 4
    assert calls["examples"] == 2  # the training part and the held-out one, in both commands together
    assert contents(tmp_path / "run", "round_1/*contexts/*") == before
