"""Fill a round's context store: identity, precision, and each process's share of the shards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import is_fsdp_enabled

from ..decoding.sampling import SamplingOptions
from ..errors import RunError
from ..examples.example import Example, ExampleSet
from ..files import write_json_atomic
from ..training.config import ExampleConfig
from ..training.loading import is_sharded
from .fingerprint import tokenizer_fingerprint, weights_fingerprint
from .peers import Peers
from .store import ContextStore


MakeColumns = Callable[[list[Example], Callable[[int], object]], dict[str, list[Any]]]


def shared_identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: ExampleConfig,
    options: SamplingOptions,
    *,
    round_index: int,
) -> dict[str, Any]:
    """What determines a context in every method: sampling, seed, round, precision, and fingerprints of the inputs."""
    return {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "suppress_tokens": list(options.suppress_tokens),
        "seed": args.seed,
        "round_index": round_index,
        "precision": _precision(model, args),
        "weights": weights_fingerprint(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "examples": examples.fingerprint(),
    }


def fill_store(
    store: ContextStore,
    examples: ExampleSet,
    args: ExampleConfig,
    make_columns: MakeColumns,
    what: str,
) -> ContextStore:
    """Make the contexts that are not in the store yet; with several processes each makes its share of the shards.

    Every process works alone; they meet on files, so none waits in a collective while another still generates. One
    that dies is missed by the others, which then stop; what they have made is kept.

    Args:
        make_columns: given a shard's examples and a progress callback, the shard's columns.
        what: what is made, for the progress bar.

    Raises:
        StoreError: the directory holds contexts that were made with other options, or a damaged shard.
        RunError: another process failed, or shows no sign of life any more.
    """
    if store.is_complete():
        return store
    with Peers(store.directory, args.process_index, args.world_size, args.ddp_timeout) as peers:
        _fill(store, examples, args, make_columns, what, peers)
    return store


def _fill(
    store: ContextStore, examples: ExampleSet, args: ExampleConfig, make_columns: MakeColumns, what: str, peers: Peers
) -> None:
    mine = [shard for shard in store.missing_shards() if shard % args.world_size == args.process_index]
    started = time.perf_counter()
    total = sum(end - start for start, end in map(store.shard_range, mine))
    with tqdm(total=total, desc=what, unit="row", disable=args.process_index > 0, delay=1) as bar:
        for shard in mine:
            peers.check()
            part = examples.part(*store.shard_range(shard))
            store.write_shard(shard, make_columns(part, bar.update))
    if args.process_index == 0:
        _add_seconds(store, time.perf_counter() - started)
        store.wait_until(store.has_all_shards, "the other processes", peers.check)
        store.missing_shards()  # checks that the others' shards are of this store, too
        store.finish()
    else:
        store.wait_until(store.is_complete, "process 0 to complete the store", peers.check)


def place_for_generation(model: PreTrainedModel | PeftModel, args: ExampleConfig) -> None:
    """Put the model on this process's device, where it is not in place already.

    Raises:
        RunError: the weights are sharded, or were loaded by one process only.
    """
    if is_fsdp_enabled():  # transformers' word for FSDP whose first process alone reads the weights
        raise RunError(
            "fsdp_cpu_ram_efficient_loading is true: only one process has the weights before training, but all "
            "generate. Set it to false in the accelerate configuration"
        )
    if is_sharded(model):
        raise RunError(
            "the model's weights are sharded, contexts are made with whole weights: give the model as a path, load it "
            "with gapbridge.loading.load_model, or before the configuration is made"
        )
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    quantized = base.config.to_dict().get("quantization_config") is not None
    if not quantized and "hf_device_map" not in vars(base):  # those were placed while they were loaded
        model.to(args.device)


def generation_precision(model: PreTrainedModel, args: ExampleConfig) -> torch.autocast:
    """The precision of the training steps: float32 weights under mixed precision generate in mixed precision too."""
    dtype = getattr(torch, _autocast_dtype(args))
    return torch.autocast(model.device.type, dtype=dtype, enabled=_autocast_enabled(model, args))


def _precision(model: PreTrainedModel, args: ExampleConfig) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{dtype}, autocast {_autocast_dtype(args)}" if _autocast_enabled(model, args) else dtype


def _autocast_dtype(args: ExampleConfig) -> str:
    return "float16" if args.mixed_precision == "fp16" else "bfloat16"


def _autocast_enabled(model: PreTrainedModel, args: ExampleConfig) -> bool:
    # Not args.bf16: the launcher's configuration may ask for mixed precision where the recipe does not; it holds then.
    return args.mixed_precision != "no" and model.dtype == torch.float32


def _add_seconds(store: ContextStore, seconds: float) -> None:
    """Wall seconds that process 0 spent on generation, over all starts; for the report."""
    path = store.directory / "seconds.json"
    before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
    write_json_atomic(path, {"seconds": round(before + seconds, 3)})
