"""DPO as a method: TRL's own rows, losses and weights on the same data, and every row that is no pair listed."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, ROOT
from datasets import Dataset
from helpers import load_data, write_rows
from helpers.small_runs import SMALL_RUN, MakeBase
from peft import LoraConfig
from transformers import AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer, ScriptArguments
from trl.scripts.utils import DatasetConfig

from gapbridge import ConfigError, DataError, GapDPOConfig, GapDPOTrainer, build_preferences
from gapbridge.data.preferences import Preference
from gapbridge.data.sources import DataConfig
from gapbridge.methods.dpo.config import PAIR_LOSSES
from gapbridge.tasks.word_problems import problems


Row = dict[str, Any]
COMMON: dict[str, Any] = {**SMALL_RUN, "max_length": 400, "max_steps": 3, "logging_steps": 1, "learning_rate": 0.001}


def chat(row: Row) -> Row:
    return row


def ultrafeedback(row: Row) -> Row:
    """`HuggingFaceH4/ultrafeedback_binarized`: whole conversations, the prompt as text, and the chosen one again."""
    chosen, rejected = row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]
    text = row["prompt"][0]["content"]
    return {
        "prompt": text, "prompt_id": row["id"], "chosen": chosen, "rejected": rejected, "messages": chosen,
        "score_chosen": 8.0, "score_rejected": 2.0,
    }  # fmt: skip


def implicit(row: Row) -> Row:
    return {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]}


def plain(row: Row) -> Row:
    answers = {name: row[name][0]["content"] for name in ("chosen", "rejected")}
    return {"prompt": row["prompt"][0]["content"] + "\n", **answers}


def merging(row: Row) -> Row:
    """Tokens merge across the border with one of the answers: TRL cuts the prompt of both, and so do we."""
    return {"prompt": "Count the pen", "chosen": "s of Ana now", "rejected": " of Ben"}


def pairs(form: Callable[[Row], Row] = chat, count: int = 12) -> Dataset:
    return Dataset.from_list([form(p.preference_row()) for p in problems("train", count=count, steps=(1, 2))])


def build(data: Dataset, tokenizer: Any, **options: Any) -> Any:
    return build_preferences(data, tokenizer, **{"stops": [tokenizer.eos_token_id], "max_length": None, **options})


def trl_trainer(folder: Path, model: PreTrainedModel, tokenizer: Any, data: Dataset, **options: Any) -> DPOTrainer:
    args = DPOConfig(str(folder), **{**COMMON, **options})
    return DPOTrainer(model, args=args, train_dataset=data, processing_class=tokenizer)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("trailer", ["", "\\n"])
@pytest.mark.parametrize("form", [chat, implicit, plain, merging])
def test_pairs_are_trls(form: Callable[[Row], Row], trailer: str, make_base: MakeBase, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>{trailer}' }}}}{{% endfor %}}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    data = pairs(form, 4).remove_columns("id") if form is chat else pairs(form, 4)
    theirs = trl_trainer(tmp_path, make_base(), tokenizer, data).train_dataset
    ours = [GapDPOTrainer.sft_row(example) for example in build(data, tokenizer)]
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert [row[name] for row in ours] == theirs[name][:]
    if form is merging:
        assert tokenizer.decode(ours[0]["prompt_ids"]) != "Count the pen"


def test_training_is_trls(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Same losses, step by step, and same weights as TRL's trainer on the text."""
    theirs = trl_trainer(tmp_path / "trl", make_base(), tokenizer, pairs())
    ours = GapDPOTrainer(
        make_base(), GapDPOConfig(str(tmp_path / "own"), **COMMON), train_dataset=pairs(ultrafeedback),
        processing_class=tokenizer,
    )  # fmt: skip
    theirs.train()
    ours.train()
    assert losses(ours) == losses(theirs) and losses(ours)[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses(ours)[-1] < 0.69
    weights = theirs.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in ours.model.state_dict().items())


