"""BASH's data set D_s: find a round's mixed contexts in the store or make them, and turn them into rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding import mix_contexts
from ..examples import ExampleSet, control_tokens, stop_tokens
from ..files import write_json_atomic
from ..fingerprint import tokenizer_fingerprint, weights_fingerprint
from ..store import ContextStore
from .bash_config import BASHConfig
from .rows import bash_row


@dataclass(frozen=True)
class MixingCounts:
    """Answer tokens in all contexts, how many of them were sampled, and how many differ from the reference."""

    tokens: int
    sampled: int
    differing: int

    @property
    def share_sampled(self) -> float:
        return self.sampled / self.tokens

    @property
    def share_differing(self) -> float:
        return self.differing / self.tokens


def suppressed_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: BASHConfig) -> tuple[int, ...]:
    """Ids that are never sampled into a context: as configured, else control tokens, stop tokens and ids without a
    token."""
    if args.suppress_tokens is not None:
        return tuple(sorted(set(args.suppress_tokens)))
    unnamed = range(len(tokenizer), model.get_input_embeddings().num_embeddings)
    return tuple(sorted({*control_tokens(tokenizer), *stop_tokens(tokenizer, model), *unnamed}))


def open_store(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig, directory: Path
) -> ContextStore:
    """The store for these examples, weights and options; its identity holds everything that changes a token."""
    options = args.sampling(suppressed_tokens(model, tokenizer, args))
    identity = {
        "method": "bash",
        "mixture_coefficient": args.mixture_coefficient,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "suppress_tokens": list(options.suppress_tokens),
        "seed": args.seed,
        "round_index": args.round_index,
        "precision": _precision(model, args),
        "weights": weights_fingerprint(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "examples": examples.fingerprint(),
    }
    return ContextStore(directory, identity, num_examples=len(examples), shard_size=args.shard_size)


def build_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig, directory: Path
) -> ContextStore:
    """Make the contexts that are not in the store yet; with several processes each makes its share of the shards.

    Every process works alone; they meet on files, so none waits in a collective while another still generates.

    Raises:
        StoreError: the directory holds contexts that were made with other options, or a damaged shard.
    """
    store = open_store(model, tokenizer, examples, args, directory)
    if store.is_complete():
        return store
    missing = store.missing_shards()
    mine = [shard for shard in missing if shard % args.world_size == args.process_index]
    started = time.perf_counter()
    total = sum(end - start for start, end in map(store.shard_range, mine))
    suppressed = suppressed_tokens(model, tokenizer, args)
    description = f"mixing contexts, round {args.round_index}"
    with (
        tqdm(total=total, desc=description, unit="row", disable=args.process_index > 0, delay=1) as bar,
        _autocast(model, args),
    ):
        for shard in mine:
            part = examples.part(*store.shard_range(shard))
            contexts = mix_contexts(
                model,
                [example.prompt for example in part],
                [example.reference for example in part],
                ids=[example.id for example in part],
                mixture_coefficient=args.mixture_coefficient,
                seed=args.seed,
                round_index=args.round_index,
                temperature=args.temperature,
                top_k=args.top_k,
                top_p=args.top_p,
                min_p=args.min_p or 0.0,
                suppress_tokens=suppressed,
                lookahead=args.lookahead,
                batch_size=args.generation_batch_size,
                on_finished=bar.update,
            )
            columns: dict[str, list[Any]] = {
                "id": [example.id for example in part],
                "tokens": [context.tokens for context in contexts],
                "sampled": [context.sampled for context in contexts],
            }
            store.write_shard(shard, columns)
    if args.process_index == 0:
        _add_seconds(directory / "seconds.json", time.perf_counter() - started)
        store.wait_until(store.has_all_shards, "the other processes")
        store.finish()
    else:
        store.wait_until(store.is_complete, "process 0 to complete the store")
    return store


def bash_dataset(examples: ExampleSet, store: ContextStore) -> tuple[Dataset, MixingCounts]:
    """Join contexts and examples into rows (`id`, `input_ids`, `labels`), and count what was replaced.

    Raises:
        StoreError: the store is not complete or not whole.
    """
    counts = [0, 0, 0]

    def rows() -> Iterator[dict[str, Any]]:
        start = 0
        for shard in store.read():
            part = examples.part(start, start + len(shard["id"]))
            start += len(part)
            for example, tokens, sampled in zip(part, shard["tokens"], shard["sampled"], strict=True):
                counts[0] += len(tokens)
                counts[1] += sum(sampled)
                counts[2] += sum(a != b for a, b in zip(tokens, example.reference, strict=True))
                yield {"id": example.id, **bash_row(example.prompt, tokens, example.reference, example.trailer)}

    dataset = rows_to_dataset(rows())
    return dataset, MixingCounts(*counts)


def reference_dataset(examples: ExampleSet) -> Dataset:
    """Rows whose context is the reference itself (ŷ = y): SFT."""
    return rows_to_dataset({"id": e.id, **bash_row(e.prompt, e.reference, e.reference, e.trailer)} for e in examples)


ROW_FEATURES = Features({"id": Value("string"), "input_ids": List(Value("int64")), "labels": List(Value("int64"))})


def rows_to_dataset(rows: Iterator[dict[str, Any]]) -> Dataset:
    """An in-memory data set of rows, built in parts so that no more than a part is held as Python lists."""
    from datasets import concatenate_datasets

    parts, part = [], []
    for row in rows:
        part.append(row)
        if len(part) == 2000:
            parts.append(Dataset.from_list(part, features=ROW_FEATURES))
            part = []
    if part or not parts:
        parts.append(Dataset.from_list(part, features=ROW_FEATURES))
    return concatenate_datasets(parts)


def _precision(model: PreTrainedModel, args: BASHConfig) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{dtype}, autocast {_autocast_dtype(args)}" if _autocast_enabled(model, args) else dtype


def _autocast_dtype(args: BASHConfig) -> str:
    return "bfloat16" if args.bf16 else "float16"


def _autocast_enabled(model: PreTrainedModel, args: BASHConfig) -> bool:
    return bool(args.bf16 or args.fp16) and model.dtype == torch.float32


def _autocast(model: PreTrainedModel, args: BASHConfig) -> torch.autocast:
    """The precision of the training steps: float32 weights under mixed precision generate in mixed precision as
    well."""
    dtype = getattr(torch, _autocast_dtype(args))
    return torch.autocast(model.device.type, dtype=dtype, enabled=_autocast_enabled(model, args))


def _add_seconds(path: Path, seconds: float) -> None:
    """Wall seconds spent on generation by process 0, over all starts; for the report."""
    before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
    write_json_atomic(path, {"seconds": round(before + seconds, 3)})
