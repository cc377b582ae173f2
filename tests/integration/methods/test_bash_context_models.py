"""BASH's contexts from models on disk: an earlier checkpoint, or one for each fold of the examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from test_bash_controls import COMMON, MIXED, MakeBase, bash, rows, same_weights
from transformers import AutoTokenizer

from gapbridge import BASHConfig, BASHTrainer, ConfigError, StoreError
from gapbridge.data.hash_sampling import hash_fold
from gapbridge.methods.bash.context_models import ContextModels
from gapbridge.store.fingerprint import weights_fingerprint


def other_model(folder: Path, make_base: MakeBase, tokenizer: Any, shift: int) -> str:
    """The base with other weights, on disk."""
    model = make_base()
    torch.manual_seed(shift)
    for parameter in model.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_contexts_of_another_model(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """What a run from that model would draw; the trained weights are the run's own."""
    first, second = (other_model(tmp_path / name, make_base, tokenizer, at) for at, name in enumerate("ab"))
    own = bash(tmp_path / "own", make_base(), tokenizer, **MIXED)
    direct = {path: drawn_by(path, tmp_path, tokenizer) for path in (first, second)}
    one = bash(tmp_path / "one", make_base(), tokenizer, **MIXED, generator_model_name_or_path=first)
    assert one.row_ids[:] == direct[first].row_ids[:] != own.row_ids[:]
    assert same_weights(one.model, make_base())
    made_by = identity(tmp_path / "one")["weights"]
    assert made_by == identity(Path(direct[first].args.output_dir))["weights"] != weights_fingerprint(make_base())
    with pytest.raises(StoreError, match="weights: the store has"):
        bash(tmp_path / "one", make_base(), tokenizer, **MIXED, generator_model_name_or_path=second)

    options = {**MIXED, "generator_model_name_or_path": [first, second], "generation_shard_size": 5}
    folds = bash(tmp_path / "two", make_base(), tokenizer, **options)
    used = set()
    for at, example in enumerate(folds.examples):
        fold = hash_fold(example.id, 2)
        used.add(fold)
        assert folds.row_ids[at] == direct[[first, second][fold]].row_ids[at]
    assert used == {0, 1}
    assert identity(tmp_path / "two")["weights"] == ", ".join(
        identity(Path(direct[path].args.output_dir))["weights"] for path in (first, second)
    )


def test_context_models_are_loaded_in_the_type_of_the_trained_one(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    path = other_model(tmp_path / "half", lambda: make_base().to(torch.bfloat16), tokenizer, 1)
    args = BASHConfig(str(tmp_path / "run"), **COMMON)
    for dtype in (torch.float32, torch.bfloat16):
        ((found, _),) = ContextModels([path], make_base().to(dtype), args).shares(["a"])
        assert found.dtype == dtype


def drawn_by(path: str, folder: Path, tokenizer: Any) -> BASHTrainer:
    args = BASHConfig(str(folder / f"direct-{Path(path).name}"), **{**COMMON, **MIXED})
    return BASHTrainer(path, args=args, train_dataset=rows(), processing_class=tokenizer)


def identity(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "_contexts" / "manifest.json").read_text())["identity"]
    return found


def test_models_that_cannot_draw_are_refused(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    strange = AutoTokenizer.from_pretrained(BASE)
    strange.add_tokens(["another"])
    other = other_model(tmp_path / "other", make_base, strange, 1)
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError) as caught:
        bash(tmp_path / "run", make_base(), tokenizer, generator_model_name_or_path=[missing, other])
    first, second = caught.value.errors
    assert "missing cannot be loaded: no such directory" in first and "has other tokens" in second
    wider = make_base()
    wider.resize_token_embeddings(wider.get_input_embeddings().num_embeddings + 8)
    wider.save_pretrained(tmp_path / "wider")
    tokenizer.save_pretrained(tmp_path / "wider")
    with pytest.raises(ConfigError, match="its vocabulary has"):
        bash(tmp_path / "run", make_base(), tokenizer, generator_model_name_or_path=str(tmp_path / "wider"))
    assert not (tmp_path / "run").exists()
