"""Fill a small store in a process of its own whose drawer sleeps at each row."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset

from gapbridge.data.example import EXAMPLE_FEATURES, Example, ExampleSet
from gapbridge.methods.bash.mixed_contexts import CONTEXT_SCHEMA
from gapbridge.store.context_store import ContextStore
from gapbridge.store.generate_shards import generate_contexts
from gapbridge.store.shard_assignment import shard_size_for
from helpers import SERVER


def examples(count: int) -> ExampleSet:
    """Examples of 1 to 7 tokens, as their number says."""
    columns: dict[str, list[Any]] = {
        "id": [f"e{at}" for at in range(count)],
        "prompt": [[1] * (at % 4) for at in range(count)],
        "completion_ids": [[2] * (1 + at % 5) for at in range(count)],
        "template_suffix_ids": [[] for _ in range(count)],
        "loss_mask": [None] * count,
        "generation_prompt_ids": [None] * count,
        "template_kwargs_json": [None] * count,
        "has_prompt": [None] * count,
    }
    return ExampleSet(Dataset.from_dict(columns, EXAMPLE_FEATURES), [], "test", 0, 0, False)


def store_of(folder: Path, rows: int, shard_size: int) -> ContextStore:
    return ContextStore(
        folder / "contexts", {"method": "bash"}, num_examples=rows, shard_size=shard_size, schema=CONTEXT_SCHEMA
    )


def columns(part: list[Example]) -> dict[str, list[Any]]:
    tokens = [[*example.prompt, *example.completion_ids] for example in part]
    return {"id": [example.id for example in part], "tokens": tokens, "sampled": [[False] * len(t) for t in tokens]}


def arguments(rank: int, world_size: int, timeout: float = 600) -> Any:
    return SimpleNamespace(process_index=rank, world_size=world_size, ddp_timeout=timeout, fp16=False, bf16=False)


def work(folder: Path, rows: int, rank: int, world_size: int, row_seconds: float, shard_size: int | None) -> None:
    """What the process does; `drawn-<rank>` gets the ids that it drew."""
    given = examples(rows)
    size = shard_size or shard_size_for(rows, world_size, batch_size=4)
    store = store_of(folder, rows, size)

    def draw(part: list[Example], on_finished: Any) -> dict[str, list[Any]]:
        with open(folder / f"drawn-{rank}", "a") as sampled:
            for example in part:
                time.sleep(row_seconds)
                print(example.id, file=sampled, flush=True)
                on_finished(1)
        return columns(part)

    (folder / f"ready-{rank}").touch()
    while len(list(folder.glob("ready-*"))) < world_size:
        time.sleep(0.005)
    generate_contexts(store, given, arguments(rank, world_size), draw, "drawing")


def start(folder: Path, rows: int, row_seconds: list[float], shard_size: int | None = None) -> list[Any]:
    """One process for each of `row_seconds`; they begin together."""
    processes = [
        SERVER.Process(target=work, args=(folder, rows, rank, len(row_seconds), seconds, shard_size))
        for rank, seconds in enumerate(row_seconds)
    ]
    for process in processes:
        process.start()
    return processes
