"""The modules of the package and the imports between them: one direction, no circle, few boxes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


SOURCE = ROOT / "src" / "gapbridge"
# A box imports only boxes before it. The modules from `display` to `compat` stand below all, the command line above.
ORDER = (
    "display", "errors", "files", "jsonl", "compat", "intervals", "signals", "recipe", "decoding", "data", "store",
    "training", "methods", "reporting", "runs", "tasks", "generation", "evaluation", "gap", "compare", "planning",
    "handbook", "cli", "__main__",
)  # fmt: skip


def imported(path: Path) -> list[str]:
    """What a file imports, with the names that it takes out of a module; also for type checkers, and in functions."""
    package = ["gapbridge", *path.relative_to(SOURCE).with_suffix("").parts][:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found += [".".join([*base, *([node.module] if node.module else []), name.name]) for name in node.names]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


def module_name(path: Path) -> str:
    return ".".join(["gapbridge", *path.relative_to(SOURCE).with_suffix("").parts])


def box(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports() -> list[tuple[Path, str, str]]:
    """(file, its box, the box it imports) for every import inside the package, also those inside functions."""
    return [
        (path, ["gapbridge", *path.relative_to(SOURCE).with_suffix("").parts][1], box(target))
        for path in sorted(SOURCE.rglob("*.py"))
        for target in imported(path)
        if target.startswith("gapbridge.")
    ]


# Modules beside the folders are drawn as two boxes.
DRAWN = {
    **dict.fromkeys(("display", "errors", "files", "jsonl", "compat", "intervals", "signals"), "base"),
    **dict.fromkeys(("cli", "__main__"), "command line"),
}


def drawing() -> str:
    """The imports as a mermaid chart: folders, base and command line. What a box imports lies above it, and an arrow
    stands only where no longer way leads there."""
    boxes = list(dict.fromkeys(DRAWN.get(name, name) for name in ORDER))
    arrows = {
        (DRAWN.get(own, own), DRAWN.get(target, target)) for _, own, target in imports() if {own, target} <= set(ORDER)
    }
    behind: dict[str, set[str]] = {}
    for name in boxes:
        direct = {target for own, target in arrows if own == name and target != name}
        behind[name] = direct.union(*(behind[target] for target in direct))
    lines = ["flowchart BT"]
    for name in boxes:
        lines.append(f'    {name.replace(" ", "_")}["{name}"]')
    for name in boxes:
        around = {far for target in behind[name] for far in behind[target]}
        lines += [f"    {name.replace(' ', '_')} --> {far}" for far in boxes if far in behind[name] - around]
    return "\n".join(lines)


def test_the_drawing_in_the_docs_is_the_code() -> None:
    text = (ROOT / "docs" / "development" / "architecture.md").read_text()
    sampled = text.partition("```mermaid\n")[2].partition("\n```")[0]
    assert sampled == drawing(), f"docs/development/architecture.md must hold:\n{drawing()}"
    assert sum(line.endswith("]") for line in sampled.splitlines()) <= 18


def test_no_import_goes_up() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} <= set(ORDER)
    assert {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()} <= set(ORDER)
    wrong = [
        f"{path.relative_to(SOURCE)} imports {target}"
        for path, own, target in imports()
        if own in ORDER and target in ORDER and ORDER.index(target) > ORDER.index(own)
    ]
    assert wrong == []
    assert len({own for _, own, _ in imports()} & set(ORDER)) <= 20


def test_no_two_modules_import_each_other() -> None:
    """Whichever is read first can be understood: imports for type checkers count as well."""
    modules = {module_name(path): path for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    behind: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = imported(path)
        behind[name] = {way for target in targets for way in (target, target.rpartition(".")[0]) if way in modules}
    while leaves := [name for name, targets in behind.items() if not targets & behind.keys()]:
        for name in leaves:
            del behind[name]
    assert sorted(behind) == [], "these import each other in a circle, or such modules"


def test_methods_do_not_know_each_other() -> None:
    wrong = []
    for folder in (path for path in (SOURCE / "methods").iterdir() if path.is_dir()):
        for path in folder.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level == 2:
                    wrong.append(f"{path.relative_to(SOURCE)} imports {node.module}")
    assert wrong == []


def test_no_file_outside_names_a_method() -> None:
    """Commands find methods by their folders: none of them is named in code outside `methods`."""
    names = {path.name for path in (SOURCE / "methods").iterdir() if (path / "__init__.py").exists()}
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        inside = path.relative_to(SOURCE).parts[0]
        if inside in ("methods", "__init__.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                wrong.append(f"{path.relative_to(SOURCE)}, line {node.lineno}: {node.value!r}")
            if isinstance(node, ast.ImportFrom) and any(name in (node.module or "").split(".") for name in names):
                wrong.append(f"{path.relative_to(SOURCE)}, line {node.lineno}: {node.module}")
    assert wrong == []


@pytest.mark.parametrize("module", ["gapbridge", "gapbridge.methods", "gapbridge.methods.bash.config"])
def test_light_modules_stay_light(module: str) -> None:
    heavy = "torch transformers trl datasets accelerate peft matplotlib".split()
    code = f"import {module}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
