"""A template without a stop token behind the answer is found on a placeholder, with the key that fixes it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BASE
from transformers import AutoTokenizer

from gapbridge.data.chat_template import ChatTemplate
from gapbridge.data.eos_check import missing_eos_error
from gapbridge.data.special_tokens import stop_tokens


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + END + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def fault(template: str, *, added: tuple[str, ...] = ("<|im_start|>", "<|im_end|>"), **tokens: str) -> str | None:
    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    tokenizer.chat_template = template
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    return missing_eos_error(ChatTemplate(tokenizer), stop_tokens(tokenizer))


def test_a_template_that_ends_with_the_stop_token_is_good() -> None:
    assert fault(CHATML.replace("END", "eos_token")) is None
    assert fault(CHATML.replace("END", "'<|im_end|>'"), eos_token="<|im_end|>") is None


def test_the_key_to_add_is_named() -> None:
    said = fault(CHATML.replace("END", "'<|im_end|>'"))
    assert (
        said is not None
        and "expected a stop token there (<|end|>)" in said
        and said.endswith("Add `eos_token: <|im_end|>`.")
    )
    quoted = fault(CHATML.replace("END", "'[/A]'"), added=("[/A]",))
    assert quoted is not None and quoted.endswith("Add `eos_token: '[/A]'`.")


def test_thoughts_before_the_answer_are_not_taken_for_its_end() -> None:
    thinking = CHATML.replace("message['content']", "'<think>' + message['content']").replace("END", "'<|im_end|>'")
    said = fault(thinking, added=("<think>", "<|im_start|>", "<|im_end|>"))
    assert said is not None and "eos_token: <|im_end|>" in said


@pytest.mark.parametrize("end", ["'<|im_end|>'", "''"])
def test_an_end_that_is_no_token_gets_another_way_out(end: str) -> None:
    said = fault(CHATML.replace("END", end), added=())
    assert said is not None and "Use a chat_template" in said and "{{ eos_token }} (<|end|>)" in said


def test_a_template_that_refuses_the_placeholder_says_nothing() -> None:
    assert fault("{{ raise_exception('three turns or none') }}") is None
