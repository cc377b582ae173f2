"""Pause tokens: where they stand, that nothing ever asks for one, and adapters train their rows alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset
from helpers import built_rows
from helpers.paused import COMMON, chats, examples_of, pause, prompts, texts, trainer_of, untied
from helpers.small_runs import MakeBase
from hypothesis import given
from hypothesis import strategies as st
from peft import AutoPeftModelForCausalLM, LoraConfig, LoraModel, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import ConfigError, DataError, PauseConfig, PauseTrainer, build_preferences
from gapbridge.data.pauses import pause_id, pauses_after_prompt
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.methods.pause.inference import generate, paused_prompt
from gapbridge.methods.pause.rows import mask_pauses, with_random_pauses
from gapbridge.store.fingerprint import tokenizer_fingerprint, weights_fingerprint
from gapbridge.training.loading import load_model


PAUSE = 96
rows = st.lists(st.tuples(st.integers(0, 95), st.booleans()), min_size=1, max_size=12).map(
    lambda pairs: {
        "id": "a",
        "input_ids": [token for token, _ in pairs],
        "labels": [token if loss else -100 for token, loss in pairs],
        "sampled": [False] * len(pairs),
    }
)


def test_changing_the_number_changes_so_many_positions_at_the_end_of_the_prompt(own_tokenizer: Any) -> None:
    merged = Dataset.from_list([{"id": "1", "prompt": "How man", "completion": "y coins"}])
    assert [e.generation_prompt_ids != e.prompt for e in examples_of(merged, own_tokenizer)] == [True], (
        "a token across the border"
    )
    for dataset in (chats(), texts(), merged):
        plain = list(examples_of(dataset, AutoTokenizer.from_pretrained(BASE)))
        for count in (0, 1, 7):
            index = pause(None, own_tokenizer, count)
            for before, after in zip(plain, examples_of(dataset, own_tokenizer), strict=True):
                added = [index] * count
                assert (after.prompt, after.generation_prompt_ids) == (
                    [*before.prompt, *added],
                    [*before.generation_prompt_ids, *added],
                )
                for name in ("completion_ids", "template_suffix_ids", "loss_mask"):
                    assert vars(after)[name] == vars(before)[name]
                assert after.id == before.id
                row = after.reference_row()
                assert index not in row["labels"]
                assert [token for token in row["input_ids"] if token != index] == before.reference_row()["input_ids"]


def test_a_conversation_is_asked_once_a_turn(own_tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = Dataset.from_list(
        [{"messages": [*turns, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}]
    )
    (full,) = examples_of(data, own_tokenizer)
    index = pause(None, own_tokenizer, 2)
    first, second = examples_of(data, own_tokenizer)
    assert own_tokenizer.decode(first.prompt) == "<|user|>a<|end|><|assistant|><|pause|><|pause|>"
    asked = "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>"
    assert own_tokenizer.decode(second.prompt) == f"{asked}<|pause|><|pause|>"
    assert second.prompt == [*own_tokenizer(asked)["input_ids"], index, index]
    assert [own_tokenizer.decode(e.completion_ids) for e in (first, second)] == ["b<|end|>", "d<|end|>"]
    assert full.prompt == first.prompt[:-2]


def test_pauses_need_room_and_pairs_have_them(own_tokenizer: Any) -> None:
    dataset = chats(2)
    longest = max(len(e.reference_row()["input_ids"]) for e in examples_of(dataset, own_tokenizer))
    index = pause(None, own_tokenizer, 3)
    assert examples_of(dataset, own_tokenizer, max_length=longest + 3)
    with pytest.raises(DataError, match="over-length"):
        examples_of(dataset, own_tokenizer, max_length=longest + 2)
    pair = Dataset.from_list([{"prompt": "a\n", "chosen": "b", "rejected": "c"}])
    (found,) = build_preferences(pair, own_tokenizer, stops=stop_tokens(own_tokenizer), max_length=None)
    assert found.prompt[-3:] == [index] * 3 and index not in found.completion_ids + found.rejected


@given(row=rows, count=st.integers(0, 8), seed=st.integers(0, 3))
def test_random_pauses_leave_the_row_and_its_labels(row: dict[str, Any], count: int, seed: int) -> None:
    found = with_random_pauses(row, PAUSE, count, seed)
    remaining = [at for at, token in enumerate(found["input_ids"]) if token != PAUSE]
    for name in ("input_ids", "labels", "sampled"):
        assert [found[name][at] for at in remaining] == row[name]
    inserted = set(range(len(found["input_ids"]))) - set(remaining)
    assert len(inserted) == (count if len(row["input_ids"]) > 1 else 0)
    assert all(found["labels"][at] == -100 for at in inserted)
    assert not inserted & {0, len(found["input_ids"]) - 1}, "each between two tokens"
    assert found == with_random_pauses(row, PAUSE, count, seed)


def test_pauses_fall_everywhere_and_differ_by_row() -> None:
    row = {"input_ids": [1] * 21, "labels": [1] * 21, "sampled": [False] * 21}
    places: dict[int, int] = dict.fromkeys(range(1, 21), 0)
    for number in range(400):
        at = with_random_pauses({**row, "id": str(number)}, PAUSE, 1, 0)["input_ids"].index(PAUSE)
        places[at] += 1
    assert min(places.values()) >= 5 and max(places.values()) <= 45, "400 pauses over 20 places"


def test_another_seed_puts_pauses_elsewhere() -> None:
    row = {"id": "a", "input_ids": [1] * 40, "labels": [1] * 40, "sampled": [False] * 40}
    found = [tuple(with_random_pauses(row, PAUSE, 6, seed)["input_ids"]) for seed in range(5)]
    assert len(set(found)) == 5


@pytest.mark.parametrize("placement", ["after_prompt", "random"])
def test_a_trainer_asks_for_no_pause_that_the_data_hold(
    placement: str, own_tokenizer: Any, make_base: MakeBase, tmp_path: Path
) -> None:
    """Answers that quote the token: it stands in the row, and nothing is to predict it."""
    data = Dataset.from_list(
        [{"id": str(at), "prompt": "Count.\n", "completion": f"one <|pause|> two <|pause|> {at}"} for at in range(4)]
    )
    args = PauseConfig(str(tmp_path), **COMMON, num_pause_tokens=2, pause_placement=placement)
    trainer = PauseTrainer(make_base(), args=args, train_dataset=data, processing_class=own_tokenizer)
    index = pause_id(own_tokenizer)
    for row in trainer.row_ids:
        quoted = [at for at, token in enumerate(row["input_ids"]) if token == index]
        assert len(quoted) >= 2 and not any(label == index for label in row["labels"])
        assert sum(label != -100 for label in row["labels"]) >= 4, "the words are learnt all the same"


def test_no_label_asks_for_a_pause_that_the_data_hold() -> None:
    row = {"id": "a", "input_ids": [1, PAUSE, PAUSE, 2], "labels": [-100, PAUSE, PAUSE, 2], "sampled": [False] * 4}
    mask_pauses(row, PAUSE)
    assert row["labels"] == [-100, -100, -100, 2]


def test_without_pauses_nothing_is_added(own_tokenizer: Any, make_base: MakeBase) -> None:
    """The rest of M = 0 is in the contract: losses and weights are SFT's."""
    model, before = make_base(), tokenizer_fingerprint(own_tokenizer)
    weights = weights_fingerprint(model)
    for options in ({"num_pause_tokens": 0}, {"pause_placement": "random", "pause_fraction": 0.0}):
        PauseTrainer.setup_model(model, own_tokenizer, PauseConfig("unused", **{**COMMON, **options}))
    assert tokenizer_fingerprint(own_tokenizer) == before and weights_fingerprint(model) == weights
    pause(model, own_tokenizer, 5)
    PauseTrainer.setup_model(model, own_tokenizer, PauseConfig("unused", **COMMON, num_pause_tokens=0))
    assert pauses_after_prompt(own_tokenizer) == [], "a model that was paused is asked without"


