"""The model's own answers as contexts: drawn by the engine here, or through vLLM. `args` carries `CompletionArgs`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.example import Example
from ..data.special_tokens import stop_tokens, undecodable_token_ids
from ..decoding import Completion, SamplingParams, generate_completions
from ..decoding.compiled import CompiledSteps
from ..decoding.model_state import generation_precision
from ..decoding.mtp_heads import HEADS_FILE as HEADS_FILE
from ..decoding.mtp_heads import MTPHeads, load_adjacent_heads
from ..decoding.speculative_decoding import SpeculativeStats
from ..decoding.vllm_generation import ColocatedEngine, Engine, ServerEngine, check_weights, generate_completions_vllm
from ..errors import ConfigError
from .generate_shards import Columns, GenerationSpec, Progress


logger = logging.getLogger(__name__)

COMPLETION_COLUMNS = [("tokens", pa.list_(pa.int64())), ("finished", pa.bool_())]
SCHEMA = pa.schema([("id", pa.string()), *COMPLETION_COLUMNS])


def completion_columns(completions: Sequence[Completion], prefix: str = "") -> Columns:
    """Drafts as columns of a store."""
    return {
        f"{prefix}tokens": [completion.tokens for completion in completions],
        f"{prefix}finished": [completion.finished for completion in completions],
    }


def completion_spec(
    method: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: Any
) -> GenerationSpec:
    """A free-running draft ŷ ~ π(· | x) for each example, with the options of a configuration."""
    stops = stop_tokens(tokenizer, model)
    options = args.sampling_params(tuple(undecodable_token_ids(tokenizer, model)))
    identity = {"method": method, "max_completion_length": args.max_completion_length, "stop_tokens": stops}
    what = f"drafting answers, round {args.round_index}"
    if args.use_vllm:
        _check_loadable(model)
        generator = _VLLMGenerator(model, args, options, stops)
        # Only then, so that stores made before there was a choice stay valid.
        own = {**identity, "engine": "vllm"}
        return GenerationSpec(own, options, SCHEMA, generator.generate, what, generator.open, generator.close)

    heads = _heads(model, args) if args.use_mtp_speculative_decoding else None
    steps = CompiledSteps()

    def draw(examples: list[Example], on_finished: Progress) -> Columns:
        ids = [example.id for example in examples]
        speculation = None if heads is None else SpeculativeStats(heads)
        with generation_precision(model, args):
            completions = generate_completions(
                model,
                [example.generation_prompt_ids for example in examples],
                ids=ids,
                max_completion_length=args.max_completion_length,
                stop_tokens=stops,
                options=options,
                on_finished=on_finished,
                speculation=speculation,
                steps=steps,
            )
        if speculation is not None:
            logger.info("%d drafts in %.3f passes a token", len(completions), speculation.passes_per_token)
        return {"id": ids, **completion_columns(completions)}

    return GenerationSpec(identity, options, SCHEMA, draw, what)


def _heads(model: PreTrainedModel | PeftModel, args: Any) -> MTPHeads | None:
    """The heads beside the model that the first round starts from; none in later rounds.

    Raises:
        ConfigError: there are none.
    """
    if args.round_index > 1:
        return None
    heads = load_adjacent_heads(model)
    if heads is None:
        raise ConfigError(
            f"use_mtp_speculative_decoding: {model.name_or_path or 'the model'} has no {HEADS_FILE}: start from a "
            f"whole model "
            "that was trained with num_future_tokens above 1, or leave it out"
        )
    return heads


class _VLLMGenerator:
    """Drafts through vLLM; its weights are checked with the first examples. In this process it is loaded then, too."""

    def __init__(self, model: PreTrainedModel, args: Any, options: SamplingParams, stops: list[int]) -> None:
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

    def generate(self, examples: list[Example], on_finished: Progress) -> Columns:
        ids, prompts = [example.id for example in examples], [example.generation_prompt_ids for example in examples]
        if self._engine is None:
            self._engine = _open_engine(self._model, self._args)
        if not self._checked:
            self._checked = True
            with generation_precision(self._model, self._args):
                difference = check_weights(self._engine, self._model, prompts, self._stops)
            logger.info("%s holds this round's weights (difference %.4f)", self._engine.name, difference)
        completions = generate_completions_vllm(
            self._engine,
            prompts,
            ids=ids,
            max_completion_length=self._args.max_completion_length,
            stop_tokens=self._stops,
            options=self._options,
            on_finished=on_finished,
        )
        return {"id": ids, **completion_columns(completions)}


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
