"""Free-running answers ŷ ~ π(· | x): what can be generated is checked, then the engine generates it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel

from ..errors import describe
from .engine import BatchedGenerator, Completion
from .forward import SlotRunners
from .keyed_sampler import KeyedSampler
from .memory_limits import BatchLimits
from .model_state import generation_mode
from .noise import example_keys
from .sampling_params import SamplingParams, resolve_sampling_params
from .speculative_decoding import SpeculativeStats
from .validate_inputs import check_examples, check_ids, check_lengths


logger = logging.getLogger(__name__)


def generate_completions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    max_completion_length: int,
    stop_tokens: Sequence[int],
    options: SamplingParams | None = None,
    on_finished: Callable[[int], object] | None = None,
    speculation: SpeculativeStats | None = None,
    runners: SlotRunners | None = None,
    **draw: Any,
) -> list[Completion]:
    """Let the model answer each prompt until a stop token or `max_completion_length` tokens.

    Args:
        model: a causal language model, on its device. It is put into evaluation mode and restored.
        prompts: token ids; none may be empty.
        ids: one stable string or integer for each prompt; with seed and round it fixes the noise.
        stop_tokens: token ids that end a completion.
        options: how tokens are sampled; or give the fields of `SamplingParams` as keywords (`draw`).
        on_finished: called after each pass with the number of newly finished completions, for a progress bar.
        speculation: the model's future heads, which then propose tokens; the answers are the same. It counts them.
        runners: keeps the check of the slot cache for the next call; by default each call checks.

    Returns:
        One `Completion` for each prompt, in the order given.

    Raises:
        ConfigError: an option lies outside its range. DataError: the prompts cannot be used. All errors are listed.
    """
    errors = []
    if max_completion_length < 1:
        errors.append(describe("max_completion_length", max_completion_length, "at least 1", "Correct the value"))
    options = resolve_sampling_params(options, draw, errors)
    check_ids(prompts, ids)
    check_examples(model, ids, {"prompt": prompts})
    # An answer's last token is never fed; proposals after it are, in its place.
    fed = [len(prompt) + max_completion_length - (speculation is None) for prompt in prompts]
    row = f"a prompt and an answer of up to {max_completion_length} tokens"
    check_lengths(model, ids, fed, row, "Shorten the prompts or the longest answer allowed")
    if not ids:
        return []
    keys = example_keys(ids, seed=options.seed, round_index=options.round_index)
    order = sorted(range(len(ids)), key=lambda i: -len(prompts[i]))
    with generation_mode(model):
        runner = (runners or SlotRunners()).find(model, prompts[order[0]], max(fed))
        sampler = KeyedSampler(options, model.device)
        limits = BatchLimits(options.batch_size, options.batch_tokens)
        make = BatchedGenerator if speculation is None else speculation.generator
        done = on_finished or (lambda _: None)
        generator = make(model, prompts, keys, sampler, max_completion_length, stop_tokens, limits, done)
        if isinstance(runner, str):
            logger.warning("completions are generated without a cache, in full-sequence passes, because %s", runner)
            generator.without_cache(order)
        else:
            generator.with_slots(runner, order)
    return [completion for completion in generator.completions if completion is not None]
