"""Bad input of every kind ends in a named error and exit code 2, and leaves every file as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import gapbridge, recipe, rows_with, write_rows
from transformers import AutoTokenizer

from gapbridge import cli


Change = Callable[[Path], dict[str, Any]]


def keys(**changes: Any) -> Change:
    return lambda folder: changes


def data_file(name: str, content: str | bytes) -> Change:
    """The recipe's data are one file with this content."""

    def change(folder: Path) -> dict[str, Any]:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"datasets": [{"path": path.suffix[1:].replace("jsonl", "json"), "data_files": str(path)}]}

    return change


def rows(*given: Any) -> Change:
    return lambda folder: {"datasets": [{"path": "json", "data_files": write_rows(folder / "bad.jsonl", list(given))}]}


def model(damage: Callable[[Path], object]) -> Change:
    """The recipe's model is a damaged copy of the base model."""

    def change(folder: Path) -> dict[str, Any]:
        shutil.copytree(BASE, folder / "model")
        damage(folder / "model")
        return {"model_name_or_path": str(folder / "model")}

    return change


def without_eos(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


GOOD = {"prompt": "one\n", "completion": "two"}
USER, ANSWER = {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}

# name: (what is changed in a good BASH recipe, the error, words of its message)
RECIPES: dict[str, tuple[Change, str, str]] = {
    "unknown key": (keys(mixture_coeficient=0.2), "ConfigError", "did you mean 'mixture_coefficient'"),
    "key of another method": (keys(use_vllm=True), "ConfigError", "unknown key 'use_vllm' (a key of rac and spin)"),
    "key that is no forced error": (keys(batch=3), "ConfigError", "unknown key 'batch', expected"),
    "wrong type": (keys(num_rounds="many"), "ConfigError", "num_rounds: got 'many', expected an integer"),
    "number as list": (keys(learning_rate=[1]), "ConfigError", "learning_rate: got [1], expected a number"),
    "not a number": (keys(learning_rate=float("nan")), "ConfigError", "learning_rate: got nan"),
    "flag as text": (keys(packing="maybe"), "ConfigError", "packing: got 'maybe', expected true or false"),
    "beta too large": (keys(mixture_coefficient=1.5), "ConfigError", "expected a number from 0"),
    "beta negative": (keys(mixture_coefficient=-0.5), "ConfigError", "expected a number from 0"),
    "no rounds": (keys(num_rounds=0), "ConfigError", "num_rounds: got 0, expected at least 1"),
    "epochs of other rounds": (keys(num_rounds=2, num_epochs_per_round=[1, 2, 3]), "ConfigError",
    "num_epochs_per_round: got 3"),
    "epochs not positive": (keys(num_epochs_per_round=[0]), "ConfigError", "expected numbers above 0"),
    "no tokens in a pass": (keys(generation_max_batch_tokens=0), "ConfigError", "generation_max_batch_tokens: got 0"),
    "empty shards": (keys(generation_shard_size=0), "ConfigError", "generation_shard_size: got 0"),
    "no verify_window": (keys(verify_window=0), "ConfigError", "verify_window: got 0"),
    "negative temperature": (keys(temperature=-1), "ConfigError", "temperature"),
    "top_p above 1": (keys(top_p=1.5), "ConfigError", "top_p"),
    "negative top_k": (keys(top_k=-3), "ConfigError", "top_k"),
    "short rows": (keys(max_length=1), "ConfigError", "max_length: got 1, "),
    "two templates": (keys(chat_template="a", chat_template_path="b"), "ConfigError", "Keep one"),
    "missing template": (keys(chat_template_path="no.jinja"), "ConfigError", "no.jinja: got no such file"),
    "broken template": (keys(chat_template="{% if %}"), "ConfigError", "chat_template"),
    "unknown EOS token": (keys(eos_token="<nope>"), "ConfigError", "eos_token: got '<nope>'"),
    "unknown choice": (keys(on_invalid_example="ignore"), "ConfigError", "expected one of raise, skip"),
    "unknown type of numbers": (keys(dtype="float8"), "ConfigError", "dtype: got 'float8', expected one of"),
    "unknown schedule": (keys(lr_scheduler_type="cosin"), "ConfigError", "lr_scheduler_type"),
    "unknown method": (keys(method="bsh"), "ConfigError", "method: got 'bsh'"),
    "wrong method": (keys(method="sft"), "ConfigError", "got a recipe for sft"),
    "no model": (keys(model_name_or_path=None), "ConfigError", "model_name_or_path: got no value"),
    "no output": (keys(output_dir=None), "ConfigError", "output_dir: got no value"),
    "no data": (keys(datasets=None), "ConfigError", "datasets: got no data"),
    "data twice": (keys(dataset_name="a/b"), "ConfigError", "got `datasets` and `dataset_name`"),
    "data no list": (keys(datasets="d.jsonl"), "ConfigError", "expected a list"),
    "data entry without path": (keys(datasets=[{"split": "train"}]), "ConfigError", "path"),
    "data entry with unknown key": (keys(datasets=[{"path": "json", "files": "x"}]), "ConfigError", "files"),
    "streaming": (keys(streaming=True), "ConfigError", "streaming: got true"),
    "no rows wanted": (keys(max_train_examples=0), "ConfigError", "max_train_examples: got 0"),
    "evaluation without data": (keys(eval_strategy="epoch"), "ConfigError", "expected `eval_datasets`"),
    "environment no mapping": (keys(env="A=1"), "ConfigError", "env: got str, expected a mapping"),
    "environment no text": (keys(env={"A": [1]}), "ConfigError", "Write the text of the environment variable"),
    "old and new key": (keys(max_seq_length=64, max_length=64), "ConfigError", "which are one setting"),
    "no reference rows": (keys(method="rac", sft_fraction=1.1), "ConfigError", "sft_fraction"),
    "no draft": (keys(method="rac", max_completion_length=0), "ConfigError", "max_completion_length"),
}  # fmt: skip

ROWS: dict[str, tuple[Change, str, str]] = {
    "missing file": (keys(datasets=[{"path": "json", "data_files": "no.jsonl"}]), "ConfigError", "no such file"),
    "empty file": (data_file("e.jsonl", ""), "ConfigError", "e.jsonl: got an empty file"),
    "blank file": (data_file("n.jsonl", "\n\n"), "DataError", "n.jsonl [train]: "),
    "broken JSON": (data_file("b.jsonl", '{"a": '), "DataError", "b.jsonl [train]: got data that"),
    "no text": (data_file("x.jsonl", b"\xff\xfe\x00\x01"), "DataError", "x.jsonl [train]: got data that"),
    "no parquet": (data_file("p.parquet", "no parquet"), "DataError", "p.parquet [train]: got data that"),
    "a list of numbers": (data_file("l.jsonl", "1\n2\n"), "DataError", "l.jsonl [train]: "),
    "unknown split": (
        lambda f: {"datasets": [{**rows(GOOD)(f)["datasets"][0], "split": "dev"}]}, "DataError", "dev",
    ),
    "other columns": (rows({"question": "a", "answer": "b"}), "DataError", "no column 'prompt' and no column"),
    "null answer": (rows_with({"prompt": "one", "completion": None}), "DataError", "row 1 "),
    "empty answer": (rows_with({"prompt": "one", "completion": ""}), "DataError", "completion: got an empty string"),
    "blank prompt": (rows_with({"prompt": " \n", "completion": "a"}), "DataError", "prompt: got an empty string"),
    "numbers for text": (rows({"prompt": 1, "completion": 2}), "DataError", "prompt: got int, expected a string"),
    "long prompt": (
        lambda f: {**rows_with({"prompt": "one " * 400, "completion": "a"})(f), "truncate_overlong": False},
        "DataError", "over-length prompt alone",
    ),
    "long answer": (
        lambda f: {**rows_with({"prompt": "one", "completion": "a " * 400})(f), "truncate_overlong": False},
        "DataError", "over-length",
    ),
    "only long prompts": (rows({"prompt": "one " * 400, "completion": "a"}), "DataError", "a row to train on"),
    "empty text": (rows({"text": "a"}, {"text": " "}), "DataError", "text: got an empty string"),
    "text as a chat": (
        lambda f: {**rows({"text": "a"})(f), "convert_to_chat": True}, "ConfigError",
        "column text: got plain text, expected",
    ),
    "images": (rows({**GOOD, "image": "a.png"}), "DataError", "column image: got vision-related data"),
    "same id twice": (rows({"id": "a", **GOOD}, {"id": "a", **GOOD}), "DataError", "got the duplicate of row 0"),
    "turns without answer": (rows({"messages": [USER]}), "DataError", "got a user turn at the end"),
    "turn without role": (rows({"messages": [{"content": "a"}, ANSWER]}), "DataError", "no role"),
    "turns that are text": (rows({"messages": ["a", "b"]}), "DataError", "no role"),
    "messages that are text": (rows({"messages": "a"}), "DataError", "messages: got str, expected a list"),
    "prompt of turns, answer of text": (rows({"prompt": [USER], "completion": "a"}), "DataError", "prompt: got list"),
    "ids with nothing to learn": (
        rows({"input_ids": [5, 6], "labels": [-100, -100]}), "DataError", "no trainable token",
    ),
    "ids beyond the vocabulary": (
        rows({"input_ids": [5, 99999, 1], "labels": [-100, 99999, 1]}), "DataError", "99999",
    ),
    "negative ids": (rows({"input_ids": [-5, 6, 1], "labels": [-100, 6, 1]}), "DataError", "-5"),
    "ids that are text": (rows({"input_ids": ["a"], "labels": ["b"]}), "DataError", "input_ids"),
    "ids in a chat": (rows({"id": None, "messages": None}), "DataError", "messages: got null or an empty list"),
}  # fmt: skip

MODELS: dict[str, tuple[Change, str, str]] = {
    "missing": (keys(model_name_or_path="./none"), "ConfigError", "model ./none: got no such directory"),
    "a file": (
        lambda f: {"model_name_or_path": write_rows(f / "m.jsonl", [GOOD])}, "ConfigError", "cannot be loaded",
    ),
    "no weights": (model(lambda m: (m / "model.safetensors").unlink()), "ConfigError", "cannot be loaded"),
    "truncated weights": (model(lambda m: cut(m / "model.safetensors")), "ConfigError", "cannot be loaded"),
    "empty weights": (model(lambda m: (m / "model.safetensors").write_text("")), "ConfigError", "cannot be loaded"),
    "no configuration": (model(lambda m: (m / "config.json").unlink()), "ConfigError", "cannot be loaded"),
    "broken configuration": (model(lambda m: cut(m / "config.json")), "ConfigError", "cannot be loaded"),
    "unknown architecture": (
        model(lambda m: (m / "config.json").write_text('{"model_type": "abacus"}')), "ConfigError", "cannot be loaded",
    ),
    "broken tokenizer": (model(lambda m: cut(m / "tokenizer.json")), "ConfigError", "cannot be loaded"),
    "tokenizer without EOS": (model(without_eos), "ConfigError", "got no EOS token"),
}  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every name below `folder` with its content; None for a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refuse(capsys: pytest.CaptureFixture[str], error: str, words: str, folder: Path, *arguments: str) -> None:
    """Run a command that must be refused with `error` and `words`, and that must not touch `folder`."""
    before = snapshot(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == cli.EXIT_USER_ERROR
    _, name, message = said.partition(f"gapbridge: {error}: ")
    assert name and words in message, said[-2000:]
    assert snapshot(folder) == before


def cases(table: dict[str, tuple[Change, str, str]]) -> list[Any]:
    return [pytest.param(*case, id=name) for name, case in table.items()]


@pytest.mark.parametrize(("change", "error", "words"), [*cases(RECIPES), *cases(ROWS), *cases(MODELS)])
def test_recipe_rows_and_model(
    change: Change, error: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = change(tmp_path)
    command = "rac" if changed.get("method") == "rac" else "bash"
    refuse(capsys, error, words, tmp_path, command, *recipe(tmp_path, **changed))
    assert not (tmp_path / "run").exists()


TEXTS = {
    "a list": ("- a\n", "expected a mapping"),
    "nothing": ("", "expected a mapping"),
    "no YAML": ("a: [", "not valid YAML"),
    "a key twice": ("method: bash\nseed: 1\nseed: 2\n", "line 3: got seed twice"),
    "an object": (
        "a: !!python/object:os.system {}\n",
        "line 1: got a value with the tag tag:yaml.org,2002:python/object:os.system",
    ),
    "a date": ("method: bash\nseed: 2024-99-99\n", "seed: got '2024-99-99', expected an integer"),
    "a number as key": ("method: bash\n1: 2\n", "got the key 1"),
    "a list as key": ("method: bash\n? [a]\n: 2\n", "line 2: got a list or mapping as key"),
    "too deep": ("a: " + "[" * 5000, "not valid YAML"),
    "too long a number": ("seed: " + "9" * 5000, "not valid YAML"),
    "no text": ("\0", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "words"), TEXTS.values(), ids=TEXTS)
def test_files_that_are_no_recipe(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    for command in ("bash", "validate"):
        refuse(capsys, "ConfigError", words, tmp_path, command, "--config", str(tmp_path / "recipe.yaml"))


COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown command": (("bsh",), "did you mean 'bash'"),
    "no recipe": (("bash",), "no recipe"),
    "recipe without value": (("bash", "--config"), "--config: expected one argument"),
    "missing recipe": (("bash", "--config", "no.yaml"), "no.yaml: got no such file"),
    "unknown option": (("bash", "--config", "RECIPE", "--seeed", "1"), "did you mean 'seed'"),
    "option without value": (("bash", "--config", "RECIPE", "--seed"), "seed"),
    "wrong type of option": (("bash", "--config", "RECIPE", "--seed", "a"), "seed"),
    "unknown resume": (("bash", "--config", "RECIPE", "--resume", "maybe"), "expected auto or never or require"),
    "unknown accelerate configuration": (
        ("bash", "--accelerate_config", "x", "--config", "RECIPE"),
        "expected a file, or one of ddp",
    ),
    "rows of a preview": (("preview", "--num_rows", "none", "--config", "RECIPE"), "expected an integer"),
}


@pytest.mark.parametrize(("arguments", "words"), COMMANDS.values(), ids=COMMANDS)
def test_command_line(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = recipe(tmp_path)
    given = [path if argument == "RECIPE" else argument for argument in arguments]
    refuse(capsys, "ConfigError", words, tmp_path, *given)


PLACES: dict[str, tuple[str, str]] = {
    "a file": ("taken", "taken: got a file"),
    "below a file": ("taken/run", "taken above it, expected a directory"),
    "another's directory": ("foreign", "foreign: got thesis.txt, but no run.json"),
    "no directory of ours to make": ("/proc/gapbridge/run", "/proc"),
    "a name too long": ("n" * 300, "cannot be"),
    "a null character": ("a\0b", "null character"),
}


@pytest.mark.parametrize(("place", "words"), PLACES.values(), ids=PLACES)
def test_output_directory(place: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    options = recipe(tmp_path, output_dir=str(tmp_path / place))
    error = "ConfigError" if "\0" in place else "RunError"
    refuse(capsys, error, words, tmp_path, "bash", *options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    options = recipe(tmp_path, output_dir=str(tmp_path / "closed" / "run"))
    refuse(capsys, "RunError", "closed, which cannot be written", tmp_path, "bash", *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("unknown key", marks=pytest.mark.nightly), "null answer",
             pytest.param("truncated weights", marks=pytest.mark.nightly)],
)  # fmt: skip
def test_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    change, error, words = {**RECIPES, **ROWS, **MODELS}[name]
    options = recipe(tmp_path, **change(tmp_path))
    before = snapshot(tmp_path)
    process = gapbridge("bash", *options, check=False)
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert f"gapbridge: {error}: " in process.stderr and words in process.stderr
    assert snapshot(tmp_path) == before
