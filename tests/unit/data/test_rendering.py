"""Templates that raise anything, never end or fill the memory; rows that hold what no text can."""

from __future__ import annotations

import time
from typing import Any

import pytest
from datasets import Dataset
from helpers.templates import assistant, byte_tokenizer, tokenizer_of, user

from gapbridge import ConfigError, DataError, build_examples
from gapbridge.data import rendering
from gapbridge.data.chat_template import ChatTemplate
from gapbridge.data.eos_check import missing_eos_error
from gapbridge.methods.rac.rows import CorrectionTemplates


OK = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROW = {"messages": [user("Ask."), assistant("First.")]}


def build(template: str, *rows: dict[str, Any], **options: Any) -> Any:
    tokenizer = byte_tokenizer(template, ["<|im_end|>"])
    stops = [tokenizer.eos_token_id]
    return build_examples(Dataset.from_list(list(rows)), tokenizer, stops=stops, max_length=None, **options)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1/0 }}",
        "{{ 1.0e308 ** 9 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ none.x.y }}",
        "{{ [][5] + 1 }}",
        "{{ 'a' + 1 }}",
        "{{ messages | no_such_filter }}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ '%d' | format('x') }}",
        "{% include 'other' %}",
    ],
)
def test_whatever_a_template_raises_is_a_bad_row_or_a_named_error(template: str) -> None:
    with pytest.raises((DataError, ConfigError), match="chat.template"):
        build(OK + template, ROW)
    tokenizer = byte_tokenizer(OK + template, ["<|im_end|>"])
    assert missing_eos_error(ChatTemplate(tokenizer), [tokenizer.eos_token_id]) is None
    with pytest.raises((DataError, ConfigError)):
        ChatTemplate(tokenizer).prompt_ids([user("Ask.")])
    with pytest.raises(ConfigError):
        CorrectionTemplates(tokenizer, "Again?", [tokenizer.eos_token_id], conversational=True).of({})


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{{ 1 if false }}{% endfor %}{% endfor %}",
    "power": "{{ (10**10)**(10**9) }}",
    "text": "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "product": "{{ ('a' * 10**11) | length }}",
    "long": "{{ 'a' * 60000000 }}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_never_ends_or_fills_the_memory_is_a_named_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "MAX_SECONDS", 1)
    monkeypatch.setattr(rendering, "_MAX_BYTES", 1 << 28)
    begun = time.process_time()
    for _ in range(2):  # tried once
        with pytest.raises(ConfigError, match="chat_template: .* expected a text.*Correct"):
            build(OK + ENDLESS[kind], ROW)
    assert time.process_time() - begun < 1, "not in this process"


def test_a_template_that_ends_for_the_first_row_alone_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MAX_SECONDS", 0.3)
    template = OK + "{% if messages[0].content == 'LOOP' %}" + ENDLESS["loops"] + "{% endif %}"
    with pytest.raises(ConfigError, match="more than .* seconds"):
        build(template, ROW, {"messages": [user("LOOP"), assistant("b")]})


def test_halves_of_surrogates_large_numbers_and_deep_nesting_are_bad_rows() -> None:
    tokenizer, stops = tokenizer_of("qwen3")
    deep: Any = {}
    for _ in range(900):
        deep = {"a": deep}
    odd = [
        [{"role": "user", "content": "a\ud800"}, assistant("b")],
        [user("a"), assistant("b", reasoning_content="\udc00")],
        [{"role": "user\ud800", "content": "a"}, assistant("b")],
        [{"role": 5, "content": "a"}, assistant("b")],
        [user("a"), assistant("", tool_calls=[{"function": {"name": "f", "arguments": {"x": 10**5000}}}])],
        [user("a"), assistant("", tool_calls=[{"function": {"name": "f", "arguments": deep}}])],
        [user("a"), assistant("", tool_calls="no list")],
        [user("a"), assistant("b", weight=10**5000)],
    ]
    from gapbridge.data.loss_scope import LossScope
    from gapbridge.data.tokenization import RowTokeniser

    tokenise = RowTokeniser(ChatTemplate(tokenizer), "messages", frozenset(stops), None, False, LossScope())
    for messages in odd:
        told = tokenise({"messages": messages, "id": 10**5000})
        assert told["error"] or told["prompt"], messages
        assert told["error"].encode() or True
    assert all(tokenise({"messages": messages})["error"] for messages in odd[:5])
    for options in ({"tokenize": True}, {"x": 10**5000}, "text", [1]):
        told = tokenise({**ROW, "chat_template_kwargs": options, "id": "\ud800"})
        assert told["id"].encode() and told["error"], options
    for tools in ("[" * 100_000, "1" * 5000, "{", 5):
        assert tokenise({**ROW, "tools": tools})["error"], str(tools)[:10]
