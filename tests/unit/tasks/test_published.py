"""The public data sets of the recipes: from the hub's columns to prompts and answers, on folders of that form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gapbridge.data.example import ExampleSet
from gapbridge.errors import DataError
from gapbridge.planning.dummy_assets import dummy_dataset, dummy_model
from gapbridge.planning.hub_metadata import DATA, MODELS, PublishedData, published_files
from gapbridge.runs.data_record import write_data_record
from gapbridge.runs.load_inputs import load_eval_examples, load_examples
from gapbridge.runs.run_config import RunConfig, read_job


TOKENIZER = {
    "pythia-1b-tldr": "EleutherAI/pythia-1b",
    "mistral-7b-ultrachat": "alignment-handbook/zephyr-7b-sft-full",
    "mistral-7b-math": "mistralai/Mistral-7B-v0.1",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` knows a folder with a card by its name, whatever it holds now."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def job_on(folder: Path, recipe: str, **changes: Any) -> tuple[RunConfig, Any]:
    """A recipe with its data in folders here, and a tokenizer of bytes with the original's special tokens."""
    keys = yaml.safe_load((ROOT / "recipes" / recipe).read_text()) | {"use_cpu": True, "dataset_num_proc": None}
    for part in [*keys.get("datasets", []), *keys["eval_datasets"]]:
        part["path"] = str(folder / part["path"])
    for part in keys.get("dataset_mixture", {}).get("datasets", []):
        part["id"] = str(folder / part["id"])
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(keys | changes))
    job = read_job(["--config", str(path)])
    tokenizer = AutoTokenizer.from_pretrained(dummy_model(MODELS[TOKENIZER[recipe.split("/")[0]]]))
    if job.args.chat_template:
        tokenizer.chat_template = job.args.chat_template
    return job, tokenizer


def write(folder: Path, name: str, config: str, split: str, rows: list[Any]) -> None:
    """Rows of one split in the place of those that stand there."""
    files = published_files(DATA[name])
    files[f"{config}/{split}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    for file, text in files.items():
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text(text)


def texts(examples: ExampleSet, tokenizer: Any) -> list[tuple[str, str]]:
    return [(tokenizer.decode(example.prompt), tokenizer.decode(example.completion_ids)) for example in examples]


def test_summaries(tmp_path: Path) -> None:
    """TL;DR: the post as plain text, the summary behind it with its space and the end of the text."""
    post = "SUBREDDIT: r/x\n\nTITLE: T\n\nPOST: Some words.\n\nTL;DR:"
    rows = [
        {"prompt": post, "completion": " Short."},
        {"prompt": post.replace("Some", "long " * 200), "completion": " Too long."},
    ]
    write(tmp_path, "trl-lib/tldr", "default", "train", rows)
    job, tokenizer = job_on(tmp_path, "pythia-1b-tldr/sft/config_full.yaml")
    examples = load_examples(job, tokenizer, None)
    assert texts(examples["train"], tokenizer) == [(post, " Short.<|endoftext|>")]
    assert [bad.row for bad in examples["train"].bad_rows] == [1]
    assert examples["train"].bad_rows[0].reason.startswith("length: got an over-length prompt alone of ")
    write_data_record(tmp_path, examples)
    record = json.loads((tmp_path / "data.json").read_text())
    assert record["train"]["examples"] == 1 and len(record["train"]["invalid_examples"]) == 1, (
        "what is dropped is counted"
    )
    assert "validation" in examples["eval"].source and len(examples["eval"]) == 8


def test_held_out_prompts_that_are_trained_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = published_files(DATA["openai/gsm8k"])
    held_out = [json.loads(line) for line in files["main/test.jsonl"].splitlines()]
    trained = [json.loads(line) for line in files["main/train.jsonl"].splitlines()]
    write(tmp_path, "openai/gsm8k", "main", "train", [*trained, held_out[3], {**held_out[5], "answer": "#### 1"}])
    job, tokenizer = job_on(tmp_path, "mistral-7b-math/sft/config_full.yaml")
    write_data_record(tmp_path, load_examples(job, tokenizer, None))
    assert json.loads((tmp_path / "data.json").read_text())["eval"]["num_eval_prompts_in_train"] == 2
    assert "2 of 8 held-out prompts are also in the training data" in caplog.text


def test_the_last_answer_of_a_conversation(tmp_path: Path) -> None:
    """UltraChat: all turns before the last answer are the prompt; `prompt` repeats the first and is left out."""
    turns = [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, ["Q1", "A1", "Q2", "A" * 1000])
    ]
    rows = [
        {"prompt": "Q1", "prompt_id": "0", "messages": turns},
        {"prompt": "Q1", "prompt_id": "1", "messages": [{"role": "user", "content": "Q" * 600}, turns[1]]},
    ]
    write(tmp_path, "HuggingFaceH4/ultrachat_200k", "default", "train_sft", rows)
    job, tokenizer = job_on(tmp_path, "mistral-7b-ultrachat/bash/config_full.yaml", max_length=560)
    examples = load_examples(job, tokenizer, None)["train"]
    prompt = "<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\n"
    assert texts(examples, tokenizer) == [(prompt, "A" * (560 - len(tokenizer(prompt)["input_ids"])))]
    assert examples.truncated == 1 and examples.left_out == 1 and not examples.bad_rows


