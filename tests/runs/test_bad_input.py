"""Bad input of every kind ends in a named error and exit code 2, and leaves every file as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
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
    "key that is no slip": (keys(batch=3), "ConfigError", "unknown key 'batch'\n"),
    "wrong type": (keys(num_rounds="many"), "ConfigError", "num_rounds is 'many': it must be a whole number"),
    "number as list": (keys(learning_rate=[1]), "ConfigError", "learning_rate is [1]: it must be a number"),
    "not a number": (keys(learning_rate=float("nan")), "ConfigError", "learning_rate is nan"),
    "flag as text": (keys(packing="maybe"), "ConfigError", "packing is 'maybe': it must be true or false"),
    "beta too large": (keys(mixture_coefficient=1.5), "ConfigError", "it must lie in [0, 1]"),
    "beta negative": (keys(mixture_coefficient=-0.5), "ConfigError", "it must lie in [0, 1]"),
    "no rounds": (keys(num_rounds=0), "ConfigError", "num_rounds is 0: it must be at least 1"),
    "epochs of other rounds": (keys(num_rounds=2, round_epochs=[1, 2, 3]), "ConfigError", "round_epochs has 3"),
    "epochs not positive": (keys(round_epochs=[0]), "ConfigError", "each must be larger than 0"),
    "no tokens in a pass": (keys(generation_batch_tokens=0), "ConfigError", "generation_batch_tokens is 0"),
    "empty shards": (keys(shard_size=0), "ConfigError", "shard_size is 0"),
    "no lookahead": (keys(lookahead=0), "ConfigError", "lookahead is 0"),
    "negative temperature": (keys(temperature=-1), "ConfigError", "temperature"),
    "top_p above 1": (keys(top_p=1.5), "ConfigError", "top_p"),
    "negative top_k": (keys(top_k=-3), "ConfigError", "top_k"),
    "short rows": (keys(max_length=1), "ConfigError", "max_length is 1"),
    "two templates": (keys(chat_template="a", chat_template_path="b"), "ConfigError", "keep one"),
    "missing template": (keys(chat_template_path="no.jinja"), "ConfigError", "no.jinja: no such file"),
    "broken template": (keys(chat_template="{% if %}"), "ConfigError", "chat_template"),
    "unknown EOS token": (keys(eos_token="<nope>"), "ConfigError", "vocabulary has no such token"),
    "unknown choice": (keys(on_bad_rows="ignore"), "ConfigError", "choose one of raise, skip"),
    "unknown type of numbers": (keys(dtype="float8"), "ConfigError", "dtype is 'float8': choose one of"),
    "unknown schedule": (keys(lr_scheduler_type="cosin"), "ConfigError", "lr_scheduler_type"),
    "unknown method": (keys(method="bsh"), "ConfigError", "method is 'bsh'"),
    "wrong method": (keys(method="sft"), "ConfigError", "is a recipe for sft"),
    "no model": (keys(model_name_or_path=None), "ConfigError", "model_name_or_path is not set"),
    "no output": (keys(output_dir=None), "ConfigError", "output_dir is not set"),
    "no data": (keys(datasets=None), "ConfigError", "no data: give `datasets:`"),
    "data twice": (keys(dataset_name="a/b"), "ConfigError", "both `datasets` and `dataset_name`"),
    "data no list": (keys(datasets="d.jsonl"), "ConfigError", "it must be a list"),
    "data entry without path": (keys(datasets=[{"split": "train"}]), "ConfigError", "path"),
    "data entry with unknown key": (keys(datasets=[{"path": "json", "files": "x"}]), "ConfigError", "files"),
    "streaming": (keys(streaming=True), "ConfigError", "streaming is not supported"),
    "no rows wanted": (keys(max_train_examples=0), "ConfigError", "max_train_examples is 0"),
    "evaluation without data": (keys(eval_strategy="epoch"), "ConfigError", "give `eval_datasets`"),
    "environment no mapping": (keys(env="A=1"), "ConfigError", "env: got str, expected a mapping"),
    "environment no text": (keys(env={"A": [1]}), "ConfigError", "is no environment variable"),
    "old and new key": (keys(max_seq_length=64, max_length=64), "ConfigError", "are the same setting"),
    "no reference rows": (keys(method="rac", reference_rows=1.1), "ConfigError", "reference_rows"),
    "no draft": (keys(method="rac", max_draft_length=0), "ConfigError", "max_draft_length"),
}  # fmt: skip

ROWS: dict[str, tuple[Change, str, str]] = {
    "missing file": (keys(datasets=[{"path": "json", "data_files": "no.jsonl"}]), "ConfigError", "no such file"),
    "empty file": (data_file("e.jsonl", ""), "ConfigError", "e.jsonl: is empty"),
    "blank file": (data_file("n.jsonl", "\n\n"), "DataError", "n.jsonl [train]: "),
    "broken JSON": (data_file("b.jsonl", '{"a": '), "DataError", "b.jsonl [train]: cannot be loaded"),
    "no text": (data_file("x.jsonl", b"\xff\xfe\x00\x01"), "DataError", "x.jsonl [train]: cannot be loaded"),
    "no parquet": (data_file("p.parquet", "no parquet"), "DataError", "p.parquet [train]: cannot be loaded"),
    "a list of numbers": (data_file("l.jsonl", "1\n2\n"), "DataError", "l.jsonl [train]: "),
    "unknown split": (
        lambda f: {"datasets": [{**rows(GOOD)(f)["datasets"][0], "split": "dev"}]}, "DataError", "dev",
    ),
    "other columns": (rows({"question": "a", "answer": "b"}), "DataError", "no column 'prompt' and no column"),
    "null answer": (rows_with({"prompt": "one", "completion": None}), "DataError", "row 1 "),
    "empty answer": (rows_with({"prompt": "one", "completion": ""}), "DataError", "completion is empty"),
    "blank prompt": (rows_with({"prompt": " \n", "completion": "a"}), "DataError", "prompt is empty"),
    "numbers for text": (rows({"prompt": 1, "completion": 2}), "DataError", "prompt is int, not a string"),
    "long prompt": (
        lambda f: {**rows_with({"prompt": "one " * 400, "completion": "a"})(f), "truncate_long_rows": False},
        "DataError", "the prompt alone has",
    ),
    "long answer": (
        lambda f: {**rows_with({"prompt": "one", "completion": "a " * 400})(f), "truncate_long_rows": False},
        "DataError", "over-length",
    ),
    "only long prompts": (rows({"prompt": "one " * 400, "completion": "a"}), "DataError", "no row is left"),
    "empty text": (rows({"text": "a"}, {"text": " "}), "DataError", "text is empty"),
    "text as a chat": (
        lambda f: {**rows({"text": "a"})(f), "as_chat": True}, "ConfigError", "column text: got plain text, expected",
    ),
    "images": (rows({**GOOD, "image": "a.png"}), "DataError", "column image: got vision-related data"),
    "same id twice": (rows({"id": "a", **GOOD}, {"id": "a", **GOOD}), "DataError", "duplicate id: row 0"),
    "turns without answer": (rows({"messages": [USER]}), "DataError", "there is no answer to learn"),
    "turn without role": (rows({"messages": [{"content": "a"}, ANSWER]}), "DataError", "no role"),
    "turns that are text": (rows({"messages": ["a", "b"]}), "DataError", "no role"),
    "messages that are text": (rows({"messages": "a"}), "DataError", "messages is str, not a list"),
    "prompt of turns, answer of text": (rows({"prompt": [USER], "completion": "a"}), "DataError", "prompt is list"),
    "ids with nothing to learn": (
        rows({"input_ids": [5, 6], "labels": [-100, -100]}), "DataError", "no trainable token",
    ),
    "ids beyond the vocabulary": (
        rows({"input_ids": [5, 99999, 1], "labels": [-100, 99999, 1]}), "DataError", "99999",
    ),
    "negative ids": (rows({"input_ids": [-5, 6, 1], "labels": [-100, 6, 1]}), "DataError", "-5"),
    "ids that are text": (rows({"input_ids": ["a"], "labels": ["b"]}), "DataError", "input_ids"),
    "ids in a chat": (rows({"id": None, "messages": None}), "DataError", "messages is null or empty"),
}  # fmt: skip

MODELS: dict[str, tuple[Change, str, str]] = {
    "missing": (keys(model_name_or_path="./none"), "ConfigError", "none cannot be loaded"),
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
    "tokenizer without EOS": (model(without_eos), "ConfigError", "has no EOS token"),
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
    "a list": ("- a\n", "must be a mapping"),
    "nothing": ("", "must be a mapping"),
    "no YAML": ("a: [", "not valid YAML"),
    "a key twice": ("method: bash\nseed: 1\nseed: 2\n", "line 3: seed is given twice"),
    "an object": ("a: !!python/object:os.system {}\n", "not valid YAML"),
    "a date": ("method: bash\nseed: 2024-99-99\n", "seed is '2024-99-99': it must be a whole number"),
    "a number as key": ("method: bash\n1: 2\n", "the key 1 is not a string"),
    "a list as key": ("method: bash\n? [a]\n: 2\n", "not valid YAML"),
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
    "missing recipe": (("bash", "--config", "no.yaml"), "no.yaml: no such recipe"),
    "unknown option": (("bash", "--config", "RECIPE", "--seeed", "1"), "did you mean 'seed'"),
    "option without value": (("bash", "--config", "RECIPE", "--seed"), "seed"),
    "wrong type of option": (("bash", "--config", "RECIPE", "--seed", "a"), "seed"),
    "unknown resume": (("bash", "--config", "RECIPE", "--resume", "maybe"), "choose one of auto, never, must"),
    "unknown accelerate configuration": (("bash", "--accelerate_config", "x", "--config", "RECIPE"), "there are ddp"),
    "rows of a preview": (("preview", "--rows", "none", "--config", "RECIPE"), "must be a whole number"),
}


@pytest.mark.parametrize(("arguments", "words"), COMMANDS.values(), ids=COMMANDS)
def test_command_line(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = recipe(tmp_path)
    given = [path if argument == "RECIPE" else argument for argument in arguments]
    refuse(capsys, "ConfigError", words, tmp_path, *given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe whose run has its contexts, in two shards, and no model yet."""
    folder = tmp_path_factory.mktemp("made") / "folder"
    folder.mkdir()
    cli.main(["generate", *recipe(folder, shard_size=4)])
    return folder


