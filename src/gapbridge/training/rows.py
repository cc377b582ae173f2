"""Rows: `input_ids` and `labels` of equal length, label -100 where no loss falls; and how one is shown.

A row also says which of its tokens the model itself `drew`. TRL gets ids and labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from datasets import Features, List, Value
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ..data.example import IGNORE_INDEX, Example
from ..display import printable


Row = dict[str, Any]
ROW_FEATURES = Features(
    {
        "id": Value("string"),
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "sampled": List(Value("bool")),
    }
)
LEGEND = (
    "‹…›: no loss   ⟦reference→model⟧: the model's token stands in the context, the label is the reference's   "
    "⟦…⟧: sampled from the model"
)


def masked_row(context: Sequence[int], answer: Sequence[int]) -> dict[str, list[int]]:
    """`context` without loss, then `answer` with all of it."""
    return {"input_ids": [*context, *answer], "labels": [*([IGNORE_INDEX] * len(context)), *answer]}


def sft_row(example: Example) -> Row:
    """The SFT row: the prompt, then the reference with all of the loss, but for user turns in between."""
    row = example.reference_row()
    return {"id": example.id, **row, "sampled": [False] * len(row["labels"])}


def show_row(row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
    """A row as it is trained: every token with or without loss, replaced and generated tokens marked, shares in its
    head.

    Everything is read off the row's ids, labels and `sampled`, so a wrong row looks wrong. The marks (`LEGEND`) are
    text, so that they survive in a file; on a terminal what carries no loss is dim, too.
    """
    ids, labels, sampled = row["input_ids"], row["labels"], row["sampled"]
    trained = [label != IGNORE_INDEX for label in labels]
    replaced = [label not in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True)]
    text = Text()
    text.append(f"id {printable(row['id'])}", style="bold")
    text.append(f"   {len(ids)} tokens, {sum(trained)} with loss ({_percentage(sum(trained), len(ids))})")
    own = sum(sampled)
    among = sum(a and b for a, b in zip(sampled, trained, strict=True))
    if own or any(replaced):
        text.append(f"; sampled {own} ({_percentage(own, len(ids))})")
    if among or any(replaced):  # not in a row whose sampled tokens are all context, as RAC's
        text.append(
            f", of the tokens with loss {_percentage(among, sum(trained))}; replaced {sum(replaced)} "
            f"({_percentage(sum(replaced), sum(trained))} of the tokens with loss)"
        )
    text.append("\n")
    for has_loss, positions in groupby(range(len(ids)), key=lambda at: trained[at]):
        piece = _piece(list(positions), ids, labels, sampled, replaced, tokenizer)
        if has_loss:
            text.append_text(piece)
        else:
            text.append("‹", style="dim")
            piece.stylize("dim")
            text.append_text(piece)
            text.append("›", style="dim")
    text.append("\n")
    return text


def _piece(
    positions: Sequence[int],
    ids: Sequence[int],
    labels: Sequence[int],
    sampled: Sequence[bool],
    replaced: Sequence[bool],
    tokenizer: PreTrainedTokenizerBase,
) -> Text:
    """Neighbouring tokens that all carry loss, or all carry none."""
    text = Text()
    for (is_sampled, is_replaced), run in groupby(positions, key=lambda at: (sampled[at], replaced[at])):
        if is_replaced:
            for at in run:
                text.append(f"⟦{_visible(tokenizer, labels[at])}→{_visible(tokenizer, ids[at])}⟧", style="bold red")
        else:
            words = printable(tokenizer.decode([ids[at] for at in run]))
            text.append(f"⟦{words}⟧" if is_sampled else words, style="green" if is_sampled else "")
    return text


def _visible(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return printable(tokenizer.decode([token]) or tokenizer.convert_ids_to_tokens(token)).replace("\n", "\\n")


def row_record(row: Row, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A row token by token, as JSON values for an HTML page: `head`, and of each token its text, kind and a note.

    The kind is `masked` (no loss), `loss`, `sampled` (from the model) or `replaced` (sampled and not the reference's).
    """
    ids, labels, sampled = row["input_ids"], row["labels"], row["sampled"]
    tokens = []
    for at, (text, token, label) in enumerate(zip(_texts(ids, tokenizer), ids, labels, strict=True)):
        has_loss, is_replaced = label != IGNORE_INDEX, label not in (IGNORE_INDEX, token)
        kind = "replaced" if is_replaced else "sampled" if sampled[at] else "loss" if has_loss else "masked"
        reference = f", reference: {_visible(tokenizer, label)}" if is_replaced else ""
        note = f"position {at}, token id {token}, {'loss' if has_loss else 'no loss'}{reference}"
        shown = text if text or not is_replaced else _visible(tokenizer, token)
        tokens.append({"text": shown, "kind": kind, "note": note})
    count = sum(label != IGNORE_INDEX for label in labels)
    return {"head": printable(f"{row['id']}: {len(ids)} tokens, {count} with loss"), "tokens": tokens}


def _texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """The text that each token adds; a token that ends within a character adds none."""
    start = shown = 0
    for end in range(1, len(ids) + 1):
        before, text = (tokenizer.decode(list(ids[start:at])) for at in (shown, end))
        if text.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids):
            yield ""
            continue
        yield printable(text[len(before) :])
        start, shown = shown, end


def _percentage(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "–"


def print_rows(shown: Sequence[Text], console: Console | None = None) -> None:
    """Print shown rows under the legend."""
    console = console or Console(soft_wrap=True)
    console.print(f"{LEGEND}\n", style="italic")
    for text in shown:
        console.print(text)
