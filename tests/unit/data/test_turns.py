"""Several assistant turns, borders, stop tokens and dates: what is trained, what is asked, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from datasets import Dataset
from helpers.templates import SYSTEM, assistant, byte_tokenizer, tokenizer_of, user
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from gapbridge import ConfigError, DataError, build_examples
from gapbridge.data.chat_template import ChatTemplate, on_date
from gapbridge.data.example import Example, ExampleSet, split_turns
from gapbridge.data.special_tokens import UndecodableTokens, completion_end
from gapbridge.methods.rac.rows import CorrectionTemplates


TURNS = [user("What is 1+1?"), assistant("It is 2."), user("And 2+2?"), assistant("It is 4.")]
TURNS += [user("3?"), assistant("6")]
ROWS = [
    {"messages": TURNS},
    {"messages": [{"role": "system", "content": "hi"}, *TURNS[:4]]},
    {"messages": TURNS[:2]},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Mistral-7B-Instruct-v0.3's place for the system text: before a user turn that is the last turn of all.
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% if loop.last and system is defined %}{{ '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def build(rows: list[dict[str, Any]], tokenizer: Any, stops: list[int] | None = None, **options: Any) -> ExampleSet:
    stops = stops or [tokenizer.eos_token_id]
    return build_examples(Dataset.from_list(rows), tokenizer, stops=stops, **{"max_length": 128, **options})


def test_every_assistant_turn_is_trained_as_in_trl(tokenizer: Any, tmp_path: Path) -> None:
    ours = [example.reference_row() for example in build(ROWS, tokenizer)]
    args = SFTConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=128, assistant_only_loss=True
    )
    model = AutoModelForCausalLM.from_pretrained(BASE)
    trainer = SFTTrainer(model, args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer)
    assert ours == [{key: row[key] for key in ("input_ids", "labels")} for row in trainer.train_dataset]
    assert sum(label != -100 for label in ours[0]["labels"]) > sum(label != -100 for label in ours[2]["labels"])


def test_turns_are_examples_of_their_own(tokenizer: Any) -> None:
    stops = [tokenizer.eos_token_id]
    examples = build([{"id": "a", **ROWS[0]}, {"id": "b", **ROWS[2]}], tokenizer)
    turns = list(examples.split_turns(stops))
    assert [turn.id for turn in turns] == ["a#1", "a#2", "a#3", "b"]
    assert [tokenizer.decode(turn.completion_ids) for turn in turns[:3]] == [
        "It is 2.<|end|>", "It is 4.<|end|>", "6<|end|>"
    ]  # fmt: skip
    for turn, end in zip(turns, (1, 3, 5, 1)):
        asked = tokenizer.apply_chat_template(TURNS[:end], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert turn.prompt == turn.generation_prompt_ids == asked and all(turn.loss_mask)
    single = build(ROWS[2:], tokenizer)
    assert single.split_turns(stops) is single
    with pytest.raises(DataError, match="a turn"):
        build([{"id": "a", **ROWS[0]}, {"id": "a#2", **ROWS[2]}], tokenizer).split_turns(stops)


def test_the_fingerprint_tells_what_is_trained(tokenizer: Any) -> None:
    (row,) = build(ROWS[:1], tokenizer)
    full = ExampleSet(Dataset.from_list([vars(row)]), [], "", 0, 0, True)
    all_trained = ExampleSet(Dataset.from_list([{**vars(row), "loss_mask": None}]), [], "", 0, 0, True)
    assert full.fingerprint() == build(ROWS[:1], tokenizer).fingerprint() != all_trained.fingerprint()


def test_the_embedded_data_keep_their_fingerprint(tokenizer: Any) -> None:
    """Stores carry it: contexts that were built before stay valid."""
    data = Dataset.from_json(str(BASE.parent / "data" / "test.jsonl"))
    examples = build_examples(data, tokenizer, stops=[tokenizer.eos_token_id], max_length=512)
    assert examples.fingerprint() == "712714226ae586b38fb59261bf341be2"


def test_long_conversations_are_cut_with_their_flags(tokenizer: Any) -> None:
    (full,) = build(ROWS[:1], tokenizer)
    room = len(full.prompt) + 20
    (cut,) = build(ROWS[:1], tokenizer, max_length=room, truncate_overlong=True)
    assert len(cut.prompt) + len(cut.completion_ids) == room and cut.loss_mask == full.loss_mask[:20]
    with pytest.raises(DataError, match="row 0 .*over-length.*\n.*truncate_overlong: true.*on_invalid_example: skip"):
        build(ROWS[:1], tokenizer, max_length=room)


def test_a_conversation_must_not_start_with_an_answer(tokenizer: Any) -> None:
    rows = [{"messages": [assistant("Hello."), *TURNS]}]
    with pytest.raises(DataError, match="got an assistant turn at the start.*train_on_assistant_turns: last"):
        build(rows, tokenizer)
    assert len(build(rows, tokenizer, train_on_assistant_turns="last")) == 1
    with pytest.raises(ConfigError, match="train_on_assistant_turns: got 'first'"):
        build(rows, tokenizer, train_on_assistant_turns="first")


def test_system_text_that_leaves_an_answered_conversation_is_refused() -> None:
    tokenizer = byte_tokenizer(MISTRAL, ["</s>"])
    assert len(build([{"messages": TURNS}], tokenizer)) == 1
    with pytest.raises(DataError, match="got a prompt rendered as .*Be brief.* alone and as"):
        build([{"messages": [SYSTEM, *TURNS[:2]]}], tokenizer)


def test_a_template_without_marks_is_cut_by_its_prompts() -> None:
    tokenizer = byte_tokenizer(CHATML, ["<|im_end|>"])
    (example,) = build([{"messages": TURNS}], tokenizer, max_length=None)
    trained = [token for token, loss in zip(example.completion_ids, example.loss_mask) if loss]
    assert tokenizer.decode(trained) == "It is 2.<|im_end|>\nIt is 4.<|im_end|>\n6<|im_end|>"
    assert tokenizer.decode(example.template_suffix_ids) == "\n"


def test_tokens_across_the_border_of_a_chat_are_taken_apart() -> None:
    """The header ends with a line break, the answer begins with one, and two of them are one token."""
    tokenizer = byte_tokenizer(CHATML, ["<|im_end|>"])
    turns = [user("a"), assistant("\nb"), user("c"), assistant("\nd\n\ne")]
    for rows, ends in (([{"messages": turns[:2]}], (1,)), ([{"messages": turns}], (1, 3))):
        examples = build(rows, tokenizer)
        (example,) = examples
        row = example.reference_row()
        full = tokenizer.apply_chat_template(rows[0]["messages"], return_dict=True)["input_ids"]
        assert len(row["input_ids"]) == len(full) + len(ends) and tokenizer.decode(row["input_ids"]) == (
            tokenizer.decode(full)
        )
        assert examples.num_boundary_merges == 0
        for turn, end in zip(split_turns(example, [tokenizer.eos_token_id]), ends):
            prompt = tokenizer.apply_chat_template(turns[:end], add_generation_prompt=True, tokenize=False)
            assert tokenizer.decode(turn.prompt) == prompt and tokenizer.decode(turn.completion_ids).startswith("\n")


def test_tokens_across_the_border_of_a_text_are_asked_for_whole(tokenizer: Any) -> None:
    examples = build([{"prompt": "a ston", "completion": "es more"}], tokenizer)
    (example,) = examples
    assert examples.num_boundary_merges == 1 and example.generation_prompt_ids == tokenizer("a ston")["input_ids"]
    assert example.prompt == example.generation_prompt_ids[: len(example.prompt)] != example.generation_prompt_ids
    (full,) = build([{"prompt": "a stone\n", "completion": "b"}], tokenizer)
    assert full.generation_prompt_ids == full.prompt


def test_pieces_that_cannot_be_tokenised_apart_keep_the_row_whole() -> None:
    """SentencePiece puts a space before a piece: the row stays TRL's, and what is asked is kept beside it."""
    characters = sorted({*"ab▁\n<|im_start>user_assistant", "▁b"})
    backend = Tokenizer(models.BPE({c: at for at, c in enumerate(characters)}, [("▁", "b")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="|")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ ' ' if add_generation_prompt }}"
    (example,) = build([{"messages": [user("a"), assistant(" b|")]}], tokenizer)
    assert tokenizer.convert_ids_to_tokens(example.completion_ids) == ["▁b", "|"]
    assert tokenizer.convert_ids_to_tokens(example.prompt) == ["▁", "a"]
    assert tokenizer.convert_ids_to_tokens(example.generation_prompt_ids) == ["▁", "a", "▁"]