@pytest.fixture
def generated(made: Path) -> Iterator[Path]:
    """The same folder, put back as it was after each test: a run is bound to its paths."""
    saved = shutil.copytree(made, made.with_name("saved"))
    yield made
    shutil.rmtree(made)
    saved.rename(made)


def contexts(run: Path) -> Path:
    return run / "round_1" / "_contexts"


def first_shard(run: Path) -> Path:
    return sorted(contexts(run).glob("shard-*"))[0]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def unfinished(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Damage a store whose manifest was not written yet."""

    def both(run: Path) -> None:
        (contexts(run) / "manifest.json").unlink()
        damage(run)

    return both


# name: (what is done to the run, the error, words of its message)
RUNS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated shard": (lambda r: cut(first_shard(r)), "StoreError", "its sha256 is not the manifest's; delete it"),
    "wrong checksum": (lambda r: flip(first_shard(r), 40), "StoreError", "its sha256 is not the manifest's"),
    "missing shard": (lambda r: first_shard(r).unlink(), "StoreError", "is in the manifest but not on disk"),
    "empty shard": (lambda r: first_shard(r).write_bytes(b""), "StoreError", "its sha256 is not the manifest's"),
    "truncated manifest": (lambda r: cut(contexts(r) / "manifest.json"), "StoreError", "manifest.json: is damaged"),
    "manifest of something else": (
        lambda r: (contexts(r) / "manifest.json").write_text("[]"), "StoreError", "is no manifest",
    ),
    "manifest without shards": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m.update(shards=3)), "StoreError", "manifest",
    ),
    "manifest of other shards": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["shards"].pop()), "StoreError", "manifest",
    ),
    "manifest of an old format": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["identity"].update(format_version=0)),
        "StoreError", "format_version: the store has 0, this run has 2",
    ),
    "other weights": (
        lambda r: edit_json(contexts(r) / "manifest.json", lambda m: m["identity"].update(weights="abc")),
        "StoreError", "weights: the store has 'abc'",
    ),
    "unfinished, truncated shard": (
        unfinished(lambda r: cut(first_shard(r))), "StoreError", "is truncated or damaged",
    ),
    "unfinished, flipped byte": (
        unfinished(lambda r: flip(first_shard(r), 40)), "StoreError", "is truncated or damaged",
    ),
    "unfinished, no parquet": (
        unfinished(lambda r: first_shard(r).write_text("text")), "StoreError", "is truncated or damaged",
    ),
    "unfinished, foreign shard": (
        unfinished(lambda r: shutil.copy(first_shard(r), contexts(r) / "shard-00007-of-00009.parquet")),
        "StoreError", "does not belong to a store of 2 shards",
    ),
    "unfinished, shards exchanged": (
        unfinished(lambda r: shutil.copy(first_shard(r), str(first_shard(r)).replace("shard-00000", "shard-00001"))),
        "StoreError", "shard-00001-of-00002.parquet: holds another shard",
    ),
    "truncated run.json": (lambda r: cut(r / "run.json"), "RunError", "run.json: is damaged"),
    "run.json of something else": (lambda r: (r / "run.json").write_text("[1]"), "RunError", "run.json: is damaged"),
    "run.json without settings": (
        lambda r: (r / "run.json").write_text('{"state": "running"}'), "RunError", "run.json: is damaged",
    ),
    "run.json of unknown state": (
        lambda r: edit_json(r / "run.json", lambda record: record.update(state="odd")), "RunError", "run.json",
    ),
    "other tokenizer": (
        lambda r: edit_json(r / "run.json", lambda record: record["inputs"].update(tokenizer="abc")),
        "RunError", "run.json, inputs: tokenizer: got abc, expected",
    ),
    "other data": (
        lambda r: write_rows(r.parent / "train.jsonl", [GOOD]), "RunError", "run.json, inputs: train examples: got",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "words"), RUNS.values(), ids=RUNS)
def test_store_and_run(
    damage: Callable[[Path], object], error: str, words: str, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(generated / "run")
    refuse(capsys, error, words, generated, "bash", "--config", str(generated / "recipe.yaml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e-3}, "learning_rate: the run there has None, this one 0.001"),
        ({"mixture_coefficient": 0.4}, "mixture_coefficient: the run there has None, this one 0.4"),
        ({"shard_size": 2}, "shard_size: the run there has 4, this one 2"),
        ({"method": "sft", "shard_size": None}, "method: the run there has 'bash', this one 'sft'"),
    ],
)
def test_changed_recipe(
    changes: dict[str, Any], words: str, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = recipe(generated, **{"shard_size": 4, **changes})
    refuse(capsys, "RunError", words, generated, changes.get("method", "bash"), *options)


def test_resume_options(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["bash", "--config", str(generated / "recipe.yaml"), "--resume"]
    refuse(capsys, "RunError", "holds a run (running), and --resume is never", generated, *options, "never")
    new = ["bash", *recipe(tmp_path), "--resume"]
    refuse(capsys, "RunError", "holds no run, and --resume is must", tmp_path, *new, "must")
    cli.main([*new, "never"])
    refuse(capsys, "RunError", "holds a run (complete), and --resume is never", tmp_path, *new, "never")
    cli.main([*new, "must"])
    assert "this run is complete" in capsys.readouterr().out
    cli.main([*options, "must"])


def test_other_weights_under_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT has no store: the run itself remembers what it started from."""
    base = shutil.copytree(BASE, tmp_path / "base")
    options = ["sft", *recipe(tmp_path, method="sft", model_name_or_path=str(base))]
    cli.main(options)
    shutil.rmtree(tmp_path / "run" / "round_1" / "model")
    edit_json(tmp_path / "run" / "run.json", lambda record: record.update(state="running"))
    flip(base / "model.safetensors", -3)
    refuse(capsys, "RunError", "run.json, inputs: model: got", tmp_path, *options)


PLACES: dict[str, tuple[str, str]] = {
    "a file": ("taken", "is a file"),
    "below a file": ("taken/run", "taken is no directory"),
    "another's directory": ("foreign", "holds thesis.txt but no run.json"),
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
    refuse(capsys, "RunError", "closed cannot be written; choose another", tmp_path, "bash", *options)


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


def test_the_matrix_is_large_enough() -> None:
    tables = (RECIPES, ROWS, MODELS, TEXTS, COMMANDS, RUNS, PLACES)
    assert sum(map(len, tables)) >= 60
