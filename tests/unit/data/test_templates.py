"""Every text-only chat template that TRL ships: examples, rows and evaluation prompts are what it renders.

What is refused stands in docs/reference/chat-templates.md, which this module writes:
GAPBRIDGE_WRITE_DOCS=1 python -m pytest FILE
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from conftest import ROOT
from datasets import Dataset
from helpers.templates import CONVERSATIONS, NAMES, assistant, byte_tokenizer, stop_names, tokenizer_of, user
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from gapbridge import ConfigError, DataError, build_examples
from gapbridge.data.chat_template import ChatTemplate
from gapbridge.data.example import Example, split_turns
from gapbridge.data.special_tokens import never_sampled_mask, special_token_ids
from gapbridge.decoding import Completion
from gapbridge.methods.bash.rows import bash_row
from gapbridge.methods.rac.rows import CorrectionTemplates, rac_row


DAY = "2024-07-01"
TABLE = ROOT / "docs" / "reference" / "chat-templates.md"
# How the table names a refusal, and what the refusal says.
REASONS = {
    "no (prompt)": "got a prompt rendered as",
    "no (changed)": "renders differently once later turns follow",
    "no (dropped)": "the chat template omits",
    "no (refused)": "that the template refuses",
}


def built(name: str, case: str, **options: Any) -> Example:
    tokenizer, stops = tokenizer_of(name)
    rows = Dataset.from_list([CONVERSATIONS[case]])
    (example,) = build_examples(rows, tokenizer, stops=stops, max_length=None, date=DAY, **options)
    return example


@functools.cache
def sources(name: str) -> list[ChatTemplate]:
    """The template, and TRL's training variant of it."""
    tokenizer, _ = tokenizer_of(name)
    try:
        variant = get_training_chat_template(tokenizer)
    except ValueError:
        variant = None
    return [ChatTemplate(tokenizer, source, DAY) for source in (tokenizer.chat_template, variant) if source]


@functools.cache
def outcome(name: str, case: str) -> tuple[str, Example | None]:
    """`yes`, `variant` where the row is what TRL's training variant renders, or the reason of a refusal."""
    try:
        example = built(name, case)
    except DataError as error:
        return str(error).split("), ", 1)[1].splitlines()[0], None
    return ("yes" if text_of(name, example) == sources(name)[0].text(**CONVERSATIONS[case]) else "variant"), example


def text_of(name: str, example: Example) -> str:
    tokenizer, _ = tokenizer_of(name)
    return str(tokenizer.decode(example.prompt + example.completion_ids + example.template_suffix_ids))


def taken(name: str) -> Iterator[tuple[str, Example, ChatTemplate, list[int]]]:
    """The cases that become an example, each with the template that renders it so and the turns that are answers."""
    for case, conversation in CONVERSATIONS.items():
        _, example = outcome(name, case)
        if example is not None:
            used = [t for t in sources(name) if t.text(**conversation) == text_of(name, example)]
            assert used, f"{case}: the row is what neither the template nor TRL's variant of it renders"
            answers = [at for at, turn in enumerate(conversation["messages"]) if turn["role"] == "assistant"]
            yield case, example, used[0], answers


def correction_outcome(name: str) -> str:
    tokenizer, stops = tokenizer_of(name)
    try:
        _, cue = CorrectionTemplates(tokenizer, "Again?", stops, conversational=True, date=DAY).of({})
    except ConfigError as error:
        return str(error)
    template = sources(name)[0]
    turns = [user("a"), assistant("b"), user("Again?")]
    remaining, full = template.text(turns[:2]).rsplit("b", 1)[0], template.text(turns, ask=True)
    return "yes" if full.startswith(remaining) and full.endswith(tokenizer.decode(cue)) else "variant"


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_what_the_template_renders(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    for case, example, used, answers in taken(name):
        messages, tools = CONVERSATIONS[case]["messages"], CONVERSATIONS[case].get("tools")
        row = example.reference_row()
        assert example.prompt == used.ids(messages[: answers[0]], ask=True, tools=tools), f"{case}: as it is asked"
        assert example.generation_prompt_ids == example.prompt and example.completion_ids[-1] in stops, case
        trained = tokenizer.decode([label for label in row["labels"] if label != -100])
        for message in messages:
            words = message["content"].split("</think>")[-1].strip()
            assert not words or (words in trained) == (message["role"] == "assistant"), f"{case}: {words}"
        assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"])), case


@pytest.mark.parametrize("name", NAMES)
def test_trained_tokens_are_those_of_trl(name: str) -> None:
    """As text, since a token across the end of the generation prompt is taken apart; and without the header."""
    tokenizer, _ = tokenizer_of(name)
    marked = [t for t in sources(name) if has_generation_markers(t.source or "")]
    for case, example, used, answers in taken(name) if marked else ():
        if marked[0].text(**CONVERSATIONS[case]) != text_of(name, example):
            assert used is sources(name)[0] and len(answers) == 1, f"{case}: only a single turn is left as it is"
            continue
        encoded, row = marked[0].marked(**CONVERSATIONS[case]), example.reference_row()
        theirs = runs(tokenizer, encoded["input_ids"], encoded["assistant_masks"])
        ours = runs(tokenizer, row["input_ids"], [label != -100 for label in row["labels"]])
        headers = [mark[: len(mark) - len(trained)] for mark, trained in zip(theirs, ours, strict=True)]
        assert [h + o for h, o in zip(headers, ours)] == theirs, case
        asked = tokenizer.decode(example.prompt)
        assert all(asked.endswith(header) for header in headers), f"{case}: less only what the prompt ends with"


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("diffusion_gemma")])
def test_templates_unknown_to_trl_are_cut_as_trl_marks_them(name: str) -> None:
    """The turns that are found by rendering prefixes are those that TRL's marks give, where the text is the same."""
    own, stops = tokenizer_of(name)
    if has_generation_markers(own.chat_template):
        return
    tokenizer = byte_tokenizer("{#- mine -#}" + own.chat_template, stop_names(name))
    for case, example, used, _ in taken(name):
        if used is sources(name)[0]:
            rows = Dataset.from_list([CONVERSATIONS[case]])
            found = build_examples(rows, tokenizer, stops=stops, max_length=None, date=DAY)
            assert list(found) == [example], case


