"""Any file as a recipe: `gapbridge validate` calls it good, or refuses it by name with exit code 2, in bounded time.

Nightly: other inputs in each run, and minutes of them. `test_fuzz.py` takes the same few hundred in every run.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE
from helpers.recipe_strategies import KEYS, TEXTS, TINY, VALUES, recipes
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gapbridge import cli


pytestmark = pytest.mark.nightly

SECONDS = 30  # for one recipe, on a busy machine
LONG = settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))

# What YAML has besides plain values, as it stands in files.
SCALARS = st.one_of(
    st.sampled_from(
        """
        no yes on off True FALSE null ~ 042 0o17 0x1F 0b11 1:30 1:30:00.5 1e-4 1E5 .inf -.INF .nan 1_000 +1 -0
        2024-05-01 2024-05-01T10:00:00Z = << ! !!str !!int !!float !!binary !!set !!timestamp !!python/none !x &a *a
        | > |- "" ''
        """.split()
    ),
    st.sampled_from(['"\\ud800"', "'\\0'", "9" * 5000, "1e" + "9" * 400, "{{ x }}", "\u2028", "\x85", "\ufeff"]),
    st.text(max_size=12),
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn, depth: int = 0) -> str:
    """A value as YAML may write it, in one line."""
    kind = draw(st.integers(0, 5 if depth < 3 else 2))
    if kind == 3:
        return f"[{', '.join(draw(st.lists(entries(depth + 1), max_size=3)))}]"
    if kind == 4:
        names = draw(st.lists(st.sampled_from(KEYS) | SCALARS, max_size=3))
        return f"{{{', '.join(f'{name}: {draw(entries(depth + 1))}' for name in names)}}}"
    if kind == 5:
        return draw(st.sampled_from(["&a ", "!!set ", "!!map ", "!!seq ", "!!omap "])) + draw(entries(depth + 1))
    return draw(SCALARS)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A shipped recipe with lines taken out, written otherwise, given twice, or put in."""
    values = {**TINY[draw(st.sampled_from(sorted(TINY)))], "model_name_or_path": str(BASE), "use_cpu": True}
    lines = [yaml.safe_dump({key: value}).rstrip("\n") for key, value in values.items()]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key = draw(st.sampled_from(sorted(values)) | st.sampled_from(KEYS) | SCALARS)
        line = f"{key}: {draw(entries())}"
        lines[at : at + draw(st.integers(0, 1))] = [line]
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n---\na: 1\n", "\n...\n", "\r\n\t"]))


def check(path: Path) -> None:
    environment, began = dict(os.environ), time.monotonic()
    try:
        cli.main(["validate", str(path), "--use_cpu", "true"])
    except SystemExit as stop:
        assert stop.code == cli.EXIT_USER_ERROR
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert time.monotonic() - began < SECONDS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


@LONG
@given(text=files())
@example(text="a: &a [*a]\n")
@example(text="a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)))
@example(text="a: " + "[" * 3000)
@example(text="a: " + "{a: " * 900 + "1" + "}" * 900)
@example(text="? {a: 1}\n: 2\n")
def test_files(text: str, path: Path) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    check(path)


@LONG
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-16")))
def test_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    check(path)


@LONG
@given(values=recipes())
def test_changed_recipes(values: dict[Any, Any], path: Path) -> None:
    path.write_text(yaml.safe_dump({**values, "model_name_or_path": str(BASE)}), encoding="utf-8")
    check(path)


@LONG
@given(environment=st.dictionaries(TEXTS | st.sampled_from(["HF_HOME", "A", "WANDB_API_KEY"]), VALUES, max_size=4))
def test_environments(environment: dict[Any, Any], path: Path) -> None:
    values = {**TINY["sft"], "model_name_or_path": str(BASE), "env": environment}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    check(path)