def test_the_conversations_are_drawn_with_a_seed(tmp_path: Path) -> None:
    rows = [
        {"prompt": "", "prompt_id": str(at),
         "messages": [{"role": "user", "content": f"{at}"}, {"role": "assistant", "content": "A"}]}
        for at in range(40)
    ]  # fmt: skip
    write(tmp_path, "HuggingFaceH4/ultrachat_200k", "default", "train_sft", rows)

    def sampled(**changes: Any) -> list[str]:
        job, tokenizer = job_on(tmp_path, "mistral-7b-ultrachat/rac/config_full.yaml", **changes)
        return [prompt for prompt, _ in texts(load_examples(job, tokenizer, None)["train"], tokenizer)]

    ten, twenty = sampled(max_train_examples=10), sampled(max_train_examples=20)
    assert ten == twenty[:10] == sampled(max_train_examples=10, seed=1), "the mixture's seed draws, not the training's"
    assert len(set(twenty)) == 20 and ten != sorted(ten)


def test_preferences(tmp_path: Path) -> None:
    """UltraFeedback: the prompt is what both conversations begin with; two equal answers are no preference."""
    question = {"role": "user", "content": "Q"}
    pairs = [("good", "bad"), ("same", "same")]
    rows = [
        {"prompt": "Q", "prompt_id": str(at), "messages": [question], "score_chosen": 1.0, "score_rejected": 0.0,
         **{name: [question, {"role": "assistant", "content": text}]
            for name, text in zip(("chosen", "rejected"), pair, strict=True)}}
        for at, pair in enumerate(pairs)
    ]  # fmt: skip
    write(tmp_path, "HuggingFaceH4/ultrafeedback_binarized", "default", "train_prefs", rows)
    job, tokenizer = job_on(tmp_path, "mistral-7b-ultrachat/dpo/config_full.yaml")
    examples = load_examples(job, tokenizer, None)
    (pair,) = examples["train"].part(0, 1)
    assert tokenizer.decode(pair.prompt) == "<|user|>\nQ</s>\n<|assistant|>\n"
    assert (tokenizer.decode(pair.completion_ids), tokenizer.decode(pair.rejected)) == ("good</s>", "bad</s>\n")
    assert [bad.row for bad in examples["train"].bad_rows] == [1]
    assert "test_prefs" in examples["eval"].source


@pytest.mark.parametrize(
    ("suffix", "name", "prompt", "answer"),
    [
        ("full", "openai/gsm8k", "question", "answer"),
        ("math_full", "EleutherAI/hendrycks_math", "problem", "solution"),
    ],
)
def test_mathematics(tmp_path: Path, suffix: str, name: str, prompt: str, answer: str) -> None:
    config = next(iter(DATA[name].configs))
    row = DATA[name].row("How many?", "2+2=4\n#### 4", 0)
    write(tmp_path, name, config, "train", [row, {**row, prompt: "long" * 2000}])
    job, tokenizer = job_on(tmp_path, f"mistral-7b-math/sft/config_{suffix}.yaml", on_invalid_example="skip")
    examples = load_examples(job, tokenizer, None)
    found = texts(examples["train"], tokenizer)
    assert ("<s>Question: How many?\n\nAnswer:\n", f"{row[answer]}</s>") in found
    assert len(found) == 1 + 8 * (len(DATA[name].configs) - 1) and len(examples["train"].bad_rows) == 1
    assert not {pair[0] for pair in found} & {pair[0] for pair in texts(examples["eval"], tokenizer)}
    held_out = load_eval_examples(job, tokenizer, None)
    assert len(held_out) == 8 * len(DATA[name].configs) and "test" in held_out.source


def test_gsm8k_must_fit(tmp_path: Path) -> None:
    """No problem of GSM8K is as long as `max_length`: one that is would be a mistake, and stops the run."""
    write(tmp_path, "openai/gsm8k", "main", "train", [{"question": "long" * 2000, "answer": "#### 1"}])
    job, tokenizer = job_on(tmp_path, "mistral-7b-math/sft/config_full.yaml")
    with pytest.raises(DataError, match="over-length"):
        load_examples(job, tokenizer, None)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_stood_in_for(name: str) -> None:
    """The same architecture, special tokens as in the original, no padding token, a template where there is one."""
    place = dummy_model(MODELS[name])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    assert model.config.model_type == MODELS[name].shape["model_type"] and model.num_parameters() < 50_000
    assert model.config.max_position_embeddings == MODELS[name].shape["max_position_embeddings"]
    assert tokenizer.decode(tokenizer("Zoë: 1,250 €\n")["input_ids"]) == "Zoë: 1,250 €\n"
    assert tokenizer.pad_token is None and tokenizer.eos_token_id == model.config.eos_token_id
    assert bool(tokenizer.chat_template) == MODELS[name].chats
    assert dummy_model(MODELS[name]) == place


def test_another_content_is_another_folder() -> None:
    data = DATA["openai/gsm8k"]
    other = PublishedData(data.configs, lambda prompt, answer, number: {"question": answer, "answer": prompt})
    assert dummy_dataset(data) == dummy_dataset(data) != dummy_dataset(other)


def test_shapes_are_the_models() -> None:
    """The numbers of parameters that the models' cards give."""
    import torch

    with torch.device("meta"):
        counts = {
            name: AutoModelForCausalLM.from_config(AutoConfig.for_model(**model.shape)).num_parameters()
            for name, model in MODELS.items()
        }
    assert counts["HuggingFaceTB/SmolLM2-135M-Instruct"] == 134_515_008
    assert counts["EleutherAI/pythia-1b"] == 1_011_781_632 and counts["mistralai/Mistral-7B-v0.1"] == 7_241_732_096
