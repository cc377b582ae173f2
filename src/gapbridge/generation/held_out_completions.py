"""A model's answers to a data set's prompts, kept in stores: what was killed continues where it stopped.

The single-pass answers have a store of their own, so that they are the same, and made once, whatever else is asked;
the answers of each further mode (`gapbridge.training.decoding_mode.DecodingMode`) follow from them in a store beside
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..data.example import Example, ExampleSet
from ..data.special_tokens import stop_tokens, undecodable_token_ids
from ..decoding import Completion
from ..decoding.model_state import generation_precision
from ..decoding.sampling_params import SamplingParams
from ..decoding.vllm_generation import ServerEngine
from ..methods import answer_modes
from ..store.fingerprint import weights_fingerprint
from ..store.generate_shards import GenerationSpec, generate_or_find
from ..store.training_completions import COMPLETION_SCHEMA, completion_columns
from ..training.decoding_mode import AnswerRequest
from .decoding_modes import SINGLE_PASS
from .server import completions_of, generated_by


SHARD_SIZE = 256


@dataclass(frozen=True)
class CompletionOptions:
    """How answers are generated; a temperature of 0 is greedy. `modes`: the further modes, each with its settings."""

    max_completion_length: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch_size: int = 64
    modes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def completion_options(
    args: argparse.Namespace, modes: Mapping[str, Mapping[str, Any]] | None = None
) -> CompletionOptions:
    """Those of a command line: of the fields, the options that the command has.

    Args:
        args: the command's options; among them `max_completion_length`.
        modes: the further modes, each with its settings, from `mode_settings`.
    """
    names = {entry.name for entry in fields(CompletionOptions)} - {"modes"}
    given = {name: value for name, value in vars(args).items() if name in names}
    return CompletionOptions(**given, modes=modes or {})


@dataclass(frozen=True)
class ExampleCompletions:
    """One example's prompt and reference as text, and by mode its answers: as text, and as the completions that it was
    decoded from."""

    id: str
    prompt: str
    reference: str
    texts: dict[str, str]
    completions: dict[str, Completion]

    @property
    def first(self) -> str:
        """The single-pass answer."""
        return self.texts[SINGLE_PASS]

    @property
    def first_completion(self) -> Completion:
        return self.completions[SINGLE_PASS]


def complete_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: TrainingArguments,
    options: CompletionOptions,
    directory: Path,
    *,
    engine: ServerEngine | None = None,
) -> list[ExampleCompletions]:
    """Answer every prompt, directly and then in `options.modes`, or find the answers in stores below `directory`.

    Several processes share the work.

    Args:
        engine: the vLLM server that generates; None takes this package's engine.

    Raises:
        StoreError: a shard of a store is damaged. ConfigError: an option lies outside its range.
    """
    draw = SamplingParams(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        suppress_tokens=tuple(undecodable_token_ids(tokenizer, model)),
        seed=options.seed,
        batch_size=options.batch_size,
    )
    complete = completions_of(engine, model, tokenizer, args)
    stops = stop_tokens(tokenizer, model)
    identity = {
        "method": "completions",
        **generated_by(model, engine),
        "max_completion_length": options.max_completion_length,
        "stop_tokens": stops,
    }
    weights = weights_fingerprint(model)
    first: dict[str, Completion] = {}

    def of_mode(mode: str) -> list[Completion]:
        """Those of the mode's store, in the order of the examples, after what it lacks was made."""

        def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
            prompts, ids = [example.generation_prompt_ids for example in part], [example.id for example in part]
            how: dict[str, Any] = {"ids": ids, "options": draw, "on_finished": on_finished}
            how["max_completion_length"] = options.max_completion_length
            with generation_precision(model, args):
                if mode == SINGLE_PASS:
                    made = complete(prompts, stop_tokens=stops, **how)
                else:
                    arguments = [examples.arguments_of(example.template_kwargs_json) for example in part]
                    how |= {"conversational": examples.conversational, "settings": options.modes[mode]}
                    how |= {"date": examples.date, "chat_template_kwargs": arguments, "complete": complete}
                    asked = AnswerRequest(prompts, [first[key] for key in ids], **how)
                    made = answer_modes()[mode].answer(model, tokenizer, asked)
            return completion_columns(ids, made)

        further = {} if mode == SINGLE_PASS else {"decoding_mode": mode, "mode_settings": dict(options.modes[mode])}
        what = "answering" if mode == SINGLE_PASS else f"answering, {mode}"
        spec = GenerationSpec({**identity, **further}, draw, COMPLETION_SCHEMA, columns, what)
        pairs = generate_or_find(
            spec, model, tokenizer, examples, args, directory, shard_size=SHARD_SIZE, weights=weights
        )
        return [Completion(record["tokens"], record["finished"]) for _, record in pairs]

    completions = {SINGLE_PASS: of_mode(SINGLE_PASS)}
    first.update(
        {example.id: completion for example, completion in zip(examples, completions[SINGLE_PASS], strict=True)}
    )
    completions |= {mode: of_mode(mode) for mode in options.modes}

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    answers = []
    for at, example in enumerate(examples):
        own = {mode: made[at] for mode, made in completions.items()}
        texts = {mode: text(completion.tokens) for mode, completion in own.items()}
        answers.append(
            ExampleCompletions(
                example.id, text(example.generation_prompt_ids), text(example.completion_ids), texts, own
            )
        )
    return answers