@pytest.mark.parametrize("tied", [True, False])
def test_the_new_rows(tied: bool, own_tokenizer: Any, make_base: MakeBase) -> None:
    model = make_base() if tied else untied(make_base())
    if not tied:
        model.get_output_embeddings().weight.data.mul_(2)
    before = [layer.weight.clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    index = pause(model, own_tokenizer)
    found = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert (found[0] is found[1]) == tied and index == 512 and len(found[0]) == 513 == model.config.vocab_size
    for old, new in zip(before, found, strict=True):
        assert torch.equal(old, new[:512])
        torch.testing.assert_close(new[index], old.mean(0))
    assert index in model.generation_config.suppress_tokens


def test_rows_that_pad_the_vocabulary_are_no_part_of_the_mean(own_tokenizer: Any, make_base: MakeBase) -> None:
    """A model whose embedding has more rows than its tokenizer has tokens, as many published ones."""
    padded, plain = make_base(), make_base()
    padded.resize_token_embeddings(576, mean_resizing=False)
    with torch.no_grad():
        padded.get_input_embeddings().weight[512:] = 50.0
    pause(plain, AutoTokenizer.from_pretrained(BASE))
    index = pause(padded, own_tokenizer)
    assert index == 512 and len(padded.get_input_embeddings().weight) == 576
    rows = [model.get_input_embeddings().weight[index] for model in (padded, plain)]
    torch.testing.assert_close(*rows)


def test_a_second_time_nothing_is_added(own_tokenizer: Any, make_base: MakeBase, tmp_path: Path) -> None:
    model = make_base()
    pause(model, own_tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight[512] += 1  # as if trained
    for folder, part in (("model", model), ("model", own_tokenizer)):
        part.save_pretrained(tmp_path / folder)
    for again, tokenizer in (
        (model, own_tokenizer),
        (AutoModelForCausalLM.from_pretrained(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")),
    ):
        before, own = weights_fingerprint(again), tokenizer_fingerprint(tokenizer)
        pause(again, tokenizer)
        assert (weights_fingerprint(again), tokenizer_fingerprint(tokenizer)) == (before, own)
        assert pauses_after_prompt(tokenizer) == [512] * 3
    with pytest.raises(ConfigError, match="expected '<|pause|>', the pause token".replace("|", r"\|")):
        pause(model, own_tokenizer, token="<wait>")


def test_a_special_token_that_nothing_uses_needs_no_growing(own_tokenizer: Any, make_base: MakeBase) -> None:
    model = make_base()
    before = model.get_input_embeddings().weight.clone()
    assert pause(model, own_tokenizer, token="<|system|>") == 2, "the data here have no system turn"
    after = model.get_input_embeddings().weight
    assert len(after) == len(own_tokenizer) == 512
    torch.testing.assert_close(after[2], (before.sum(0) - before[2]) / 511)


@pytest.mark.parametrize(
    ("token", "message"), [("a", "a token of text"), ("<|end|>", "uses, expected"), ("<|user|>", "uses, expected")]
)
def test_tokens_that_mean_something_are_refused(token: str, message: str, own_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        pause(None, own_tokenizer, token=token)


def test_wrong_options_are_listed() -> None:
    with pytest.raises(ConfigError) as error:
        PauseConfig(
            "unused", **COMMON, num_pause_tokens=-1, pause_placement="before", pause_fraction=1.5, pause_token=" "
        )
    assert len(error.value.errors) == 4


def test_what_cannot_be_paused_is_refused(own_tokenizer: Any, make_base: MakeBase) -> None:
    adapter = PeftModel(make_base(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match="Merge the adapter"):
        pause(adapter, own_tokenizer)
    with pytest.raises(
        ConfigError, match="tokenizer: got no pause token.*Train the model with `gapbridge pause` first"
    ):
        paused_prompt(AutoTokenizer.from_pretrained(BASE), "a")


def test_pause_pretraining(own_tokenizer: Any, make_base: MakeBase, tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        make_base(),
        own_tokenizer,
        pause_placement="random",
        pause_fraction=0.2,
        eval_dataset=chats(2, "test"),
    )
    index = pause_id(own_tokenizer)
    plain = list(examples_of(chats(), AutoTokenizer.from_pretrained(BASE)))
    for row, example in zip(trainer.row_ids, plain, strict=True):
        without = example.reference_row()["input_ids"]
        assert [token for token in row["input_ids"] if token != index] == without
        assert row["input_ids"].count(index) == round(0.2 * len(without)) > 0
        assert index not in row["labels"] and index not in row["input_ids"][-1:]
    assert trainer.stats.pauses == sum(row["input_ids"].count(index) for row in trainer.row_ids)
    assert not any(index in row["input_ids"] for row in trainer.eval_dataset), "none are asked for later"
    assert pauses_after_prompt(own_tokenizer) == []
    longest = max(len(example.reference_row()["input_ids"]) for example in plain)
    tight = trainer_of(
        tmp_path, make_base(), own_tokenizer, pause_placement="random", pause_fraction=0.2, max_length=longest
    )
    assert max(len(row["input_ids"]) for row in tight.row_ids) == longest and tight.stats.truncated >= 1


def rows_at_random(tokenizer: Any, folder: Path, dataset: Dataset, **options: Any) -> tuple[list[Any], Any]:
    """The rows of a configuration with random pauses, and their counts."""
    args = PauseConfig(str(folder), **{**COMMON, "pause_placement": "random", **options})
    long = {"max_length": args.max_length, "truncate_overlong": args.truncate_overlong}
    examples = examples_of(dataset, tokenizer, **long)
    return built_rows(PauseTrainer, ((e, {}) for e in examples), examples, tokenizer, args)


@pytest.mark.parametrize("make", [texts, chats])
@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_pauses_push_the_end_of_full_rows_out(fraction: float, make: Any, own_tokenizer: Any, tmp_path: Path) -> None:
    """The paper's: 0.1 N pauses into N tokens, and the first N of all are kept."""
    index, dataset = pause(None, own_tokenizer, 0), make()
    lengths = [len(e.reference_row()["input_ids"]) for e in examples_of(dataset, own_tokenizer)]
    full = min(lengths)
    options = {"max_length": full, "truncate_overlong": True, "pause_fraction": fraction}
    rows, stats = rows_at_random(own_tokenizer, tmp_path, dataset, **options)
    assert {len(row["input_ids"]) for row in rows} == {full}
    assert stats.truncated + stats.incomplete == len(rows) and stats.truncated > len(rows) / 2
    expected = full * fraction / (1 + fraction)
    assert stats.pauses / len(rows) == pytest.approx(expected, rel=0.35)
    for row in rows:
        assert len(row["labels"]) == len(row["sampled"]) == full and index not in row["labels"]
        assert any(label != -100 for label in row["labels"])
    assert stats.warnings(PauseConfig(str(tmp_path), **COMMON)) == []
    assert f"{stats.truncated} rows truncated because of their pauses" in stats.summary()


def test_rows_that_pauses_would_rob_of_all_loss_keep_it(own_tokenizer: Any, tmp_path: Path) -> None:
    pause(None, own_tokenizer, 0)
    dataset = Dataset.from_list([{"prompt": "apples and pens " * 20, "completion": "ok"}])
    (length,) = (len(e.reference_row()["input_ids"]) for e in examples_of(dataset, own_tokenizer))
    options = {"max_length": length, "truncate_overlong": True, "pause_fraction": 0.5}
    (row,), stats = rows_at_random(own_tokenizer, tmp_path, dataset, **options)
    assert any(label != -100 for label in row["labels"]) and stats.incomplete == 1 and stats.truncated == 0


def test_pauses_without_room_are_said(own_tokenizer: Any, make_base: MakeBase, tmp_path: Path, caplog: Any) -> None:
    longest = max(len(e.reference_row()["input_ids"]) for e in examples_of(chats(), own_tokenizer))
    room = {"pause_placement": "random", "pause_fraction": 0.9, "truncate_overlong": False}
    trainer_of(tmp_path, make_base(), own_tokenizer, **room, max_length=longest).train()
    assert "pauses have room within max_length" in caplog.text and "truncate_overlong: true" in caplog.text
    caplog.clear()
    trainer_of(tmp_path, make_base(), own_tokenizer, **room, max_length=2 * longest).train()
    assert "have room" not in caplog.text


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_trains_the_pause_and_no_other_row(
    tied: bool, own_tokenizer: Any, make_base: MakeBase, tmp_path: Path
) -> None:
    """By value, before and after; and what is saved answers with the same tokens, however it is loaded."""
    base = make_base() if tied else untied(make_base())
    for part in (base, own_tokenizer):
        part.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    trainer = trainer_of(tmp_path / "run", model, own_tokenizer, peft_config=lora, save_merged_model=True)
    assert lora.trainable_token_indices is None, "the caller's is left alone"
    index = pause_id(own_tokenizer)

    def weights() -> list[torch.Tensor]:
        full = copy.deepcopy(trainer.model).merge_and_unload()
        return [layer.weight.detach().clone() for layer in (full.get_input_embeddings(), full.get_output_embeddings())]

    before = weights()
    trainer.train()
    after = weights()
    for old, new in zip(before, after, strict=True):
        changed = (old != new).any(1).nonzero().flatten().tolist()
        assert changed == [index], "that row alone"
    trainable = [
        name for name, value in trainer.model.named_parameters() if value.requires_grad and "lora_" not in name
    ]
    assert len(trainable) == (1 if tied else 2) and all("trainable_tokens_delta" in name for name in trainable)
    trainer.save_model(str(tmp_path / "saved"))
    wanted = generate(trainer.model, own_tokenizer, prompts(), max_completion_length=12)
    adapter, args = tmp_path / "saved" / "adapter", trainer.args
    for loaded, place in (
        (AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), tmp_path / "saved"),
        (load_model(adapter, args), adapter),
        (AutoPeftModelForCausalLM.from_pretrained(adapter), adapter),
    ):
        tokenizer = AutoTokenizer.from_pretrained(place)
        assert generate(loaded, tokenizer, prompts(), max_completion_length=12) == wanted


def test_an_adapter_is_trained_on_from_a_checkpoint(make_base: MakeBase, tmp_path: Path) -> None:
    def trainer(folder: str) -> PauseTrainer:
        lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
        tokenizer = AutoTokenizer.from_pretrained(BASE)
        options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        return trainer_of(tmp_path / folder, untied(make_base()), tokenizer, peft_config=lora, **options)

    full, resumed = trainer("whole"), trainer("resumed")
    full.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    weights = full.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())


def test_other_adapters_are_refused(own_tokenizer: Any, make_base: MakeBase, tmp_path: Path) -> None:
    from peft import IA3Config

    with pytest.raises(ConfigError, match="pause_token: got an adapter of type IA3.*expected LoRA"):
        trainer_of(tmp_path, make_base(), own_tokenizer, peft_config=IA3Config(task_type="CAUSAL_LM"))
    full = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    trainer = trainer_of(tmp_path, make_base(), own_tokenizer, peft_config=full)
    assert isinstance(trainer.model.base_model, LoraModel)
