"""Every turn that has words is in the rendered text, and nothing but assistant turns carries loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.templates import CONVERSATIONS, NAMES, assistant, byte_tokenizer, tokenizer_of, user

from gapbridge import DataError, build_examples
from gapbridge.data.chat_template import ChatTemplate
from gapbridge.data.preferences import build_preferences


DAY = "2024-07-01"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROLES = ("human", "User", "developer", "function", "context", "ipython", "tool", "critic")


def call(name: str = "add", **arguments: Any) -> list[dict[str, Any]]:
    return [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]


def build(name: str, row: dict[str, Any], **options: Any) -> Any:
    tokenizer, stops = tokenizer_of(name) if name != "chatml" else _chatml()
    return build_examples(Dataset.from_list([row]), tokenizer, stops=stops, max_length=None, date=DAY, **options)


def _chatml() -> tuple[Any, list[int]]:
    tokenizer = byte_tokenizer(CHATML, ["<|im_end|>"])
    return tokenizer, [tokenizer.eos_token_id]


def trained(name: str, row: dict[str, Any], **options: Any) -> str:
    """The text that carries loss."""
    tokenizer, _ = tokenizer_of(name) if name != "chatml" else _chatml()
    (example,) = build(name, row, **options)
    return str(tokenizer.decode([label for label in example.reference_row()["labels"] if label != -100]))


def whole(name: str, row: dict[str, Any], **options: Any) -> str:
    tokenizer, _ = tokenizer_of(name) if name != "chatml" else _chatml()
    (example,) = build(name, row, **options)
    return str(tokenizer.decode(example.reference_row()["input_ids"]))


def refusal(name: str, row: dict[str, Any], **options: Any) -> str:
    try:
        build(name, row, **options)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "phi3", "cohere2", "glm4moe", "gptoss", "llama3_1", "gemma3"])
def test_a_turn_is_rendered_or_its_row_is_bad(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    conversations = {}
    for role in ROLES:
        odd = {"role": role, "content": "QUESTION"}
        conversations[f"{role} alone"] = [odd, assistant("First.")]
        conversations[f"{role} first"] = [odd, user("Ask."), assistant("First.")]
    later = {"role": "system", "content": "QUESTION"}
    conversations["good"] = [user("QUESTION"), assistant("First.")]
    conversations["later system turn"] = [*conversations["good"], later, user("More?"), assistant("Second.")]
    rows = [{"id": kind, "messages": messages} for kind, messages in conversations.items()]
    pairs = [{"id": row["id"], "prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    for form in (rows, pairs):
        examples = build_examples(
            Dataset.from_list(form), tokenizer, stops=stops, max_length=None, date=DAY, on_invalid_example="skip"
        )
        assert len(examples) + len(examples.bad_rows) == len(rows) and "good" in examples.table["id"][:]
        for example in examples:
            text = tokenizer.decode(example.reference_row()["input_ids"])
            assert text.count("QUESTION") == 1 + (example.id == "later system turn"), example.id


def test_the_refusal_names_row_turn_and_role() -> None:
    rows = [[user("q"), assistant("a")], [{"role": "human", "content": "q"}, assistant("a")]]
    tokenizer, stops = tokenizer_of("qwen2_5")
    with pytest.raises(
        DataError, match="row 1 .*messages, turn 0: .*got the role 'human', whose turn the chat template omits"
    ) as error:
        build_examples(Dataset.from_list([{"messages": m} for m in rows]), tokenizer, stops=stops, max_length=None)
    assert len(error.value.errors) == 1
    pair = {"prompt": [{"role": "human", "content": "q"}], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    with pytest.raises(DataError, match="row 0 .*prompt, turn 0: .*the chat template omits"):
        build_preferences(Dataset.from_list([pair]), tokenizer, stops=stops, max_length=None)


def test_words_that_stand_elsewhere_do_not_stand_for_a_lost_turn() -> None:
    for content in ("assistant", "a", "First."):
        row = {"messages": [{"role": "human", "content": content}, user("assistant a"), assistant("First.")]}
        assert "the chat template omits" in refusal("qwen2_5", row), content


def test_a_template_that_drops_words_by_what_they_are_is_found() -> None:
    """After a row of the same shape that is good."""
    cut = CHATML.replace("m['content']", "m['content'].split('###')[-1]")
    tokenizer = byte_tokenizer(cut, ["<|im_end|>"])
    rows = [{"messages": [user("Ask."), assistant("One.")]}, {"messages": [user("IN ### Ask."), assistant("One.")]}]
    with pytest.raises(DataError, match="row 1 .*turn 0: .*the chat template omits"):
        build_examples(Dataset.from_list(rows), tokenizer, stops=[tokenizer.eos_token_id], max_length=None)


def test_words_that_a_template_writes_otherwise_are_there() -> None:
    said = 'line one\n\n"quoted" \\ é ' + "\u2028 and \U0001f600"
    for written in (
        "m['content'] | tojson",
        "m['content'] | upper",
        "m['content'] | trim",
        "m['content'] | replace('e', 'é')",
    ):
        tokenizer = byte_tokenizer(CHATML.replace("m['content']", f"({written})"), ["<|im_end|>"])
        row = {"messages": [user(said), assistant("One.")]}
        examples = build_examples(Dataset.from_list([row]), tokenizer, stops=[tokenizer.eos_token_id], max_length=None)
        assert len(examples) == 1, written


def test_a_completions_other_turns_carry_no_loss() -> None:
    turns = {
        "tool": [assistant("", tool_calls=call()), {"role": "tool", "content": "OTHER"}, assistant("4.")],
        "user": [assistant("hello"), user("OTHER"), assistant("bye")],
        "asked in it": [user("OTHER"), assistant("bye")],
    }  # fmt: skip
    for kind, completion in turns.items():
        as_pair = {"prompt": [user("hi")], "completion": completion}
        words = trained("qwen2_5_training", as_pair)
        assert "OTHER" not in words and words.rstrip().endswith("<|im_end|>"), kind
        assert words == trained("qwen2_5_training", {"messages": [user("hi"), *completion]}), kind
        assert "OTHER" in whole("qwen2_5_training", as_pair)
    (last,) = build(
        "qwen2_5_training", {"prompt": [user("hi")], "completion": turns["user"]}, train_on_assistant_turns="last"
    )
    tokenizer, _ = tokenizer_of("qwen2_5_training")
    assert tokenizer.decode(last.completion_ids) == "bye<|im_end|>" and "OTHER" in tokenizer.decode(
        last.generation_prompt_ids
    )
    for completion in ([assistant("hello"), user("OTHER")], [user("OTHER")]):
        said = refusal("qwen2_5_training", {"prompt": [user("hi")], "completion": completion})
        assert "completion: got a user turn at the end, expected an assistant turn" in said


@pytest.mark.parametrize(("key", "no", "yes"), [("weight", 0, 1), ("train", False, True), ("training", False, None)])
def test_turns_that_are_not_to_be_learnt_carry_no_loss(key: str, no: Any, yes: Any) -> None:
    bad, good = assistant("BAD", **{key: no}), assistant("GOOD", **{key: yes})
    for messages in (
        [user("a"), bad, user("b"), good],
        [user("a"), good, user("b"), bad],
        [user("a"), bad, user("b"), good, user("c"), assistant("MORE"), user("d"), bad],
    ):
        for row in ({"messages": messages}, {"prompt": messages[:1], "completion": messages[1:]}):
            for name in ("qwen2_5_training", "qwen3", "chatml"):
                words = trained(name, row)
                assert "GOOD" in words and "BAD" not in words, f"{name}: {messages}"
                assert ("MORE" in words) == (len(messages) > 4)
    assert "excluded from the loss" in refusal("chatml", {"messages": [user("a"), bad]})
    assert "excluded from the loss" in refusal("chatml", {"messages": [user("a"), good, user("b"), bad]},
                                               train_on_assistant_turns="last")  # fmt: skip
    pair = {"prompt": [user("a")], "chosen": [bad], "rejected": [assistant("c")]}
    tokenizer, stops = _chatml()
    with pytest.raises(DataError, match="row 0 .*chosen: got every assistant turn excluded from the loss"):
        build_preferences(Dataset.from_list([pair]), tokenizer, stops=stops, max_length=None)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([user("a"), assistant("b", weight=0.5)], r"turn 1 \(assistant\), weight: got 0.5, expected 0, 1"),
        ([user("a"), assistant("b", train="no")], "train: got str, expected 0, 1"),
        ([{**user("a"), "train": True}, assistant("b")], r"turn 0 \(user\), loss: got a turn that no assistant"),
        ([user("a"), assistant("b", train_detail=[{"begin": 0}])], "train_detail: got a key that is not supported"),
    ],
)
def test_loss_keys_that_cannot_be_followed_are_refused(turns: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(DataError, match=f"row 0 .*{reason}"):
        build("chatml", {"messages": turns})


def test_keys_that_hold_words_are_rendered_or_refused() -> None:
    thought = {"messages": [user("a"), assistant("b", reasoning_content="THOUGHT")]}
    assert "THOUGHT" in trained("qwen3", thought)
    assert "reasoning_content that the chat template omits" in refusal("gemma3", thought)
    earlier = {"messages": [user("a"), assistant("b", reasoning_content="THOUGHT"), user("c"), assistant("d")]}
    assert len(build("qwen3", earlier, train_on_assistant_turns="last")) == 1, (
        "templates drop earlier thoughts when they ask"
    )
    calls = {"messages": [user("a"), assistant("I add.", tool_calls=call(a=1))]}
    assert "tool_calls that the chat template omits" in refusal("phi3", calls)
    legacy = {"messages": [user("a"), assistant("b", function_call={"name": "add", "arguments": "{}"})]}
    assert "function_call that the chat template omits" in refusal("chatml", legacy)
    tools = {"messages": [user("a"), assistant("b")], "tools": CONVERSATIONS["tools"]["tools"]}
    assert "tools: got tools that the chat template omits" in refusal("chatml", tools)
    named = {"messages": [{**user("a"), "name": "Ada"}, assistant("b", name="Bot")]}
    assert len(build("chatml", named)) == 1, "names go to the template, which may use them"


@pytest.mark.parametrize("name", NAMES)
def test_no_conversation_of_known_roles_is_refused_for_lost_words(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    if name.startswith("deepseekv3"):
        pytest.skip("refuses all of them, for what it asks with")
    rows = Dataset.from_list([{"id": case, **conversation} for case, conversation in CONVERSATIONS.items()])
    for turns in ("all", "last"):
        options = {"on_invalid_example": "skip", "train_on_assistant_turns": turns, "date": DAY}
        for bad in build_examples(rows, tokenizer, stops=stops, max_length=None, **options).bad_rows:
            if "whose turn the chat template omits" in bad.reason or "got tools that" in bad.reason:
                text = ChatTemplate(tokenizer, date=DAY).text(**CONVERSATIONS[bad.id])
                assert bad.id == "tools" and "Add two numbers." not in text, f"{bad.id}: {bad.reason}"


def test_nulls_that_arrow_pads_with_are_dropped_and_those_of_json_are_kept(tmp_path: Path) -> None:
    def turns(name: str, **arguments: Any) -> list[dict[str, Any]]:
        answer = {"role": "tool", "name": name, "content": "4"}
        return [user("2+2?"), assistant("", tool_calls=call(name, **arguments)), answer, assistant("4.")]

    def tool(name: str, **properties: Any) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}]

    kind = {"type": "string"}
    rows = [
        {"messages": turns("weather", city="Paris"), "tools": tool("weather", city=kind)},
        {"messages": turns("calc", expr={"a": 1}), "tools": tool("calc", expr=kind),
         "chat_template_kwargs": {"enable_thinking": False}},
    ]  # fmt: skip
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    tokenizer, stops = tokenizer_of("qwen3")
    for dataset in (Dataset.from_list(rows), Dataset.from_parquet(str(tmp_path / "rows.parquet"))):
        for example in build_examples(dataset, tokenizer, stops=stops, max_length=None):
            text = tokenizer.decode(example.reference_row()["input_ids"])
            assert "null" not in text and "None" not in text and not example.template_kwargs_json.count("null")
    meant = {"messages": turns("calc", expr=None, unit="m")}
    (tmp_path / "rows.jsonl").write_text(json.dumps(meant) + "\n" + json.dumps({"messages": turns("b", x=[1])}))
    dataset = Dataset.from_json(str(tmp_path / "rows.jsonl"))
    if "Json" in str(dataset.features):  # datasets 5
        texts = [
            tokenizer.decode(example.reference_row()["input_ids"])
            for example in build_examples(dataset, tokenizer, stops=stops, max_length=None)
        ]
        assert '"expr": null' in texts[0]


def test_rows_that_are_trained_whole_lose_no_turn() -> None:
    options = {"assistant_only_loss": False, "completion_only_loss": False}
    for row in ({"messages": [{"role": "human", "content": "q"}, assistant("a")]},
                {"prompt": [{"role": "human", "content": "q"}], "completion": [assistant("a")]}):  # fmt: skip
        assert "the chat template omits" in refusal("qwen2_5", row, **options), row
    rendered = whole("qwen2_5", {**CONVERSATIONS["tools"]}, **options)
    assert "three" in rendered and "Add two numbers." in rendered
    pair = {"prompt": CONVERSATIONS["tools"]["messages"][:1], "completion": CONVERSATIONS["tools"]["messages"][1:]}
    (example,) = build("qwen2_5", {**pair, "tools": CONVERSATIONS["tools"]["tools"]}, assistant_only_loss=False)
    tokenizer, _ = tokenizer_of("qwen2_5")
    assert "Add two numbers." in tokenizer.decode(example.prompt), "asked with the tools"