def test_ids_reach_the_trainer_as_they_are(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """`_prepare_dataset` is private in TRL and takes text only; this tells when it changes."""
    assert list(inspect.signature(DPOTrainer._prepare_dataset).parameters) == [
        "self", "dataset", "processing_class", "args", "dataset_name",
    ]  # fmt: skip
    args = GapDPOConfig(str(tmp_path), **COMMON)
    trainer = GapDPOTrainer(make_base(), args, train_dataset=pairs(count=4), processing_class=tokenizer)
    remaining = trainer.row_ids.select_columns(trainer.train_dataset.column_names)
    assert trainer.train_dataset[:] == remaining[:]
    metrics = trainer.evaluate(remaining)
    assert metrics["eval_loss"] == pytest.approx(0.6931, abs=1e-4), "ids pass `evaluate`, too"
    with pytest.raises(KeyError):
        trl_trainer(tmp_path, make_base(), tokenizer, remaining)


def test_reference_model(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """A copy of the weights at the start, unless one is given or an adapter can be switched off."""

    def trainer(**options: Any) -> GapDPOTrainer:
        args = GapDPOConfig(str(tmp_path), **COMMON)
        return GapDPOTrainer(model, args, train_dataset=pairs(count=4), processing_class=tokenizer, **options)

    model = make_base()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)
    model.config._name_or_path = "nowhere"  # TRL would load it from there
    start = model.get_input_embeddings().weight.clone()
    own = trainer()
    own.train()
    assert torch.equal(own.ref_model.get_input_embeddings().weight, start)
    assert not torch.equal(own.model.get_input_embeddings().weight, start)
    given = make_base()
    assert trainer(ref_model=given).ref_model is given
    model = make_base()
    adapter = trainer(peft_config=LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert adapter.ref_model is None


PROMPT, RIGHT = [{"role": "user", "content": "one"}], [{"role": "assistant", "content": "two"}]
WRONG = [{"role": "assistant", "content": "three"}]
BAD: dict[str, tuple[Row, str]] = {
    "null": ({"prompt": PROMPT, "chosen": RIGHT, "rejected": None}, "rejected: got null"),
    "empty": ({"prompt": PROMPT, "chosen": [], "rejected": WRONG}, "chosen: got null or an empty list"),
    "no words": (
        {"prompt": PROMPT, "chosen": RIGHT, "rejected": [{"role": "assistant", "content": " "}]},
        "rejected, turn 0 (assistant), content: got an empty string, expected text",
    ),
    "identical": (
        {"prompt": PROMPT, "chosen": RIGHT, "rejected": RIGHT}, "chosen and rejected: got identical answers",
    ),
    "long": (
        {"prompt": PROMPT, "chosen": RIGHT, "rejected": [{"role": "assistant", "content": "many words " * 90}]},
        "rejected, length: got an over-length row of 5 + 363 tokens, expected at most max_length (60)",
    ),
    "user turn": (
        {"prompt": PROMPT, "chosen": RIGHT + PROMPT + WRONG, "rejected": WRONG}, "chosen: got a user turn",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_pairs_are_listed(case: str, tokenizer: Any) -> None:
    row, told = BAD[case]
    good = {"prompt": PROMPT, "chosen": RIGHT, "rejected": WRONG}
    data = Dataset.from_list([{"id": "a", **good}, {"id": "b", **row}, {"id": "c", **good}])
    remaining = build(data, tokenizer, max_length=60, on_invalid_example="skip")
    assert [example.id for example in remaining] == ["a", "c"]
    (bad,) = remaining.bad_rows
    assert (bad.row, bad.id) == (1, "b") and told in bad.reason
    with pytest.raises(DataError, match=rf"train_dataset, row 1 \(id b\), {re.escape(told)}"):
        build(data, tokenizer, max_length=60)


def test_odd_data_sets_are_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="expected `chosen` and `rejected`"):
        build(Dataset.from_list([{"prompt": "a", "completion": "b"}]), tokenizer)
    text = AutoTokenizer.from_pretrained(BASE)
    text.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        build(pairs(count=1), text)
    same = Dataset.from_list([{"id": "a", **implicit(row)} for row in pairs(count=2)])
    with pytest.raises(DataError, match="id: got the duplicate of row 0"):
        build(same, tokenizer)


def test_examples_of_pairs(tokenizer: Any) -> None:
    """To who asks for examples (an evaluation, a gap) a pair is its chosen answer; both answers have a part in the
    fingerprint."""
    found = build(pairs(count=3), tokenizer)
    (first, *_) = found
    assert isinstance(first, Preference) and first.chosen == [*first.completion_ids, *first.template_suffix_ids]
    assert first.completion_ids[-1] == first.rejected[-1] == tokenizer.eos_token_id
    swapped = pairs(count=3).rename_columns({"chosen": "rejected", "rejected": "chosen"})
    assert len({found.fingerprint(), build(swapped, tokenizer).fingerprint()}) == 2
    other = pairs(count=3).map(lambda row: {"rejected": [{"role": "assistant", "content": "none"}]})
    assert found.fingerprint() != build(other, tokenizer).fingerprint()
    assert found.fingerprint() == build(pairs(count=3), tokenizer).fingerprint()


def test_recipe_data(tmp_path: Path, tokenizer: Any) -> None:
    """UltraFeedback's columns serve DPO by `chosen` and `rejected`, and SFT by `messages`."""
    file = write_rows(tmp_path / "prefs.jsonl", list(pairs(ultrafeedback, 3)))
    config = DataConfig(
        datasets=[DatasetConfig(path="json", data_files=file)], id_column="prompt_id", system_prompt="Think."
    )
    data = load_data(config, ScriptArguments(), needs_eval=False).train
    examples = list(build(data, tokenizer))
    assert [example.id for example in examples] == pairs(count=3)["id"][:]
    asked = [{"role": "system", "content": "Think."}, *pairs(count=1)[0]["prompt"]]
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert examples[0].prompt == rendered
    assert data[0]["messages"][0]["content"] == "Think."
    text = write_rows(tmp_path / "text.jsonl", list(pairs(plain, 2)))
    entries = [DatasetConfig(path="json", data_files=text)]
    convert_to_chat = load_data(
        DataConfig(datasets=entries, convert_to_chat=True), ScriptArguments(), needs_eval=False
    ).train
    assert (
        convert_to_chat[0]["prompt"][0]["role"] == "user" and convert_to_chat[1]["rejected"][0]["role"] == "assistant"
    )


def test_losses_are_those_that_trl_names(tmp_path: Path) -> None:
    (told,) = (field.metadata["help"] for field in fields(DPOConfig) if field.name == "loss_type")
    assert set(re.findall(r"`'(\w+)'`", told)) == PAIR_LOSSES
    with pytest.raises(ConfigError, match="loss_type: got sigmoyd, expected some of"):
        GapDPOConfig(str(tmp_path), **COMMON, loss_type="sigmoyd")
    with pytest.raises(ConfigError, match="beta: got -0.1"):
        GapDPOConfig(str(tmp_path), **COMMON, beta=-0.1)


@pytest.mark.parametrize(("split", "count"), [("train", 384), ("test", 64)])
def test_embedded_pairs_are_the_generators(split: str, count: int) -> None:
    lines = (ROOT / "recipes" / "tiny" / "data" / f"preferences_{split}.jsonl").read_text().splitlines()
    rows = [problem.preference_row() for problem in problems(split, count=count, steps=(4,), seed=1)]
    assert [json.loads(line) for line in lines] == rows


def test_wrong_answers_have_one_wrong_step() -> None:
    for problem in problems("train", count=60, steps=(1, 2, 3, 4, 5, 6)):
        results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
        wrong = problem.wrong_steps()
        forced_errors = [step for step in wrong if results[step.operator](step.left, step.right) != step.result]
        assert len(forced_errors) == 1 and wrong[-1].result != problem.result
        assert [step.left for step in wrong[1:]] == [step.result for step in wrong[:-1]]
        assert all(step.left % step.right == 0 for step in wrong if step.operator == "/")