def runs(tokenizer: Any, ids: list[int], mask: list[int] | list[bool]) -> list[str]:
    """The text of each run of marked tokens."""
    found: list[list[int]] = []
    for at, (token, loss) in enumerate(zip(ids, mask, strict=True)):
        if loss and (not at or not mask[at - 1]):
            found.append([])
        if loss:
            found[-1].append(token)
    return [tokenizer.decode(run) for run in found]


@pytest.mark.parametrize("name", NAMES)
def test_each_turn_is_asked_as_the_template_asks(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    for case, example, used, answers in taken(name):
        messages, tools = CONVERSATIONS[case]["messages"], CONVERSATIONS[case].get("tools")
        turns = split_turns(example, stops)
        assert len(turns) == len(answers), case
        for turn, answer in zip(turns, answers):
            prompt = used.text(messages[:answer], ask=True, tools=tools)
            # After a tool's answer DiffusionGemma asks with nothing, but its marks leave out the header that follows.
            assert tokenizer.decode(turn.prompt) in (prompt, f"{prompt}<|turn>model\n"), case
            assert all(turn.loss_mask) and turn.generation_prompt_ids == turn.prompt, case
            assert text_of(name, example).startswith(text_of(name, turn)), case
        last = built(name, case, train_on_assistant_turns="last")
        asked = [template.ids(messages[:-1], ask=True, tools=tools) for template in sources(name)]
        assert last.generation_prompt_ids in asked and all(last.loss_mask), f"{case}: an evaluation asks the last turn"


@pytest.mark.parametrize("name", NAMES)
def test_bash_mixes_words_of_answers_only(name: str) -> None:
    tokenizer, _ = tokenizer_of(name)
    control = set(special_token_ids(tokenizer))
    for case, example, *_ in taken(name):
        x, y, rest = example.prompt, example.completion_ids, (example.template_suffix_ids, example.loss_mask)
        fixed = never_sampled_mask(y, example.loss_mask, control)
        row, plain = bash_row(x, [t if keep else 0 for t, keep in zip(y, fixed)], y, *rest), example.reference_row()
        assert row["labels"] == plain["labels"] and len(row["input_ids"]) == len(plain["input_ids"]), case
        for mixed, token, label in zip(row["input_ids"], plain["input_ids"], plain["labels"]):
            assert mixed == token or (label != -100 and token not in control), case
        assert bash_row(x, y, y, *rest) == plain, f"{case}: without a coin it is the SFT row"


@pytest.mark.parametrize("name", NAMES)
def test_rac_rows_are_what_the_template_renders(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    _, example = outcome(name, "one turn")
    if example is None:
        return
    templates = CorrectionTemplates(tokenizer, "Again?", stops, conversational=True, date=DAY)
    turns = [user("Ask one."), assistant("First."), user("Again?"), assistant("First.")]
    expected = [template.text(turns) for template in sources(name)]
    for completion in (Completion(example.completion_ids, True), Completion(example.completion_ids[:-1], False)):
        own, cue = templates.completion_and_cue(completion, {})
        row = rac_row(example.generation_prompt_ids, own, cue, example.completion_ids, example.template_suffix_ids)
        assert tokenizer.decode(row["input_ids"]) in expected, "finished, or cut at the cap and closed"


@pytest.mark.parametrize(
    ("name", "case", "arguments"),
    [
        ("nemotron_3_nano", "one turn", {"enable_thinking": False}),
        ("nemotron_3_ultra", "several turns", {"enable_thinking": False}),
        ("nemotron_3_super", "reasoning, several turns", {"truncate_history_thinking": False}),
        ("qwen3_5_nothink", "reasoning, several turns", {"enable_thinking": True}),
        ("lfm2_2_5", "reasoning, several turns", {"preserve_thinking": True}),
    ],
)
def test_the_arguments_that_refusals_name_are_a_way_out(name: str, case: str, arguments: dict[str, Any]) -> None:
    reason, _ = outcome(name, case)
    assert next(iter(arguments)) in reason
    example = built(name, case, chat_template_kwargs=arguments)
    rendered = [replace(template, arguments=arguments).text(**CONVERSATIONS[case]) for template in sources(name)]
    assert text_of(name, example) in rendered


def test_the_documented_table_is_what_is_found() -> None:
    def cell(result: str) -> str:
        return result if result in ("yes", "variant") else next(key for key, text in REASONS.items() if text in result)

    head = ["template", *CONVERSATIONS, "RAC"]
    rows = [[name, *(cell(outcome(name, case)[0]) for case in CONVERSATIONS)] for name in NAMES]
    rows = [[*row, correction_outcome(row[0])] for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
    text = TABLE.read_text(encoding="utf-8")
    before = text.split(table.splitlines()[0])[0].rstrip()
    wanted = f"{before}\n\n{table}"
    if os.environ.get("GAPBRIDGE_WRITE_DOCS"):
        TABLE.write_text(wanted, encoding="utf-8")
        text = wanted
    again = f"GAPBRIDGE_WRITE_DOCS=1 python -m pytest {__file__}"
    assert text == wanted, f"the table in {TABLE} is not what is found: write it again with {again}"
