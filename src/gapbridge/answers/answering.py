"""A model's answers to a data set's prompts, kept in stores: what was killed continues where it stopped.

The direct answers have a store of their own, so that they are the same, and made once, whatever else is asked; the
answers of each further mode (`gapbridge.training.method.AnswerMode`) follow from them in a store beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..contexts.fill import fill_store, shared_identity
from ..contexts.store import ContextStore
from ..decoding import Draft, draft_answers
from ..decoding.compiled import CompiledSteps
from ..decoding.mode import generation_precision
from ..decoding.options import DrawOptions
from ..decoding.vllm_drafts import ServerEngine
from ..examples.example import Example, ExampleSet
from ..examples.tokens import stop_tokens, unnamed_tokens
from ..methods import answer_modes
from .modes import DIRECT
from .server import Complete, completions_of, generated_by


SHARD_SIZE = 256
_SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("finished", pa.bool_())])


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are drawn; a temperature of 0 is greedy. `modes`: the further modes, each with its settings."""

    max_completion_length: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch_size: int = 64
    compile_decoding: bool = False
    modes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def answer_options(args: argparse.Namespace, modes: Mapping[str, Mapping[str, Any]] | None = None) -> AnswerOptions:
    """Those of a command line: of the fields, the options that the command has.

    Args:
        args: the command's options; among them `max_completion_length`.
        modes: the further modes, each with its settings, from `mode_settings`.
    """
    names = {entry.name for entry in fields(AnswerOptions)} - {"modes"}
    given = {name: value for name, value in vars(args).items() if name in names}
    return AnswerOptions(**given, modes=modes or {})


@dataclass(frozen=True)
class Answer:
    """One example's prompt and reference as text, and by mode its answers: as text, and as the drafts behind it."""

    id: str
    prompt: str
    reference: str
    texts: dict[str, str]
    drafts: dict[str, Draft]

    @property
    def first(self) -> str:
        """The direct answer."""
        return self.texts[DIRECT]

    @property
    def first_draft(self) -> Draft:
        return self.drafts[DIRECT]


def answer_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: TrainingArguments,
    options: AnswerOptions,
    directory: Path,
    *,
    engine: ServerEngine | None = None,
) -> list[Answer]:
    """Answer every prompt, directly and then in `options.modes`, or find the answers in stores below `directory`.

    Several processes share the work.

    Args:
        engine: the vLLM server that generates; None takes this package's engine.

    Raises:
        StoreError: a shard of a store is damaged. ConfigError: an option lies outside its range.
    """
    draw = DrawOptions(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        suppress_tokens=tuple(unnamed_tokens(tokenizer, model)),
        seed=options.seed,
        batch_size=options.batch_size,
        compile_decoding=options.compile_decoding,
    )
    complete: Complete = partial(draft_answers, model, steps=CompiledSteps())
    if engine is not None:
        complete = completions_of(engine, model, tokenizer, args)
    stops = stop_tokens(tokenizer, model)
    identity = {
        "method": "answers",
        **generated_by(model, engine),
        "max_completion_length": options.max_completion_length,
        "stop_tokens": stops,
        **shared_identity(model, tokenizer, examples, args, draw),
    }
    first: dict[str, Draft] = {}

    def drafts_of(mode: str) -> list[Draft]:
        """Those of the mode's store, in the order of the examples, after what it lacks was made."""

        def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
            prompts, ids = [example.asked for example in part], [example.id for example in part]
            how: dict[str, Any] = {"ids": ids, "options": draw, "on_finished": on_finished}
            how["max_completion_length"] = options.max_completion_length
            with generation_precision(model, args):
                if mode == DIRECT:
                    made = complete(prompts, stop_tokens=stops, **how)
                else:
                    arguments = [examples.arguments_of(example.arguments) for example in part]
                    how |= {"conversational": examples.conversational, "settings": dict(options.modes[mode])}
                    how |= {"date": examples.date, "chat_template_kwargs": arguments, "complete": complete}
                    own = [first[key] for key in ids]
                    made = answer_modes()[mode].answer(model, tokenizer, prompts, own, **how)
            return {"id": ids, "tokens": [d.tokens for d in made], "finished": [d.finished for d in made]}

        further = {} if mode == DIRECT else {"mode": mode, "mode_settings": dict(options.modes[mode])}
        store = ContextStore.named_by_identity(
            directory, {**identity, **further}, num_examples=len(examples), shard_size=SHARD_SIZE, schema=_SCHEMA
        )
        fill_store(store, examples, args, columns, "answering" if mode == DIRECT else f"answering, {mode}")
        return [Draft(record["tokens"], record["finished"]) for _, record in store.joined(examples)]

    drafts = {DIRECT: drafts_of(DIRECT)}
    first.update({example.id: draft for example, draft in zip(examples, drafts[DIRECT], strict=True)})
    drafts |= {mode: drafts_of(mode) for mode in options.modes}

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    answers = []
    for at, example in enumerate(examples):
        own = {mode: made[at] for mode, made in drafts.items()}
        texts = {mode: text(draft.tokens) for mode, draft in own.items()}
        answers.append(Answer(example.id, text(example.asked), text(example.reference), texts, own))
    return answers
