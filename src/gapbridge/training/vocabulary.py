"""Whether a model's embedding has a row for every token that it is fed.

A tokenizer may know more tokens than the model: one was added and the embedding was not resized. That alone does no
harm (Gemma 3 1B is such a model); a token that is used does: torch stops with an IndexError, a GPU with an assertion.
"""

from __future__ import annotations

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..compat import vocabulary_size
from ..data.arrow_files import iterate_chunks
from ..data.example import ExampleSet
from ..errors import ConfigError, describe


_SHOWN = 10  # examples that are named
# Of examples and preferences, with ids of tokens.
_COLUMNS = ("prompt", "completion_ids", "template_suffix_ids", "generation_prompt_ids", "rejected")
_ADVICE = "Resize the model's embedding (resize_token_embeddings) and save it, or use the model's tokenizer"


def check_vocabulary(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: dict[str, ExampleSet],
    pad_token: str | None = None,
) -> None:
    """Refuse tokens without a row in the model's embedding: those of examples, and the tokens that pad and end.

    Args:
        pad_token: the token that pads, where it is not the tokenizer's.

    Raises:
        ConfigError: listing them.
    """
    rows = vocabulary_size(model)
    if len(tokenizer) <= rows:  # ids of examples lie below the length of the tokenizer
        return
    errors = []
    special = {"pad_token": pad_token or tokenizer.pad_token, "eos_token": tokenizer.eos_token}
    for name, token in special.items():
        index = tokenizer.get_vocab().get(token, 0)
        if index >= rows:
            errors.append(_describe_token(f"{tokenizer.name_or_path}, {name}", tokenizer, index, rows))
    for part in examples.values():
        found = _beyond(part.table, rows)
        for row, example_id, index in found[:_SHOWN]:
            errors.append(_describe_token(f"{part.source}, example {row} (id {example_id})", tokenizer, index, rows))
        if len(found) > _SHOWN:
            more = f"{len(found) - _SHOWN} more examples with such tokens"
            errors.append(describe(part.source, more, "none", _ADVICE))
    if errors:
        raise ConfigError(errors)


def _describe_token(place: str, tokenizer: PreTrainedTokenizerBase, index: int, rows: int) -> str:
    token = tokenizer.convert_ids_to_tokens(index)
    expected = f"one below {rows}, the rows of the model's embedding"
    return describe(place, f"token {index} ({token!r})", expected, _ADVICE)


def _beyond(table: Dataset, rows: int) -> list[tuple[int, str, int]]:
    """The examples that hold an id of at least `rows`: number, id and the first such token."""
    columns = [name for name in _COLUMNS if name in table.column_names]
    found, start = [], 0
    for part in iterate_chunks(table.select_columns(["id", *columns])):
        ids = [part[name].to_pylist() for name in columns]
        for at, example_id in enumerate(part["id"].to_pylist()):
            index = next((token for column in ids for token in column[at] or () if token >= rows), None)
            if index is not None:
                found.append((start + at, example_id, index))
        start += len(part)
    return found
