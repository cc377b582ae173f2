"""Fill a round's context store: identity, shard size, and the shards that each process makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from .heartbeat import watch_processes
from .records import add_seconds
from .shard_assignment import assigned_shards, shard_size_for


Columns = dict[str, list[Any]]
Progress = Callable[[int], object]
Generate = Callable[[list[Example], Progress], Columns]
POLLS_PER_SECOND = 100  # at what waiting processes wait for, all processes together


@dataclass(frozen=True)
class GenerationSpec:
    """What is generated for examples, before training or to evaluate.

    identity: every option of its own that changes a token, as JSON values.
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


def open_context_store(
    spec: GenerationSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: Any,
    directory: Path,
    *,
    shard_size: int | None = None,
    weights: str | None = None,
    is_named: bool = False,
) -> ContextStore:
    """The store of what is generated, with whatever it holds. Its identity is what determines a context in every
    method: sampling, seed, round, precision, and fingerprints of the inputs.

    Args:
        args: of the trainer, with a `generation_shard_size` where no `shard_size` is given. Where that is None, the
            size is that of the store that is there, or else `shard_size_for` the rows and processes.
        weights: the model's fingerprint where it is known: hashing a model takes a while.
        is_named: whether the store lies below `directory`, under a name for each identity.
    """
    options = spec.options
    identity = {
        **spec.identity,
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
    size = shard_size or args.generation_shard_size or recorded_shard_size(directory)
    size = size or shard_size_for(len(examples), args.world_size, args.generation_batch_size)
    make = ContextStore.from_identity if is_named else ContextStore
    return make(directory, identity, num_examples=len(examples), shard_size=size, schema=spec.schema)


def generate_or_find(
    spec: GenerationSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: TrainingArguments,
    parent: Path,
    *,
    shard_size: int,
    weights: str | None = None,
) -> Iterator[tuple[Example, dict[str, Any]]]:
    """Each example with what `spec` generates for it, from a store of its own below `parent`: one that was made with
    other options, weights or examples has another name.

    Raises:
        StoreError: a shard is damaged. RunError: another process failed.
    """
    store = open_context_store(
        spec, model, tokenizer, examples, args, parent, shard_size=shard_size, weights=weights, is_named=True
    )
    generate_contexts(store, examples, args, spec.generate, spec.what)
    return store.iter_with(examples)


def generate_contexts(
    store: ContextStore, examples: ExampleSet, args: TrainingArguments, draw: Generate, what: str
) -> None:
    """Make the contexts that are not in the store yet; each of several processes makes its share.

    Every process works alone; they meet on files, so none waits in a collective while another still generates. One
    that dies is missed by the others, which then stop; what they have made is kept.

    Args:
        draw: given a shard's examples and a progress callback, the shard's columns.
        what: what is made, for the progress bar of process 0's share.

    Raises:
        StoreError: the directory holds contexts that were made with other options, or a damaged shard.
        RunError: another process failed, or shows no sign of life any more.
    """
    if store.is_complete():
        return
    rank, world_size = args.process_index, args.world_size
    started = time.perf_counter()
    with watch_processes(store.directory, rank, world_size, args.ddp_timeout) as check:
        missing = store.missing_shards()
        own = [shard for shard in assigned_shards(store, examples, rank, world_size) if shard in missing]
        ranges = [store.shard_ranges[shard] for shard in own]
        rows = sum(end - start for start, end in ranges)
        with tqdm(total=rows, desc=what, unit="row", disable=rank > 0, delay=1) as bar:
            for shard, (start, end) in zip(own, ranges, strict=True):
                check()
                store.write_shard(shard, draw(examples.part(start, end), bar.update))
        if rank > 0:
            wait_until(store.is_complete, "process 0 to complete the store", check, world_size)
            return
        for shard in set(missing) - set(own):
            path = store.shard_paths[shard]
            wait_until(path.exists, f"another process to write {path}", check, world_size)
        add_seconds(store.directory / "timing.json", time.perf_counter() - started)
        store.finish()


def wait_until(done: Callable[[], bool], what: str, check: Callable[[], None], world_size: int) -> None:
    """Wait on files for the other processes, without a collective that could time out.

    `check` is called while waiting and raises when there is nothing to wait for any more.
    """
    pause = max(0.1, world_size / POLLS_PER_SECOND)
    waited, said = 0.0, 30.0
    while not done():
        check()
        time.sleep(pause)
        waited += pause
        if waited >= said:
            print(f"waiting for {what}, {waited:.0f} s", flush=True)
            said *= 2
