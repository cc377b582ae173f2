"""A model's answers to an evaluation's prompts, kept in a store: a killed evaluation continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..contexts.fill import fill_store, generation_precision, shared_identity
from ..contexts.store import ContextStore
from ..decoding import Draft, draft_answers
from ..decoding.sampling import SamplingOptions
from ..examples.example import Example, ExampleSet
from ..examples.tokens import stop_tokens, unnamed_tokens
from ..methods.rac.config import CORRECTION_PROMPT
from ..methods.rac.correct import correct_drafts
from ..training.config import ExampleConfig


SHARD_SIZE = 256
_DRAFT = [("tokens", pa.list_(pa.int64())), ("finished", pa.bool_())]
_DIRECT = pa.schema([("id", pa.string()), *_DRAFT])
_CORRECTED = pa.schema([*_DIRECT, ("corrected_tokens", _DRAFT[0][1]), ("corrected_finished", pa.bool_())])


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are drawn; a temperature of 0 is greedy. `corrected`: each answer is followed by a corrected one."""

    max_completion_length: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch_size: int = 64
    corrected: bool = False
    correction_prompt: str = CORRECTION_PROMPT


@dataclass(frozen=True)
class Answer:
    """One example's prompt, reference and answers as text, and the drafts they were decoded from."""

    id: str
    prompt: str
    reference: str
    first: str
    corrected: str | None
    first_draft: Draft
    corrected_draft: Draft | None


def answer_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: ExampleSet,
    args: ExampleConfig,
    options: AnswerOptions,
    directory: Path,
) -> list[Answer]:
    """Answer every prompt, or find the answers in a store below `directory`; several processes share the work.

    Raises:
        StoreError: a shard of the store is damaged. ConfigError: an option lies outside its range.
    """
    stops = stop_tokens(tokenizer, model)
    sampling = SamplingOptions(
        options.temperature, options.top_k, options.top_p, 0.0, tuple(unnamed_tokens(tokenizer, model))
    )
    fixed = {key: value for key, value in asdict(options).items() if key not in ("batch_size", "seed")}
    if not options.corrected:
        del fixed["correction_prompt"]
    identity = {
        "method": "answers",
        **fixed,
        "stop_tokens": stops,
        **shared_identity(model, tokenizer, examples, args, sampling, round_index=0),
        "seed": options.seed,
    }
    shared: dict[str, Any] = {
        "max_completion_length": options.max_completion_length,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "suppress_tokens": sampling.suppress_tokens,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }

    def columns(part: list[Example], on_finished: Callable[[int], object]) -> dict[str, list[Any]]:
        prompts, ids = [example.prompt for example in part], [example.id for example in part]
        with generation_precision(model, args):
            if not options.corrected:
                first = draft_answers(model, prompts, ids=ids, stop_tokens=stops, on_finished=on_finished, **shared)
                return {"id": ids, **_columns(first)}
            first, second = correct_drafts(
                model,
                tokenizer,
                prompts,
                ids=ids,
                conversational=examples.conversational,
                correction_prompt=options.correction_prompt,
                **shared,
            )
            on_finished(len(part))
        return {"id": ids, **_columns(first), **_columns(second, "corrected_")}

    store = ContextStore.named_by_identity(
        directory,
        identity,
        num_examples=len(examples),
        shard_size=SHARD_SIZE,
        schema=_CORRECTED if options.corrected else _DIRECT,
    )
    fill_store(store, examples, args, columns, "answering and correcting" if options.corrected else "answering")

    def text(draft: Draft) -> str:
        return str(tokenizer.decode(draft.tokens, skip_special_tokens=True))

    answers = []
    for example, record in store.joined(examples):
        first_draft, second_draft = Draft(record["tokens"], record["finished"]), None
        if options.corrected:
            second_draft = Draft(record["corrected_tokens"], record["corrected_finished"])
        answers.append(
            Answer(
                example.id,
                str(tokenizer.decode(example.prompt, skip_special_tokens=True)),
                str(tokenizer.decode(example.reference, skip_special_tokens=True)),
                text(first_draft),
                None if second_draft is None else text(second_draft),
                first_draft,
                second_draft,
            )
        )
    return answers


def _columns(drafts: list[Draft], prefix: str = "") -> dict[str, list[Any]]:
    return {
        f"{prefix}tokens": [draft.tokens for draft in drafts],
        f"{prefix}finished": [draft.finished for draft in drafts],
    }
