"""What a tokenizer adds by itself at either end of a text: it stands once before a prompt, and never behind one."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BASE
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from gapbridge import build_examples
from gapbridge.data.chat_template import ChatTemplate
from gapbridge.data.preferences import build_preferences
from gapbridge.methods.rac.correct import correct


EOS, BOS = "<|end|>", "<|user|>"  # tokens of the embedded base
KINDS = {
    "appends eos": "$A <|end|>",
    "appends two": "$A <|end|> <|pad|>",
    "puts bos": "<|user|> $A",
    "puts bos, appends eos": "<|user|> $A <|end|>",
    "bos is eos": "<|end|> $A <|end|>",
}


def adding(pattern: str) -> Any:
    """The embedded tokenizer, with a post-processor that adds tokens."""
    backend = AutoTokenizer.from_pretrained(BASE).backend_tokenizer
    named = [(token, backend.token_to_id(token)) for token in (EOS, BOS, "<|pad|>")]
    backend.post_processor = TemplateProcessing(single=pattern, special_tokens=named)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token="<|pad|>")


def rows_of(tokenizer: Any, prompt: str, *completions: str) -> list[Any]:
    rows = [{"prompt": prompt, "completion": completion} for completion in completions]
    return list(build_examples(Dataset.from_list(rows), tokenizer, stops=[tokenizer.eos_token_id], max_length=None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_asked_as_it_is_trained_and_is_not_finished(kind: str) -> None:
    tokenizer = adding(KINDS[kind])
    first = "" if KINDS[kind].startswith("$A") else KINDS[kind].split()[0]
    for prompt in ("What is 1+1?\n", f"{first}What is 1+1?\n"):
        (example,) = rows_of(tokenizer, prompt, "It is 2.")
        assert tokenizer.decode(example.prompt) == f"{first}What is 1+1?\n", "the tokenizer's BOS stands there once"
        assert tokenizer.decode(example.completion_ids) == f"It is 2.{EOS}" and not example.template_suffix_ids
        assert example.generation_prompt_ids == example.prompt == ChatTemplate(tokenizer).prompt_ids(prompt)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", ["", EOS, f"{EOS}\n", f"{EOS} \n\n", EOS + EOS, f"{EOS}\n{EOS}\n"])
def test_an_answer_ends_with_one_eos(kind: str, tail: str) -> None:
    tokenizer = adding(KINDS[kind])
    plain, example = rows_of(tokenizer, "What is 1+1?\n", "It is 2.", f"It is 2.{tail}")
    assert example.reference_row() == plain.reference_row()
    assert example.reference_row()["labels"].count(tokenizer.eos_token_id) == 1


def test_white_space_before_an_eos_is_the_answers(tokenizer: Any) -> None:
    (example,) = rows_of(tokenizer, "Ask.\n", f"It is 2.\n{EOS}\n")
    assert tokenizer.decode(example.completion_ids) == f"It is 2.\n{EOS}"


def test_preferences_and_corrections_ask_the_same(tokenizer: Any) -> None:
    appends = adding(KINDS["appends eos"])
    row = {"prompt": "What is 1+1?\n", "chosen": f"It is 2.{EOS}\n", "rejected": "It is 3."}
    ours, theirs = (
        list(build_preferences(Dataset.from_list([row]), one, stops=[one.eos_token_id], max_length=None))
        for one in (appends, tokenizer)
    )
    assert ours == theirs
    model = AutoModelForCausalLM.from_pretrained(BASE)
    answers = [correct(model, one, ["What is 1+1?\n"], max_completion_length=6) for one in (appends, tokenizer)]
    assert answers[0] == answers[1] and answers[0][0].first


def test_a_tokenizer_that_knows_no_probe_is_taken_as_it_is() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"x": 0, "y": 1, "|": 2}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="|")
    (example,) = rows_of(tokenizer, "x y", " y x ")
    assert example.prompt == [0, 1] and example.completion_ids == [1, 0, 2]
