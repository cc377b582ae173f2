"""RAC's data set D_r: find a round's drafts in the store or make them, and turn them into rows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...contexts.fill import fill_store, generation_precision, shared_identity
from ...contexts.store import ContextStore
from ...decoding import Draft, draft_answers
from ...decoding.vllm_drafts import ColocatedEngine, Engine, ServerEngine, check_weights, vllm_draft_answers
from ...errors import ConfigError, DataError
from ...examples.example import Example, ExampleSet
from ...examples.tokens import stop_tokens, unnamed_tokens
from ...training.rows import masked_row, rows_to_dataset
from .config import RACConfig
from .rows import correction_cue, draft_in_context, rac_row


logger = logging.getLogger(__name__)

DRAFT_SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("finished", pa.bool_())])


@dataclass(frozen=True)
class DraftCounts:
    """Drafts, how many hit the length cap, how many equal the reference, how many rows were too long, plain rows."""

    drafts: int
    capped: int
    equal: int
    too_long: int
    plain_rows: int

    def __str__(self) -> str:
        return (
            f"{self.drafts} drafts ({self.capped} at the length cap, {self.equal} equal to the reference, "
            f"{self.too_long} left out because the row would be longer than max_length), {self.plain_rows} plain rows"
        )


def cue_for(tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig, stops: list[int]) -> list[int]:
    """The ids that stand between draft and reference."""
    return correction_cue(tokenizer, args.correction_prompt, stops, conversational=examples.conversational)


def draft_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    args: RACConfig,
    on_finished: Callable[[int], object] | None = None,
) -> list[Draft]:
    """`draft_answers` on examples, with the options of a configuration."""
    with generation_precision(model, args):
        return draft_answers(
            model,
            [example.prompt for example in examples],
            ids=[example.id for example in examples],
            max_completion_length=args.max_draft_length,
            stop_tokens=stop_tokens(tokenizer, model),
            suppress_tokens=unnamed_tokens(tokenizer, model),
            on_finished=on_finished,
            **args.generation_options(),
        )


class VLLMDrafter:
    """`draft_examples` through vLLM. The engine is opened, and its weights are checked, with the first examples."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: RACConfig) -> None:
        self._model, self._args = model, args
        self._stops = stop_tokens(tokenizer, model)
        self._suppressed = unnamed_tokens(tokenizer, model)
        self._engine: Engine | None = None

    def __enter__(self) -> VLLMDrafter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def __call__(self, examples: list[Example], on_finished: Callable[[int], object] | None = None) -> list[Draft]:
        prompts = [example.prompt for example in examples]
        if self._engine is None:
            self._engine = _open_engine(self._model, self._args)
            with generation_precision(self._model, self._args):
                difference = check_weights(self._engine, self._model, prompts, self._stops)
            logger.info("%s holds this round's weights (difference %.4f)", self._engine.name, difference)
        options = self._args.generation_options()
        del options["batch_size"]  # the engine has it, as its concurrency
        return vllm_draft_answers(
            self._engine,
            prompts,
            ids=[example.id for example in examples],
            max_completion_length=self._args.max_draft_length,
            stop_tokens=self._stops,
            suppress_tokens=self._suppressed,
            on_finished=on_finished,
            **options,
        )


def _open_engine(model: PreTrainedModel | PeftModel, args: RACConfig) -> Engine:
    """The engine of a configuration, for the model that the round starts from.

    Raises:
        ConfigError: vLLM cannot load what this round starts from. RunError: the server is not there or serves
        another model.
    """
    if isinstance(model, PeftModel):
        raise ConfigError(
            "use_vllm is true, but this round starts from an adapter and vLLM loads whole models: set use_vllm: "
            "false, or start a run from the merged model (merge_and_unload, save_pretrained)"
        )
    if not model.name_or_path:
        raise ConfigError(
            "use_vllm is true, but the model has no path that vLLM could load: save it with save_pretrained and load "
            "it from there, or set use_vllm: false"
        )
    if args.vllm_mode == "server":
        return ServerEngine(
            args.vllm_server_url,
            model=model.name_or_path,
            timeout=args.vllm_server_timeout,
            concurrency=args.generation_batch_size,
        )
    device = model.device.type
    with generation_precision(model, args):
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return ColocatedEngine(
        model.name_or_path,
        dtype=dtype,
        concurrency=args.generation_batch_size,
        gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        max_model_length=args.vllm_max_model_length,
        tensor_parallel_size=args.vllm_tensor_parallel_size,
        trust_remote_code=args.trust_remote_code,
    )


