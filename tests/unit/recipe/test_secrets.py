"""No file and no message holds a secret: by its name, by its form, or as a part of a URL."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_recipe import parse, write

from gapbridge import cli
from gapbridge.data.sources import find_data
from gapbridge.errors import ConfigError, DataError, public
from gapbridge.recipe.secrets import redact, redacted_command
from gapbridge.recipe.variables import environment_errors
from gapbridge.runs.run_directory import resolved_recipe


NAMED = """
    GITHUB_PAT DB_PASS MYSQL_PWD PGPASSWORD AZURE_STORAGE_CONNECTION_STRING SERVICE_CONNSTR SSH_PASSPHRASE HF_AUTH
    SLACK_WEBHOOK_URL SESSION_COOKIE BEARER WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY PASS db_pass SENTRY_DSN
    X_AUTH_HEADER JWT AZURE_SAS CLIENT_CREDENTIALS
""".split()
INNOCENT = """
    PATHS KEEP PASSES N_PASSES AUTHOR TOKENIZERS_PARALLELISM COMPASS_DIR KEYBOARD PATTERN OMP_NUM_THREADS BYPASS
    WANDB_PROJECT NCCL_DEBUG SIGNAL MAX_TOKENS
""".split()


@pytest.mark.parametrize("name", NAMED)
def test_variables_that_are_named_like_secrets(name: str) -> None:
    assert redact({"env": {name: "12345678"}}).secrets and redact({"env": {name: "s"}}).keys == {"env": {}}


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_variables_are_kept(name: str) -> None:
    assert redact({"env": {name: "4096"}}).keys == {"env": {name: "4096"}}
    assert redact({"env": {"USES_AUTH": "true"}}).keys == {"env": {"USES_AUTH": "true"}}


@pytest.mark.parametrize(
    "value",
    [
        "https://me:S3cr3t@host/", "postgresql+psycopg2://me:S3cr3t@host:5432/db", "https://host/?sig=S3cr3t",
        "Bearer S3cr3tS3cr3t", "Basic S3cr3tS3cr3t=", "Server=h;Password=S3cr3t;", "AccountKey=S3cr3t;Endpoint=h",
        "hf_S3cr3tabcdefghijklmnopq", "ghp_S3cr3tabcdefghijklmnop", "AKIAS3CR3TABCDEFGHIJ",
    ],
)  # fmt: skip
def test_values_that_look_like_secrets(value: str) -> None:
    assert redact({"env": {"SOMETHING": value}}).keys == {"env": {}}
    assert redact({"env": {"SOMETHING": "https://host:80/a#b"}}).keys == {"env": {"SOMETHING": "https://host:80/a#b"}}


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://b.s3.amazonaws.com/t.jsonl?X-Amz-Signature=S3cr3t&x=S3cr3t", "https://b.s3.amazonaws.com/t.jsonl"),
        ("https://me:S3cr3t@host:8080/a/t.jsonl", "https://host:8080/a/t.jsonl"),
        ("https://S3cr3t@host/t.jsonl", "https://host/t.jsonl"),
        ("https://me:S3cr3t/S3cr3t@host/t.jsonl", "https://host/t.jsonl"),
        ("https://me:S3cr3t?S3cr3t#@host/t.jsonl", "https://host/t.jsonl"),
        ("s3://S3cr3t:S3cr3t@bucket/t.jsonl", "s3://bucket/t.jsonl"),
        ("simplecache::https://me:S3cr3t@host/t.zip?sv=S3cr3t", "simplecache::https://host/t.zip"),
        ("hf://datasets/me/data@main/t.jsonl", "hf://datasets/me/data@main/t.jsonl"),
        ("/data/t@2024?.jsonl", "/data/t@2024?.jsonl"),
    ],
)
def test_urls_lose_user_and_query(url: str, kept: str, tmp_path: Path) -> None:
    assert public(url) == kept and public(f"see '{url}' [train]") == f"see '{kept}' [train]"
    job = parse(tmp_path, datasets=[{"path": "json", "data_files": {"train": [url]}}])
    resolved = resolved_recipe("bash", job.recipe)
    assert "S3cr3t" not in resolved and kept in resolved
    assert ("datasets.0.data_files.train.0" in resolved.partition("\ndatasets")[0]) == (url != kept)
    assert "S3cr3t" not in str(job.run_directory().settings)
    assert "S3cr3t" not in redacted_command(["--datasets", url])[1]
    with pytest.raises((ConfigError, DataError)) as caught:  # the tests have no network
        find_data(job.data, job.script, needs_eval=False)
    assert "S3cr3t" not in str(caught.value)


def test_a_url_that_is_signed_anew_is_the_same_run(tmp_path: Path) -> None:
    urls = [f"https://host/t.jsonl?sig={n}" for n in range(2)]
    jobs = [parse(tmp_path, datasets=[{"path": "json", "data_files": url}]) for url in urls]
    assert jobs[0].run_directory().settings == jobs[1].run_directory().settings
    assert jobs[1].data.datasets[0].data_files == urls[1]  # what is loaded is whole


def test_patterns_are_linear() -> None:
    for text in (
        "a-" * 100_000,
        "-eyJ" + "-eyJaaaaaaaa" * 20_000,
        "http://" * 30_000,
        "a:" * 100_000,
        "@://" * 50_000,
    ):
        public(text)


@pytest.mark.parametrize(
    "keys",
    [
        {"env": ["WANDB_API_KEY=S3cr3t"]},
        {"env": "WANDB_API_KEY=S3cr3t"},
        {"env": {"WANDB_API_KEY": ["S3cr3t"]}},
        {"env": {"WANDB_API_KEY": {"a": "S3cr3t"}}},
        {"env": {"WANDB_API_KEY=S3cr3t": None}},
        {"env": {"WANDB_API_KEY": "S3cr3t\0"}},
        {"hub_token": ["S3cr3t"]},
        {"hub_token": {"a": "S3cr3t"}},
        {"model_init_kwargs": [{"token": "S3cr3t"}]},
        {"dataset_mixture": [{"id": "https://me:S3cr3t@host/"}]},
        {"learning_rate": "https://me:S3cr3t@host/"},
    ],
)
def test_secrets_of_a_wrong_type_are_not_printed(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, **keys)
    assert "S3cr3t" not in str(caught.value) and next(iter(keys)) in str(caught.value)


def test_json_on_the_command_line_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, "--model_init_kwargs", '{"token": "S3cr3t"')
    assert "S3cr3t" not in str(caught.value)


def test_pickled_arguments_hold_none(tmp_path: Path) -> None:
    job = parse(tmp_path, hub_token="S3cr3t", lr_scheduler_kwargs={"password": "S3cr3t", "url": "http://a:S3cr3t@b"})
    assert b"S3cr3t" not in pickle.dumps(job.args)


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONWARNINGS", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH",
        "DYLD_INSERT_LIBRARIES", "BASH_ENV", "HF_MODULES_CACHE", "TRITON_CACHE_DIR", "CC", "MPLBACKEND", "pythonpath",
        "NCCL_NET_PLUGIN", "GIT_SSH_COMMAND",
    ],
)  # fmt: skip
def test_variables_that_say_which_code_is_loaded(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.environ.get(name)
    with pytest.raises(SystemExit) as caught:
        cli.main(["validate", write(tmp_path, env={name: str(tmp_path)})])
    assert caught.value.code == 2 and os.environ.get(name) == before
    assert f"env, {name}: got a variable that selects the code to load" in capsys.readouterr().err


def test_other_variables_are_taken() -> None:
    names = "HF_HOME SSH_PASSPHRASE GIT_TOKEN".split()
    names += "PYTHONHASHSEED PYTHONUNBUFFERED NCCL_DEBUG CUDA_VISIBLE_DEVICES WANDB_PROJECT OMP_NUM_THREADS".split()
    assert environment_errors(dict.fromkeys(names, "1")) == []
    assert environment_errors({"A": None})[0].startswith("env, 'A': got nothing, expected text")


def test_variables_are_set_before_libraries_read_them(tmp_path: Path) -> None:
    """In an interpreter of its own: in this one the libraries are imported long since."""
    path = write(tmp_path, env={"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"})
    code = f"""if True:
        import sys
        from gapbridge import cli
        assert not {{"torch", "huggingface_hub", "datasets", "transformers"}} & set(sys.modules)
        cli.set_early({path!r})
        from huggingface_hub.constants import HF_HOME
        print("home:", HF_HOME)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert f"home: {tmp_path / 'home'}" in done.stdout and "too late" not in done.stderr, done.stderr


def test_variables_that_come_too_late_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", "before")
    with pytest.raises(SystemExit):  # the data are not there
        cli.main(["validate", write(tmp_path, env={"HF_HOME": str(tmp_path)})])
    assert "env: HF_HOME has no effect, because huggingface_hub reads it at its import" in capsys.readouterr().err
