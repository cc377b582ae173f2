"""The docs name what there is: commands that parse, modules that import, files that exist, links that lead there."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import ENVIRONMENT, recipe_keys

from gapbridge import cli
from gapbridge.methods import answer_modes, list_methods


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("recipes/*/README.md"),
]
RECIPE = "recipes/tiny/bash/config_full.yaml"
# Words that stand for something of the reader's.
MEANT = {
    "RECIPE.yaml": RECIPE, "RECIPE": RECIPE, "URL": "http://127.0.0.1:8000/v1",
    "http://HOST:8000": "http://127.0.0.1:8000",
    "N": "1", "outputs/nN": "outputs/n1",
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """The lines of `gapbridge` in a page's code, continued lines joined; in running text those with an argument."""
    text = page.read_text()
    fenced = re.findall(r"```(?:shell|bash)\n(.*?)```", text, re.DOTALL)
    indented = re.findall(r"^    (.*)$", text, re.MULTILINE)
    inline = [code.replace("\n", " ") for code in re.findall(r"`(gapbridge [^`]+ [^`]+)`", text)]
    lines = "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    found = []
    for line in [*lines, *inline]:
        command = re.search(r"(?:^|-m )gapbridge (\S+.*)", line.strip())
        if command and not re.search("…|METHOD|COMMAND", line):
            found.append(re.split(r"\s#\s|;\s|\s→\s", f"{command[1]} ")[0].strip())
    return found


LINES = sorted({(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page)})


@pytest.mark.parametrize(("page", "line"), LINES)
def test_commands_parse(page: str, line: str) -> None:
    words = [MEANT.get(word, word) for word in shlex.split(line)]
    call = cli.parse(words)
    method = call.command if call.command in list_methods() else "bash"
    of_modes = {f"--{option}" for mode in answer_modes().values() for option in mode.options}
    known = {f"--{key}" for key in recipe_keys(method)} | of_modes
    options = [word.split("=")[0] for word in call.overrides if word.startswith("--")]
    assert [option for option in options if option not in known] == []
    for recipe in re.findall(r"recipes/\S+\.yaml", line):
        assert (ROOT / recipe).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_and_files_are_there(page: Path) -> None:
    text = page.read_text()
    wrong = []
    for name in sorted(set(re.findall(r"(?<![\w./-])gapbridge(?:\.[A-Za-z_]\w*)+", text))):
        parts = name.split(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if not hasattr(importlib.import_module(".".join(parts[:-1])), parts[-1]):
                wrong.append(name)
    paths = re.findall(
        r"(?:tests|benchmarks|docs|accelerate_configs|recipes|src)/[\w/.-]*\.(?:py|md|yaml|jsonl?|png|slurm)\b", text
    )
    wrong += [path for path in sorted(set(paths)) if "NAME" not in path and not (ROOT / path).exists()]
    for name, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
        if f"def {test}(" not in (ROOT / name).read_text():
            wrong.append(test)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if link.startswith("http"):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_import_what_there_is(page: Path) -> None:
    """Every block of Python is valid, and imports from this package names that it has."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).startswith("gapbridge"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short(page: Path) -> None:
    """Prose has one sentence a line, of at most 140 characters; tables and code may be wider."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).splitlines()
    assert [line for line in prose if len(line) > 140 and not line.startswith("|") and "`" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", pytest.param("docs/getting-started/quickstart.md", marks=pytest.mark.nightly)]
)
def test_the_scripts_run_as_pasted(page: str, tmp_path: Path) -> None:
    """All Python of a page, in one process. Folders with the names of the hub's model and data hold small ones."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    shutil.copytree(ROOT / "recipes" / "tiny" / "base", tmp_path / "HuggingFaceTB" / "SmolLM2-135M-Instruct")
    data = tmp_path / "trl-lib" / "Capybara"
    data.mkdir(parents=True)
    rows = [json.loads(line) for line in (ROOT / "recipes/tiny/data/train.jsonl").read_text().splitlines()[:70]]
    (data / "train.jsonl").write_text(
        "".join(json.dumps({"messages": row["prompt"] + row["completion"]}) + "\n" for row in rows)
    )
    script = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if "---" in script:
        assert "\n---\n" in done.stdout


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
