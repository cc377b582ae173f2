"""Adapters on bases of a hub, at the revision that was asked for; the hub is its own cache on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, tiny_llama
from helpers import recipe
from peft import LoraConfig, PeftModel, get_peft_model

from gapbridge import BASHConfig, ConfigError, cli
from gapbridge.methods.bash.trainer import BASHTrainer
from gapbridge.runs.load_inputs import load_initial_model
from gapbridge.runs.run_config import read_job
from gapbridge.training.loading import load_model


NAME = "someone/base"
COMMON: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none"}


def fill_cache(cache: Path, revisions: dict[str, Path]) -> None:
    """A hub's cache in which a repository has a revision for each of the directories."""
    repository = cache / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for number, (revision, directory) in enumerate(revisions.items()):
        commit = str(number) * 40
        (repository / "refs" / revision).write_text(commit)
        shutil.copytree(directory, repository / "snapshots" / commit)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """`main` and `v1` differ in every weight; a third copy, `v2`, is that of `v1`."""
    directories = {}
    for revision, sharpness in (("main", 3.0), ("v1", 5.0)):
        directories[revision] = tmp_path / revision
        tiny_llama(sharpness=sharpness).save_pretrained(directories[revision])
    fill_cache(tmp_path / "hub", {**directories, "v2": directories["v1"]})
    return tmp_path / "hub"


def adapter(folder: Path, recorded: str | None) -> Path:
    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"], revision=recorded))
    model.peft_config["default"].base_model_name_or_path = NAME
    model.save_pretrained(str(folder))
    return folder


def loaded(folder: Path, cache: Path, revision: str | None) -> PeftModel:
    args = BASHConfig("out", model_init_kwargs={"cache_dir": str(cache)}, **COMMON)
    options = {} if revision is None else {"revision": revision}
    model = load_model(folder, args, **options)
    assert isinstance(model, PeftModel)
    return model


@pytest.mark.parametrize(
    ("asked", "recorded", "is_first"),
    [(None, None, False), ("main", None, False), ("v1", None, True), (None, "v1", True), ("main", "v1", True),
     ("v1", "v1", True)],
)  # fmt: skip
def test_the_base_of_an_adapter_is_that_of_its_revision(
    asked: str | None, recorded: str | None, is_first: bool, cache: Path, tmp_path: Path
) -> None:
    model = loaded(adapter(tmp_path / "adapter", recorded), cache, asked)
    weights = model.get_base_model().get_input_embeddings().weight
    wanted = tiny_llama(sharpness=5.0 if is_first else 3.0).get_input_embeddings().weight
    assert torch.equal(weights, wanted)
    model.save_pretrained(str(tmp_path / "saved"))
    record = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert record["revision"] == ("v1" if is_first else None), "whoever loads it gets the same base"


def test_another_revision_than_that_of_the_adapter_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_revision: got 'v2', expected 'v1', the revision of someone/base"):
        loaded(adapter(tmp_path / "adapter", "v1"), cache, "v2")


def test_a_recipe_that_goes_on_from_an_adapter(cache: Path, tmp_path: Path) -> None:
    start = adapter(tmp_path / "adapter", None)
    shutil.copytree(BASE, start, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    job = read_job(
        recipe(tmp_path, model_name_or_path=str(start), model_revision="v1", use_peft=True,
               model_init_kwargs={"cache_dir": str(cache)})
    )  # fmt: skip
    for path in (None, start):  # the recipe's own start, and a model that is named beside it
        model, _ = load_initial_model(job, path)
        expected = tiny_llama(sharpness=3.0 if path else 5.0).get_input_embeddings().weight
        assert torch.equal(model.get_input_embeddings().weight, expected)


def test_a_new_adapter_notes_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_cache(tmp_path / "hub", {"v1": BASE})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = LoraConfig(r=2, target_modules=["q_proj"])
    BASHTrainer.load_model_and_tokenizer(
        NAME, BASHConfig("out", model_init_kwargs={"revision": "v1"}, **COMMON), None, None, config
    )
    assert config.revision == "v1"
    lora = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"], "num_rounds": 2}
    start = {"model_name_or_path": NAME, "model_revision": "v1"}
    cli.main(["bash", *recipe(tmp_path, **start, **lora, mixture_coefficient=0.0)])
    for model in ("round_1/model", "round_2/model", "."):
        record = json.loads((tmp_path / "run" / model / "adapter_config.json").read_text())
        assert (record["revision"], record["base_model_name_or_path"]) == ("v1", NAME)
