"""Show rows as the trainer sees them: prompt, context with the replaced tokens marked, lengths and shares."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ..examples.example import Example


def bash_preview(
    example: Example, context: Sequence[int], sampled: Sequence[bool], tokenizer: PreTrainedTokenizerBase
) -> Text:
    """One BASH row as text. A replaced token reads ⟦reference→model⟧; a sampled token equal to the reference is
    underlined.

    The prompt is dim: it carries no loss. Every label of the answer is the reference token, whatever the context
    holds.
    """
    replaced = sum(a != b for a, b in zip(context, example.reference, strict=True))
    total = len(example.prompt) + len(context) + len(example.trailer)
    text = Text()
    text.append(f"id {example.id}", style="bold")
    text.append(
        f"   {len(example.prompt)} prompt + {len(example.reference)} answer + {len(example.trailer)} template tokens "
        f"= {total}, "
        f"{len(example.reference) + len(example.trailer)} with loss\n"
        f"sampled {sum(sampled)} ({sum(sampled) / len(context):.1%}), replaced {replaced} "
        f"({replaced / len(context):.1%})\n"
    )
    text.append(tokenizer.decode(example.prompt), style="dim")
    pending: list[int] = []
    for reference, token, coin in zip(example.reference, context, sampled, strict=True):
        if not coin:
            pending.append(reference)
            continue
        text.append(tokenizer.decode(pending))
        pending = []
        if token == reference:
            text.append(tokenizer.decode([token]), style="underline green")
        else:
            text.append(f"⟦{_visible(tokenizer, reference)}→{_visible(tokenizer, token)}⟧", style="bold red")
    text.append(tokenizer.decode([*pending, *example.trailer]))
    text.append("\n")
    return text


def rac_preview(
    example: Example, draft: Sequence[int], finished: bool, cue: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Text:
    """One RAC row as text: prompt, draft and request are dim, they carry no loss; the reference carries all of it."""
    answer = [*example.reference, *example.trailer]
    total = len(example.prompt) + len(draft) + len(cue) + len(answer)
    text = Text()
    text.append(f"id {example.id}", style="bold")
    text.append(
        f"   {len(example.prompt)} prompt + {len(draft)} draft + {len(cue)} request + {len(answer)} answer tokens = "
        f"{total}, {len(answer)} with loss\n"
        f"the draft {'ended by itself' if finished else 'was cut at the length cap'}\n"
    )
    text.append(tokenizer.decode(example.prompt), style="dim")
    text.append(tokenizer.decode(draft), style="dim red")
    text.append(tokenizer.decode(cue), style="dim")
    text.append(tokenizer.decode(answer))
    text.append("\n")
    return text


def _visible(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return tokenizer.decode([token]).replace("\n", "\\n") or tokenizer.convert_ids_to_tokens(token)


def print_previews(previews: Sequence[Text], console: Console | None = None) -> None:
    console = console or Console(soft_wrap=True)
    console.print(
        "⟦reference→model⟧: a token of the answer replaced in the context; the label stays the reference token\n",
        style="italic",
    )
    for preview in previews:
        console.print(preview)
