"""Completions for evaluation through vLLM servers: which server serves which model, and whether it has its weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..data.special_tokens import stop_tokens
from ..decoding import Completion, generate_completions
from ..decoding.forward import SlotRunners
from ..decoding.model_state import device_name
from ..decoding.sampling_params import vllm_errors
from ..decoding.vllm_generation import CheckedGenerator, ServerEngine
from ..errors import describe
from ..methods import answer_modes
from .decoding_modes import SINGLE_PASS


Complete = Callable[..., list[Completion]]


def server_errors(args: argparse.Namespace, models: Sequence[str], modes: Sequence[str] = (SINGLE_PASS,)) -> list[str]:
    """What in a command's options cannot be done through vLLM servers; nothing where no server is named.

    Args:
        args: `vllm_server_base_url`, one address or one a model; `vllm_server_timeout`; the options of sampling.
        models, modes: which are asked, and how.
    """
    urls = args.vllm_server_base_url
    if not urls:
        return []
    errors = [
        describe("--vllm_server_base_url", url, "http://HOST:PORT", "Give the address of `vllm serve`")
        for url in urls
        if not url.startswith(("http://", "https://"))
    ]
    if len(urls) != len(models):
        got, expected = f"{len(urls)} servers", f"one for each of {len(models)} models"
        errors.append(describe("--vllm_server_base_url", got, expected, "Repeat the option in the order of --model"))
    if not args.vllm_server_timeout >= 0:
        expected = "0 (one attempt) or more seconds"
        errors.append(describe("--vllm_server_timeout", args.vllm_server_timeout, expected, "Correct the value"))
    known = answer_modes()
    errors += [
        describe(
            f"--decoding_mode {name}",
            "a vLLM server",
            "this package's engine, which alone supports the mode",
            "Remove the mode, or --vllm_server_base_url",
        )
        for name in modes
        if name in known and not known[name].through_server
    ]
    return errors + [
        f"command line, {error}" for error in vllm_errors(args.temperature or 0.0, vars(args).get("top_p", 1.0), 0.0)
    ]


def connect(args: argparse.Namespace, models: Sequence[str]) -> dict[str, ServerEngine]:
    """The server of each model, or none where no server is named.

    Raises:
        RunError: a server is not up, or serves another model.
    """
    return {
        model: ServerEngine(url, model=model, timeout=args.vllm_server_timeout, concurrency=args.batch_size)
        for model, url in zip(models, args.vllm_server_base_url or (), strict=False)
    }


def generated_by(model: PreTrainedModel, engine: ServerEngine | None) -> dict[str, str]:
    """What stands in a store's identity for the engine: where this package's ran, or that it was vLLM."""
    return {"device": device_name(model)} if engine is None else {"engine": "vllm"}


def completions_of(
    engine: ServerEngine | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments
) -> Complete:
    """`generate_completions` without its model: of this package's engine, or of a server that holds the model.

    A server's weights are compared with the model's before its first completion.
    """
    if engine is None:
        return partial(generate_completions, model, runners=SlotRunners())
    return CheckedGenerator(engine, model, args, stop_tokens(tokenizer, model))
