"""The model's own answers as contexts: drawn by the engine here, or through vLLM. `args` carries `DraftFields`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding import Draft, DrawOptions, draft_answers
from ..decoding.compiled import CompiledSteps
from ..decoding.future_heads import FILE as HEADS_FILE
from ..decoding.future_heads import FutureHeads, heads_beside
from ..decoding.mode import generation_precision
from ..decoding.speculation import Speculation
from ..decoding.vllm_drafts import ColocatedEngine, Engine, ServerEngine, check_weights, vllm_draft_answers
from ..errors import ConfigError
from ..examples.example import Example
from ..examples.tokens import stop_tokens, unnamed_tokens
from .fill import Columns, Contexts, Progress


logger = logging.getLogger(__name__)

DRAFT_COLUMNS = [("tokens", pa.list_(pa.int64())), ("finished", pa.bool_())]
SCHEMA = pa.schema([("id", pa.string()), *DRAFT_COLUMNS])


def draft_columns(drafts: Sequence[Draft], prefix: str = "") -> Columns:
    """Drafts as columns of a store."""
    return {
        f"{prefix}tokens": [draft.tokens for draft in drafts],
        f"{prefix}finished": [draft.finished for draft in drafts],
    }


def drafted_contexts(method: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: Any) -> Contexts:
    """A free-running draft ŷ ~ π(· | x) for each example, with the options of a configuration."""
    stops = stop_tokens(tokenizer, model)
    options = args.draw_options(tuple(unnamed_tokens(tokenizer, model)))
    identity = {"method": method, "max_draft_length": args.max_draft_length, "stop_tokens": stops}
    what = f"drafting answers, round {args.round_index}"
    if args.use_vllm:
        _check_loadable(model)
        drafter = _VLLMDrafter(model, args, options, stops)
        # Only then, so that stores made before there was a choice stay valid.
        own = {**identity, "engine": "vllm"}
        return Contexts(own, options, SCHEMA, drafter.draw, what, drafter.open, drafter.close)

    heads = _heads(model, args) if args.speculative_drafts else None
    steps = CompiledSteps()

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        ids = [example.id for example in examples]
        speculation = None if heads is None else Speculation(heads)
        with generation_precision(model, args):
            drafts = draft_answers(
                model,
                [example.asked for example in examples],
                ids=ids,
                max_completion_length=args.max_draft_length,
                stop_tokens=stops,
                options=options,
                on_finished=on_finished,
                speculation=speculation,
                steps=steps,
            )
        if speculation is not None:
            logger.info("%d drafts in %.3f passes a token", len(drafts), speculation.passes_per_token)
        return {"id": ids, **draft_columns(drafts)}

    return Contexts(identity, options, SCHEMA, draw, what)


def _heads(model: PreTrainedModel | PeftModel, args: Any) -> FutureHeads | None:
    """The heads beside the model that the first round starts from; none in later rounds.

    Raises:
        ConfigError: there are none.
    """
    if args.round_index > 1:
        return None
    heads = heads_beside(model)
    if heads is None:
        raise ConfigError(
            f"speculative_drafts: {model.name_or_path or 'the model'} has no {HEADS_FILE}: start from a whole model "
            "that was trained with num_future_tokens above 1, or leave it out"
        )
    return heads


class _VLLMDrafter:
    """Drafts through vLLM; its weights are checked with the first examples. In this process it is loaded then, too."""

    def __init__(self, model: PreTrainedModel, args: Any, options: DrawOptions, stops: list[int]) -> None:
        self._model, self._args, self._options, self._stops = model, args, options, stops
        self._engine: Engine | None = None
        self._checked = False

    def open(self) -> None:
        if self._args.vllm_mode == "server":
            self._engine = _open_engine(self._model, self._args)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def draw(self, examples: list[Example], on_finished: Progress) -> Columns:
        ids, prompts = [example.id for example in examples], [example.asked for example in examples]
        if self._engine is None:
            self._engine = _open_engine(self._model, self._args)
        if not self._checked:
            self._checked = True
            with generation_precision(self._model, self._args):
                difference = check_weights(self._engine, self._model, prompts, self._stops)
            logger.info("%s holds this round's weights (difference %.4f)", self._engine.name, difference)
        drafts = vllm_draft_answers(
            self._engine,
            prompts,
            ids=ids,
            max_completion_length=self._args.max_draft_length,
            stop_tokens=self._stops,
            options=self._options,
            on_finished=on_finished,
        )
        return {"id": ids, **draft_columns(drafts)}


def _check_loadable(model: PreTrainedModel | PeftModel) -> None:
    """Refuse what vLLM cannot load, before the engine is opened."""
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


def _open_engine(model: PreTrainedModel | PeftModel, args: Any) -> Engine:
    """The engine of a configuration, for the model that the round starts from.

    Raises:
        RunError: the server is not there or serves another model.
    """
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
