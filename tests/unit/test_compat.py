"""What holds on every version in the range; where a rule is for an older one, that version is set here."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset
from helpers import recipe
from packaging.version import Version

from gapbridge import ConfigError, compat
from gapbridge.methods.dpo.trainer import METHOD as DPO
from gapbridge.methods.sft.trainer import GapSFTConfig, GapSFTTrainer
from gapbridge.runs.run_config import RunConfig, read_job
from gapbridge.tasks.word_problems import problems
from gapbridge.training.artifact_cache import cache_key_settings, table_path
from gapbridge.training.checkpoints import last_complete_checkpoint
from gapbridge.training.loading import load_meta_model, load_model, load_tokenizer
from gapbridge.training.model_card import complete_card


def config(folder: Path, **options: Any) -> GapSFTConfig:
    settings = {"use_cpu": True, "bf16": False, "report_to": "none", "max_length": 256, **options}
    return GapSFTConfig(str(folder), **settings)


def changed(folder: Path, file: str, **values: Any) -> Path:
    """The base with keys of one file set; None takes a key out."""
    shutil.copytree(BASE, folder)
    content = {**json.loads((folder / file).read_text()), **values}
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def test_a_table_has_one_name_whenever_its_processes_start(tmp_path: Path) -> None:
    """transformers 4 writes the second of the start into `logging_dir`: one process would wait for another's file."""
    first = config(tmp_path)
    time.sleep(1.1)
    names = {table_path(tmp_path, "train", cache_key_settings(args)) for args in (first, config(tmp_path))}
    assert len(names) == 1


@pytest.mark.parametrize("option", ["packing", "use_liger_kernel"])
@pytest.mark.parametrize("version", ["0.25.1", "1.6.4", "1.7.0"])
def test_labels_are_never_dropped(option: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "TRL", Version(version))
    if version == "1.7.0":
        assert compat.label_support_errors(config(tmp_path)) == []
        return
    with pytest.raises(ConfigError, match=rf"{option}: got True with TRL {version}.*expected TRL 1\.7 or newer"):
        config(tmp_path, **{option: True})
    config(tmp_path)


def test_pairs_need_a_newer_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "TRL", Version("1.9.2"))
    with pytest.raises(ConfigError, match=r"with TRL 1\.9\.2, expected TRL 1\.14 or newer"):
        DPO.config_class(str(tmp_path), use_cpu=True, bf16=False)


@pytest.mark.parametrize(
    ("file", "values", "load"),
    [
        ("config.json", {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "model"),
        ("tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"}, "tokenizer"),
        ("tokenizer_config.json", {"extra_special_tokens": ["<|user|>"]}, "tokenizer"),
    ],
)
def test_nothing_starts_from_what_would_be_misread(
    file: str, values: dict[str, Any], load: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, model = config(tmp_path), changed(tmp_path / "model", file, **values)
    monkeypatch.setattr(compat, "TRANSFORMERS", Version("4.57.6"))
    key = list(values)[-1]
    loads = {"model": (load_model, load_meta_model), "tokenizer": (load_tokenizer,)}[load]
    message = (
        rf"model/{file}, {key}: got a file of transformers 5, which transformers 4\.57\.6 misreads, expected .* "
        rf"instead of {key}\. Install transformers 5, or write the file in the older form"
    )
    for start in loads:
        with pytest.raises(ConfigError, match=message):
            start(model, args)
        start(BASE, args)


def test_the_embedded_base_is_read_alike(tmp_path: Path) -> None:
    model, tokenizer = load_model(BASE, config(tmp_path)), load_tokenizer(BASE, config(tmp_path))
    ids = tokenizer("12 apples and 3<|end|><|user|>", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "12 apples and 3"
    with torch.no_grad():
        assert model(ids[:, :-2]).logits.double().sum().item() == pytest.approx(-9046.6674, abs=0.01)


@pytest.mark.parametrize("where", ["file", "command line", "constructor"])
def test_a_share_of_warm_up_is_one(where: str, tmp_path: Path) -> None:
    if where == "constructor":
        args = config(tmp_path, warmup_steps=0.25)
    else:
        options = ["--warmup_steps", "0.25"] if where == "command line" else []
        args = read_job([*recipe(tmp_path, warmup_steps=None if options else 0.25), *options]).args
    assert args.get_warmup_steps(100) == 25


def test_a_number_of_warm_up_steps_is_one(tmp_path: Path) -> None:
    assert read_job(recipe(tmp_path, warmup_steps=7)).args.get_warmup_steps(100) == 7


def test_a_finished_run_trains_no_step_more(make_base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Its last step lies inside an epoch; oldest checkpoints go on every version."""
    rows = Dataset.from_list([problem.row() for problem in problems("train", count=8, steps=(1,))])

    def trainer() -> GapSFTTrainer:
        args = config(
            tmp_path, max_steps=3, per_device_train_batch_size=2, save_steps=1, save_total_limit=1, logging_steps=1,
            eval_strategy="epoch", learning_rate=1e-3, lr_scheduler_type="constant",
        )  # fmt: skip
        return GapSFTTrainer(
            make_base(), args, train_dataset=rows, eval_dataset=rows.select([0]), processing_class=tokenizer
        )

    first = trainer()
    first.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    again = trainer()
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3
    evaluations = [sum("eval_loss" in entry for entry in run.state.log_history) for run in (first, again)]
    assert evaluations == [1, 1]
    ended = first.model.state_dict()
    assert all(torch.equal(value, ended[name]) for name, value in again.model.state_dict().items())
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_a_card_says_who_can_read_the_model(
    version: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = config(tmp_path)
    rows = Dataset.from_list([problem.row() for problem in problems("train", count=1, steps=(1,))])
    examples = GapSFTTrainer.load_examples(rows, tokenizer, None, args, "rows", max_length=256)
    card = tmp_path / "README.md"
    card.write_text("# A model\n\n### Framework versions\n\n- TRL: 1\n")
    monkeypatch.setattr(compat, "TRANSFORMERS", Version(version))
    complete_card(card, args, examples, "", [], base="base", model_name="model")
    assert ("- Load it with transformers 5" in card.read_text()) == (version == "5.23.0")


OF_LIKE_LENGTH = {"group_by_length": True, "train_sampling_strategy": "group_by_length"}


def groups(job: RunConfig) -> bool:
    """Whether rows of like length are trained together, in the words of either transformers."""
    return any(vars(job.args).get(key) == value for key, value in OF_LIKE_LENGTH.items())


@pytest.mark.parametrize("key", OF_LIKE_LENGTH)
def test_rows_of_like_length_in_old_words_and_new(key: str, tmp_path: Path) -> None:
    value = OF_LIKE_LENGTH[key]
    for folder in ("plain", "both"):
        (tmp_path / folder).mkdir()
    line, plain = recipe(tmp_path, **{key: value}), recipe(tmp_path / "plain")
    assert groups(read_job(line))
    assert not groups(read_job(plain))
    assert groups(read_job([*plain, f"--{key}", str(value)]))
    other = next(name for name in OF_LIKE_LENGTH if name != key)
    for both in (recipe(tmp_path / "both", **OF_LIKE_LENGTH), [*plain, f"--{key}", str(value), f"--{other}", "x"]):
        with pytest.raises(ConfigError, match="which are one setting"):
            read_job(both)


@pytest.mark.parametrize(("key", "value"), [("group_by_length", False), ("train_sampling_strategy", "random")])
def test_rows_in_random_order_in_old_words_and_new(key: str, value: Any, tmp_path: Path) -> None:
    assert not groups(read_job(recipe(tmp_path, **{key: value})))
