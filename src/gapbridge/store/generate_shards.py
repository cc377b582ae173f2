"""Fill a round's context store: identity, shard size, and the shards that each process claims."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..data.example import Example, ExampleSet
from ..decoding import SamplingParams
from ..decoding.model_state import precision_name
from .context_store import ContextStore, recorded_shard_size
from .fingerprint import tokenizer_fingerprint, weights_fingerprint
from .heartbeat import HeartbeatMonitor
from .records import add_seconds
from .shard_lease import ShardLeases, lease_order, shard_size_for


Columns = dict[str, list[Any]]
Progress = Callable[[int], object]
Generate = Callable[[list[Example], Progress], Columns]
POLLS_PER_SECOND = 100  # at what waiting processes wait for, all processes together


@dataclass(frozen=True)
class GenerationSpec:
    """What a method generates before training.

    identity: every option of the method that changes a token, as JSON values.
    options: how a token is generated; enters the identity, too.
    schema: the columns of the store, the first of them `id`.
    generate: given examples and a progress callback, their columns.
    what: what is generated, for the progress bar.
    open: reaches what `generate` needs, so that what is not there is refused before a run writes anything.
    close: gives back what `generate` holds.
    sources: files that rows are made from besides.
    """

    identity: dict[str, Any]
    options: SamplingParams
    schema: pa.Schema
    generate: Generate
    what: str
    open: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None
    sources: tuple[Path, ...] = ()


def generation_identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: TrainingArguments,
    options: SamplingParams,
    *,
    weights: str | None = None,
) -> dict[str, Any]:
    """What determines a context in every method: sampling, seed, round, precision, and fingerprints of the inputs.

    `weights` is the model's fingerprint where it is known: hashing a model takes a while.
    """
    return {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "suppress_tokens": list(options.suppress_tokens),
        "seed": options.seed,
        "round_index": options.round_index,
        "precision": precision_name(model, args),
        "weights": weights or weights_fingerprint(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "examples": examples.fingerprint(),
    }


def open_context_store(
    contexts: GenerationSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: Any,
    directory: Path,
    *,
    weights: str | None = None,
) -> ContextStore:
    """The store of a method's contexts, with whatever it holds.

    `args` has a `generation_shard_size`. Where it is None, the size is that of the store that is there, or else
    `shard_size_for` the rows and processes.
    """
    shared = generation_identity(model, tokenizer, examples, args, contexts.options, weights=weights)
    shard_size = args.generation_shard_size or recorded_shard_size(directory)
    if shard_size is None:
        shard_size = shard_size_for(len(examples), args.world_size, args.generation_batch_size)
    return ContextStore(
        directory,
        {**contexts.identity, **shared},
        num_examples=len(examples),
        shard_size=shard_size,
        schema=contexts.schema,
    )


def generate_contexts(
    store: ContextStore, examples: ExampleSet, args: TrainingArguments, draw: Generate, what: str
) -> ContextStore:
    """Make the contexts that are not in the store yet; each of several processes makes the shards that it claims.

    Every process works alone; they meet on files, so none waits in a collective while another still generates. One
    that dies is missed by the others, which then stop; what they have made is kept.

    Args:
        generate: given a shard's examples and a progress callback, the shard's columns.
        what: what is made, for the progress bar.

    Raises:
        StoreError: the directory holds contexts that were made with other options, or a damaged shard.
        RunError: another process failed, or shows no sign of life any more.
    """
    if store.is_complete():
        return store
    with HeartbeatMonitor(store.directory, args.process_index, args.world_size, args.ddp_timeout) as monitor:
        _generate_shards(store, examples, args, draw, what, monitor)
    return store


def _generate_shards(
    store: ContextStore,
    examples: ExampleSet,
    args: TrainingArguments,
    draw: Generate,
    what: str,
    peers: HeartbeatMonitor,
) -> None:
    rank, world_size = args.process_index, args.world_size
    pause = poll_seconds(world_size)
    started = time.perf_counter()
    leases = ShardLeases(store, rank, world_size)
    leases.release_stale()
    to_come = lease_order(store.missing_shards(), store, examples, rank, world_size)
    free: list[int] = []

    def rows(shards: list[int]) -> int:
        return sum(end - start for start, end in map(store.shard_range, shards))

    with tqdm(total=rows(to_come), desc=what, unit="row", disable=rank > 0, delay=1) as bar:

        def can_go_on() -> bool:
            nonlocal to_come, free
            before = rows(to_come)
            to_come, free = leases.poll(to_come)
            bar.update(before - rows(to_come))  # made by others
            return bool(free) or not to_come

        def waiting_for() -> str:
            return f"the other processes: {len(to_come)} of {store.num_shards} shards to come"

        while to_come:
            peers.check()
            wait_until(can_go_on, waiting_for, peers.check, pause)
            with leases.acquire_next(free) as shard:
                if shard is not None:
                    part = examples.part(*store.shard_range(shard))
                    store.write_shard(shard, draw(part, bar.update))
                    to_come.remove(shard)
            if shard is None and free:  # the listing is behind: network file systems show changes late
                time.sleep(pause)
    if rank == 0:
        add_seconds(store.directory / "timing.json", time.perf_counter() - started)
        store.missing_shards()  # checks that the others' shards are of this store, too
        leases.clear()
        store.finish()
    else:
        wait_until(store.is_complete, lambda: "process 0 to complete the store", peers.check, pause)


def poll_seconds(world_size: int) -> float:
    """Seconds between two looks of a waiting process."""
    return max(0.1, world_size / POLLS_PER_SECOND)


def wait_until(done: Callable[[], bool], what: Callable[[], str], check: Callable[[], None], pause: float) -> None:
    """Wait on files for the other processes, without a collective that could time out.

    `check` is called while waiting and raises when there is nothing to wait for any more.
    """
    waited, said = 0.0, 30.0
    while not done():
        check()
        time.sleep(pause)
        waited += pause
        if waited >= said:
            print(f"waiting for {what()}, {waited:.0f} s", flush=True)
            said *= 2