def draft_store(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig, directory: Path
) -> ContextStore:
    """The store of a round's drafts, with whatever it holds."""
    options = args.sampling(tuple(unnamed_tokens(tokenizer, model)))
    identity = {
        "method": "rac",
        "max_draft_length": args.max_draft_length,
        "stop_tokens": stop_tokens(tokenizer, model),
        **shared_identity(model, tokenizer, examples, args, options, round_index=args.round_index),
    }
    if args.use_vllm:  # only then, so that stores made before there was a choice stay valid
        identity["engine"] = "vllm"
    return ContextStore(
        directory, identity, num_examples=len(examples), shard_size=args.shard_size, schema=DRAFT_SCHEMA
    )


def build_drafts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig, directory: Path
) -> ContextStore:
    """The complete store of a round's drafts; what is missing is made.

    Raises:
        StoreError: the directory holds drafts that were made with other options, or a damaged shard. ConfigError,
        RunError: with `use_vllm`, vLLM cannot load the model, is not there, or holds other weights.
    """
    store = draft_store(model, tokenizer, examples, args, directory)
    with ExitStack() as stack:
        drafter = stack.enter_context(VLLMDrafter(model, tokenizer, args)) if args.use_vllm else None

        def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
            if drafter is None:
                drafts = draft_examples(model, tokenizer, part, args, on_finished)
            else:
                drafts = drafter(part, on_finished)
            return {
                "id": [example.id for example in part],
                "tokens": [draft.tokens for draft in drafts],
                "finished": [draft.finished for draft in drafts],
            }

        return fill_store(store, examples, args, columns, f"drafting answers, round {args.round_index}")


def rac_dataset(
    examples: ExampleSet,
    store: ContextStore,
    args: RACConfig,
    cue: list[int],
    eos_token_id: int,
    *,
    reference_rows: float,
) -> tuple[Dataset, DraftCounts]:
    """Join drafts and examples into correction rows, put the share `reference_rows` of plain rows beside them.

    With N examples and a share s there are N·min(1, s / (1-s)) plain rows and N·min(1, (1-s) / s) correction rows,
    chosen by a hash of the ids; a share above one half leaves out correction rows.

    Raises:
        StoreError: the store is not complete or not whole. DataError: no correction row fits into `max_length`.
    """
    plain_share = min(1.0, reference_rows / (1 - reference_rows))
    correction_share = min(1.0, (1 - reference_rows) / reference_rows) if reference_rows else 1.0
    counts = {"drafts": 0, "capped": 0, "equal": 0, "too_long": 0, "plain_rows": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for example, record in store.joined(examples):
            draft = Draft(record["tokens"], record["finished"])
            if _lot(example.id, args.seed, "correction") < correction_share:
                own = draft_in_context(draft, conversational=examples.conversational, eos_token_id=eos_token_id)
                row = rac_row(example.prompt, own, cue, example.reference, example.trailer)
                counts["drafts"] += 1
                counts["capped"] += not draft.finished
                counts["equal"] += draft.tokens == example.reference
                if args.max_length is None or len(row["input_ids"]) <= args.max_length:
                    yield {"id": example.id, **row}
                else:
                    counts["too_long"] += 1
            if _lot(example.id, args.seed, "plain") < plain_share:
                counts["plain_rows"] += 1
                yield {"id": example.id, **masked_row(example.prompt, [*example.reference, *example.trailer])}

    dataset = rows_to_dataset(rows())
    if counts["drafts"] == counts["too_long"]:
        raise DataError(
            f"{examples.source}: none of {counts['drafts']} correction rows fits into max_length {args.max_length}: "
            f"a row "
            "holds prompt, draft, request and answer. Raise max_length or lower max_draft_length"
        )
    return dataset, DraftCounts(**counts)


def _lot(example_id: str, seed: int, use: str) -> float:
    """A number in [0, 1) that depends on its arguments only."""
    digest = hashlib.blake2b(f"{seed}/{use}/{example_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
