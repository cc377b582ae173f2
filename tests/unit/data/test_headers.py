"""The labels of every template that TRL ships, beside those of TRL's `assistant_only_loss`: what the template marks.

Only the end of the generation prompt, which some marks take in, is not trained here.
docs/reference/chat-templates.md lists it.
"""

from __future__ import annotations

from typing import Any

import pytest
from conftest import ROOT
from datasets import Dataset
from helpers.templates import NAMES, assistant, tokenizer_of, user

from gapbridge import DataError, build_examples
from gapbridge.data.chat_template import ChatTemplate


CHATS = {
    "plain": [user("Hi"), assistant("Hello"), user("More"), assistant("Word")],
    "thinking": [
        user("Hi"), assistant("Hello", reasoning_content="hm"),
        user("More"), assistant("Word", reasoning_content="so"),
    ],
}  # fmt: skip
HEADERS = {
    "gptoss": "<|start|>assistant",
    "muse_glimmer": "<|start|>assistant",
    "qwen2_5": "\n",
    "qwen3_5_nothink": "<think>\n\n</think>\n\n",
    "qwen3_5_think": "<think>\n",
    "qwen3_6": "<think>\n",
    "qwen3_8": "<think>\n",
}


def trained_by_trl_alone(name: str, chat: list[dict[str, Any]]) -> set[str]:
    """The pieces of text that TRL trains and this package does not; nothing is trained here alone.

    Raises:
        DataError: the row is refused here.
    """
    tokenizer, stops = tokenizer_of(name)
    template = ChatTemplate(tokenizer, date="2026-01-02")
    marked = template if template.has_markers() else template.training_variant()
    if marked is None:
        pytest.skip("TRL has no marks for it")
    data = Dataset.from_list([{"messages": chat}])
    (example,) = build_examples(data, tokenizer, stops=stops, max_length=None, date="2026-01-02")
    row, theirs = example.reference_row(), marked.marked(chat)
    ids = list(theirs["input_ids"])
    assert row["input_ids"] == ids[: len(row["input_ids"])]
    ours = [label != -100 for label in row["labels"]] + [False] * (len(ids) - len(row["labels"]))
    pieces, piece = set(), []
    for index, own, mark in [*zip(ids, ours, theirs["assistant_masks"], strict=True), (0, False, 0)]:
        assert mark or not own, "trained here alone"
        if mark and not own:
            piece.append(index)
        elif piece:
            pieces.add(str(tokenizer.decode(piece)))
            piece = []
    return pieces


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("gemma4")])
def test_labels_are_trls_but_for_headers(name: str) -> None:
    own = "thinking" if name.startswith(("qwen3_5_think", "qwen3_6", "qwen3_8")) else "plain"
    header = HEADERS.get(name.removesuffix("_training"))
    try:
        found = trained_by_trl_alone(name, CHATS[own])
    except DataError:
        assert name.startswith(("deepseek", "nemotron")), "refused"
        return
    assert found == ({header} if header else set())


def test_the_page_names_every_header() -> None:
    page = (ROOT / "docs" / "reference" / "chat-templates.md").read_text(encoding="utf-8")
    listed = page.split("| template | trained by TRL alone |")[1].split("\n\n")[0]
    assert all(name in listed for name in HEADERS)
    for family in ("DeepSeek", "gpt-oss", "Muse", "Qwen2.5", "Qwen3.5", "Qwen3.6", "Qwen3.8", "Nemotron"):
        assert family in page.split("| template | trained by")[0]