def test_an_answer_ends_at_the_first_stop_token_after_its_words() -> None:
    tokenizer, stops = tokenizer_of("phi3")
    (example,) = build([{"messages": TURNS[:2]}], tokenizer, stops)
    assert tokenizer.decode(example.completion_ids) == "It is 2.<|end|>"
    assert tokenizer.decode(example.template_suffix_ids) == "\n<|endoftext|>"
    fillers = UndecodableTokens(tokenizer, stops)
    assert completion_end([*stops, 70, 198], stops, fillers) == 0, "a stop token before the last word ends nothing"
    assert completion_end([70, 198, stops[1], stops[0]], stops, fillers) == 3


@pytest.mark.parametrize(("name", "closing"), [("gemma", "<end_of_turn>"), ("gptoss", "<|end|>"), ("phi3", "<|end|>")])
def test_turns_are_closed_with_the_templates_own_token(name: str, closing: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    close, _ = CorrectionTemplates(tokenizer, "Again?", stops, conversational=True).of({})
    assert tokenizer.convert_ids_to_tokens(close) == closing != tokenizer.eos_token


def test_a_cue_takes_the_arguments_of_the_template() -> None:
    tokenizer, stops = tokenizer_of("qwen3_5_think")
    _, cue = CorrectionTemplates(tokenizer, "Again?", stops, conversational=True).of({})
    assert tokenizer.decode(cue).endswith("assistant\n<think>\n")
    arguments = {"enable_thinking": False}
    _, cue = CorrectionTemplates(tokenizer, "Again?", stops, conversational=True).of(arguments)
    assert tokenizer.decode(cue).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", ["llama3_2", "gptoss", "muse_glimmer"])
def test_the_date_is_the_runs(name: str) -> None:
    tokenizer, stops = tokenizer_of(name)
    rows = [{"messages": TURNS}]
    old, new = (build(rows, tokenizer, stops, max_length=None, date=day) for day in ("2024-07-01", "2024-07-02"))
    assert old.fingerprint() != new.fingerprint()
    assert old.fingerprint() == build(rows, tokenizer, stops, max_length=None, date="2024-07-01").fingerprint()
    (example,) = old
    text = tokenizer.decode(example.prompt)
    assert "01 Jul 2024" in text or "2024-07-01" in text
    now = ChatTemplate(tokenizer).text(TURNS)
    assert example.prompt != ChatTemplate(tokenizer).ids(TURNS[:1], ask=True) and len(now) == len(
        ChatTemplate(tokenizer, date="2024-07-01").text(TURNS)
    ), "nothing but the date differs"


def test_dates_that_cannot_be_kept_are_refused() -> None:
    assert on_date("{{ messages }}", "nonsense") == "{{ messages }}", "a template without a date needs none"
    with pytest.raises(ConfigError, match="expected a day"):
        on_date("{{ strftime_now('%Y') }}", "yesterday")
    with pytest.raises(ConfigError, match="a computed format"):
        on_date("{{ strftime_now(format) }}", "2024-07-01")


def test_an_example_is_trained_whole_and_asked_its_prompt_by_default() -> None:
    example = Example("a", [1], [2, 3], [4])
    assert example.loss_mask == [True, True] and example.generation_prompt_ids == [1]
    assert example.reference_row() == {"input_ids": [1, 2, 3, 4], "labels": [-100, 2, 3, 4]}
