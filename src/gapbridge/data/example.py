"""An example: one prompt and its reference answer, as token ids, with a stable id; and a set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value

from ..errors import DataError
from .arrow_files import ROWS_PER_CHUNK, chunk_rows, in_memory, iterate_chunks


IGNORE_INDEX = -100

EXAMPLE_FEATURES = Features(
    {
        "id": Value("string"),
        "prompt": List(Value("int32")),
        "completion_ids": List(Value("int32")),
        "template_suffix_ids": List(Value("int32")),
        "loss_mask": List(Value("bool")),
        "generation_prompt_ids": List(Value("int32")),
        "template_kwargs_json": Value("string"),
        "has_prompt": Value("bool"),
    }
)


@dataclass(frozen=True)
class Example:
    """A prompt, its reference, and which of its tokens are trained.

    Attributes:
        prompt: what stands before the reference in a row. In a chat it ends with the template's generation prompt.
        completion_ids: ends with a stop token. With several trained turns it runs from the first of them to the end of
            the last, and holds the user turns between.
        template_suffix_ids: what a chat template puts after the reference (often a line break), trained with it.
        loss_mask: one flag for each token of `completion_ids`: False on user turns, role headers and whatever no
            assistant wrote. All True with one turn.
        generation_prompt_ids: what a model is asked when it answers freely. It is `prompt`, but for tokens that merge
            across the border of prompt and reference: there `prompt` lacks the end that `generation_prompt_ids` has.
        template_kwargs_json: the row's own arguments of the chat template, as JSON; empty for most.
        has_prompt: False where the row's first token is trained, as in plain text: nothing asks for it. That token
            stands for the prompt, since no model predicts it, and its row has a label there as TRL's has.
    """

    id: str
    prompt: list[int]
    completion_ids: list[int]
    template_suffix_ids: list[int]
    loss_mask: list[bool] = field(default_factory=list)
    generation_prompt_ids: list[int] = field(default_factory=list)
    template_kwargs_json: str = ""
    has_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.loss_mask:
            object.__setattr__(self, "loss_mask", [True] * len(self.completion_ids))
        if not self.generation_prompt_ids:
            object.__setattr__(self, "generation_prompt_ids", self.prompt)

    def reference_row(self) -> dict[str, list[int]]:
        """The SFT row: `input_ids` = prompt ⊕ reference ⊕ template suffix, and `labels` with -100 where no loss
        falls."""
        labels = [
            token if loss else IGNORE_INDEX for token, loss in zip(self.completion_ids, self.loss_mask, strict=True)
        ]
        return {
            "input_ids": [*self.prompt, *self.completion_ids, *self.template_suffix_ids],
            "labels": [*self.prompt_labels(), *labels, *self.template_suffix_ids],
        }

    def prompt_labels(self) -> list[int]:
        """One label for each token of the prompt: none carries loss, but the first of a row without a prompt.

        A row by itself never predicts that token. It counts in the mean of transformers 4, and is predicted where
        packing lets a row follow another (`wrapped`).
        """
        first = [] if self.has_prompt else self.prompt[:1]
        return [*first, *([IGNORE_INDEX] * (len(self.prompt) - len(first)))]


def split_turns(example: Example, stops: Collection[int]) -> list[Example]:
    """One example for each trained turn: its prompt is all that stands before it in the row.

    An example of one turn is itself, and with several the ids get the number of the turn: `id#1`, `id#2`, …

    Args:
        stops: the ids that end an answer: what a template puts after them becomes the template suffix.
    """
    runs: list[list[int]] = []
    for at, loss in enumerate(example.loss_mask):
        if loss and (not at or not example.loss_mask[at - 1]):
            runs.append([at, at])
        if loss:
            runs[-1][1] = at + 1
    if len(runs) == 1:
        return [example]
    turns = []
    for number, (start, end) in enumerate(runs, 1):
        words, trailer = example.completion_ids[start:end], example.template_suffix_ids
        if number < len(runs):
            cut = max((at + 1 for at, token in enumerate(words) if token in stops), default=len(words))
            words, trailer = words[:cut], words[cut:]
        before = example.completion_ids[:start]
        asked = [*example.generation_prompt_ids, *before] if number == 1 else []
        prompt, arguments = [*example.prompt, *before], example.template_kwargs_json
        has_prompt = example.has_prompt or number > 1
        turn_id = f"{example.id}#{number}"
        turns.append(Example(turn_id, prompt, words, trailer, [], asked, arguments, has_prompt))
    return turns


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its number in the data set counted from 0, its id if it has one, and why."""

    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class ExampleSet:
    """Examples in an Arrow table with the columns of `EXAMPLE_FEATURES`, and the rows that could not become one.

    In the table `trained` is null where all tokens are trained, `asked` where it is the prompt, `arguments` where the
    row has none, `has_prompt` where it has one. `num_boundary_merges` counts
    prompts that lost their end to the answer, `truncated` answers that lost theirs; `conversational` says that the
    rows came through a chat template, `stops`, `date` and `chat_template_kwargs` with what `build_examples` was given.
    `loss_on` says in words which tokens carry loss, `left_out` how many rows had nothing left to learn within
    `max_length`.
    """

    table: Dataset
    bad_rows: list[BadRow]
    source: str
    num_boundary_merges: int
    truncated: int
    conversational: bool
    stops: tuple[int, ...] = ()
    date: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    loss_on: str = ""
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def part(self, start: int, end: int) -> list[Example]:
        columns = self.table[start:end]
        rows = zip(*(columns[name] for name in EXAMPLE_FEATURES), strict=True)
        return [
            Example(
                key, prompt, reference, trailer, trained or [], asked or [], arguments or "", has_prompt is not False
            )
            for key, prompt, reference, trailer, trained, asked, arguments, has_prompt in rows
        ]

    def arguments_of(self, row: str | None) -> dict[str, Any]:
        """The arguments of the chat template for a row whose own `arguments` are these; its own win."""
        return {**self.chat_template_kwargs, **json.loads(row or "{}")}

    def without_prompt(self) -> list[int]:
        """The numbers of the rows that nothing can be asked with, counted from 0."""
        return [row for row, has_prompt in enumerate(self.table["has_prompt"][:]) if has_prompt is False]

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), ROWS_PER_CHUNK):
            yield from self.part(start, start + ROWS_PER_CHUNK)

    def split_turns(self, stops: Collection[int]) -> ExampleSet:
        """One example for each trained turn, as `split_turns` makes them.

        Raises:
            DataError: an id that this gives is there already.
        """
        if all(trained is None for trained in self.table["loss_mask"][:]):
            return self
        turns = (as_columns(turn) for example in self for turn in split_turns(example, stops))
        table = in_memory(chunk_rows(turns, EXAMPLE_FEATURES), EXAMPLE_FEATURES)
        if len(set(table["id"][:])) < len(table):
            got, expected = "an id in the form of a turn's (id#1)", "ids without it"
            raise DataError(self.source, got, expected, "Rename the ids of the data")
        return replace(self, table=table)

    def fingerprint(self) -> str:
        """A hash of all ids and tokens in their order, and of what is not trained or asked otherwise; taken once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self._digest()

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in iterate_chunks(self.table):
            prompts, references, trailers, asked, trained = (
                as_json(part[name])
                for name in ("prompt", "completion_ids", "template_suffix_ids", "generation_prompt_ids", "loss_mask")
            )
            arguments = part["template_kwargs_json"].to_pylist()
            has_prompt = part["has_prompt"].to_pylist()
            for at, example_id in enumerate(part["id"].to_pylist()):
                words = [json.dumps(example_id), prompts[at], references[at], trailers[at]]
                # Only where they say something, so that examples of one turn keep their fingerprint.
                words += [trained[at]] if "false" in trained[at] else []
                words += [asked[at]] if asked[at] not in ("[]", prompts[at]) else []
                words += [json.dumps(arguments[at])] if arguments[at] else []
                words += ["no prompt"] if has_prompt[at] is False else []
                digest.update(f"[{', '.join(words)}]".encode())
        return digest.hexdigest()


def as_json(column: pa.ChunkedArray) -> list[str]:
    """A column of lists of numbers or flags as `json.dumps` writes them; null as an empty list."""
    words = pc.cast(column, pa.list_(pa.string()))
    return [f"[{joined or ''}]" for joined in pc.binary_join(words, ", ").to_pylist()]


def as_columns(example: Example) -> dict[str, Any]:
    """An example as a row of the table."""
    return {
        **vars(example),
        "loss_mask": None if all(example.loss_mask) else example.loss_mask,
        "generation_prompt_ids": None
        if example.generation_prompt_ids == example.prompt
        else example.generation_prompt_ids,
        "template_kwargs_json": example.template_kwargs_json or None,
        "has_prompt": None if example.has_prompt else False,
    }
