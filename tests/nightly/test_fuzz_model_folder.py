"""Whatever the small files of a model's folder hold: the run ends, or is refused by an error of ours.

Nightly: each example reads a model twice and often trains a step.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe, same_draws
from hypothesis import example, given
from hypothesis import strategies as st

from gapbridge import cli
from gapbridge.errors import ConfigError, GapbridgeError, TrainingError
from gapbridge.runs.run_config import read_job
from gapbridge.runs.train import train
from gapbridge.runs.validate import validate
from gapbridge.training.checkpoints import COMPLETE_FILE


BOUNDED = same_draws(150)
TEXTS = st.sampled_from(
    [
        "",
        " ",
        "no",
        "<|end|>",
        "<|nope|>",
        "{{ x }}",
        "{% if %}",
        "\x00",
        "../..",
        "a" * 300,
        "é\u202e",
        "eager",
        "llama",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 3, 511, 512, 70_000, 2**31, 0.5, 1e308, float("nan"), float("inf")]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
MORE = {
    "config.json": ["quantization_config", "auto_map", "rope_scaling", "rope_parameters", "layer_types", "torch_dtype",
                    "text_config", "id2label", "pruned_heads", "sliding_window", "_attn_implementation"],
    "generation_config.json": ["temperature", "top_k", "do_sample", "suppress_tokens", "bad_words_ids", "num_beams",
                               "cache_implementation", "stop_strings", "bos_token_id", "max_length"],
    "tokenizer_config.json": ["chat_template", "added_tokens_decoder", "bos_token", "unk_token", "add_bos_token",
                              "extra_special_tokens", "model_input_names", "padding_side", "auto_map"],
    "tokenizer.json": ["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"],
}  # fmt: skip


def changed(draw: st.DrawFn, value: Any, more: list[str]) -> Any:
    """A JSON value with one part of it taken out, put in or replaced, at any depth."""
    if isinstance(value, dict):
        key = draw(st.sampled_from([*value, *more] or ["a"]))
        if value.get(key) and isinstance(value[key], (dict, list)) and draw(st.booleans()):
            return {**value, key: changed(draw, value[key], [])}
        if draw(st.integers(0, 3)) == 0:
            return {name: entry for name, entry in value.items() if name != key}
        return {**value, key: draw(VALUES)}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(VALUES), *value[at + 1 :]]
    return draw(VALUES)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name of a file of the base model, and another content for it."""
    name = draw(st.sampled_from([*MORE, "chat_template.jinja"]))
    content = (BASE / name).read_bytes()
    if name not in MORE or draw(st.integers(0, 4)) == 0:
        damages = [b"", b"[]", b"null", b"1", b"{}", b'"a"', b"[" * 100_000, b"\xff\xfe", content[: len(content) // 2]]
        return name, draw(st.sampled_from(damages) | st.binary(max_size=8))
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        value = changed(draw, value, MORE[name])
    return name, json.dumps(value).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(BASE, folder / "model")
    return folder


@pytest.mark.nightly
@BOUNDED
@given(file=files())
@example(file=("config.json", b'{"model_type": "llama", "num_hidden_layers": 2147483648}'))
@example(file=("generation_config.json", b'{"eos_token_id": "<|end|>"}'))
@example(file=("generation_config.json", b'{"eos_token_id": [true, 1]}'))
@example(file=("tokenizer.json", b'{"padding": 1}'))
def test_model_folders(file: tuple[str, bytes], folder: Path) -> None:
    name, content = file
    saved = (folder / "model" / name).read_bytes()
    (folder / "model" / name).write_bytes(content)
    keys = {"method": "sft", "model_name_or_path": str(folder / "model"), "save_strategy": "no", "max_length": 512}
    argv = recipe(folder, **keys)
    try:
        errors, _ = validate(read_job(argv, "sft"))
        assert all(errors)
        train(read_job(argv, "sft"))
    except TrainingError:
        pass  # an odd number in the configuration
    except GapbridgeError as error:
        assert error.errors and all(error.errors)
        assert not (folder / "run").exists()
    finally:
        (folder / "model" / name).write_bytes(saved)
        shutil.rmtree(folder / "run", ignore_errors=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", '{"padding": 1}', "tokenizer .*: got files that cannot be loaded"),
        (
            "tokenizer_config.json",
            '{"pad_token": [[1]]}',
            "tokenizer .*: got files that cannot be loaded .TypeError: Special token",
        ),
        ("config.json", '{"model_type": "llama", "head_dim": "a"}', "cannot be loaded .*head_dim"),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": 2147483648}', "expected at most 10,000"),
        ("generation_config.json", '{"suppress_tokens": 0.5}', "model .*: got files that cannot be loaded .TypeError"),
        (
            "generation_config.json",
            '{"eos_token_id": ["a"]}',
            r"eos_token_id: got \['a'\], expected the id of a token",
        ),
    ],
)
def test_odd_files_are_named(name: str, content: str, words: str, folder: Path) -> None:
    """What the libraries raise for these is of no class that they document."""
    saved = (folder / "model" / name).read_bytes()
    (folder / "model" / name).write_text(content)
    try:
        with pytest.raises(ConfigError, match=words):
            train(read_job(recipe(folder, method="sft", model_name_or_path=str(folder / "model")), "sft"))
        assert not (folder / "run").exists()
    finally:
        (folder / "model" / name).write_bytes(saved)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint each, as if stopped before its model was saved."""
    folder = tmp_path_factory.mktemp("stopped")
    cli.main(["sft", *recipe(folder, method="sft", max_steps=2, save_steps=1)])
    shutil.rmtree(folder / "run" / "round_1" / "model")
    record = json.loads((folder / "run" / "run.json").read_text())
    (folder / "run" / "run.json").write_text(json.dumps({**record, "state": "running"}))
    return folder


@pytest.mark.nightly
@same_draws(25)
@given(data=st.data())
def test_states_of_a_checkpoint(data: st.DataObject, stopped: Path) -> None:
    """The run goes on from the older checkpoint, or from its start."""
    run = shutil.copytree(stopped / "run", stopped / "copy")
    try:
        for name in ("trainer_state.json", COMPLETE_FILE):
            path = run / "round_1" / "checkpoint-2" / name
            path.write_text(json.dumps(changed(data.draw, json.loads(path.read_text()), ["epoch"])))
            if data.draw(st.booleans()):
                break
        argv = ["--config", str(stopped / "recipe.yaml"), "--output_dir", str(run)]
        train(read_job(argv, "sft"))
        assert (run / "model.safetensors").read_bytes() == (stopped / "run" / "model.safetensors").read_bytes()
    finally:
        shutil.rmtree(run)
