"""The form of error messages: `<file>, <row or key>: got X, expected Y. <one imperative sentence>.`

`gapbridge.errors.describe` and the exceptions build it. This test reads the code: it finds where errors are raised or
collected, and checks the words of each text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT
from test_words import WORDS


SOURCE = ROOT / "src" / "gapbridge"
RAISED = {"ConfigError", "DataError", "StoreError", "RunError", "TrainingError", "GapbridgeError", "NodeError"}
COLLECTED = re.compile(r"(^|_)((?<!forced_)errors|problems|unclear|wrong)$")
MAX_WORDS = 25
# A text that names places alone puts them before the message of a library or of another function.
PLACES = {"command", "entry", "id", "line", "row", "tasks", "turn"}
VERBS = set(
    """
    add append ask build call change check choose close combine construct continue convert copy correct create declare
    delete download drop end evaluate export finish fix free generate give increase install keep leave let limit
    list load lower make map measure merge move name open pass prepare put quote raise reduce remove rename repair
    repeat replace report resize restart restore run save select send set shorten show specify split start stop
    suppress take train
    turn unset update upgrade use wait write
    """.split()
)


def text_of(node: ast.expr | None) -> str | None:
    """A text as it stands in the code, with `{}` for each value; None for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else f"{left or '{}'}{right or '{}'}"
    return None


def texts_of(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts of an expression that is an error, or a list of errors."""
    text = text_of(node)
    if text is not None:
        yield node.lineno, text
    elif isinstance(node, ast.IfExp):
        yield from texts_of(node.body)
        yield from texts_of(node.orelse)
    elif isinstance(node, (ast.List, ast.Tuple)):
        for element in node.elts:
            yield from texts_of(element.value if isinstance(element, ast.Starred) else element)
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        yield from texts_of(node.elt)


def called(node: ast.Call) -> str:
    return (
        node.func.id
        if isinstance(node.func, ast.Name)
        else node.func.attr
        if isinstance(node.func, ast.Attribute)
        else ""
    )


def collects(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return COLLECTED.search(name) is not None


def written(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every error text that is raised, collected or returned without the four parts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and called(node.exc) in RAISED:
            if len(node.exc.args) == 1:
                yield from texts_of(node.exc.args[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and collects(node.func.value):
            if node.func.attr in ("append", "extend") and node.args:
                yield from texts_of(node.args[0])
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(collects(target) for target in targets):
                yield from texts_of(node.value)
        elif isinstance(node, ast.FunctionDef) and re.search(r"(^|_)errors?$", node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from texts_of(inner.value)


def described(tree: ast.Module) -> Iterator[tuple[int, list[str | None]]]:
    """(line, place, got, expected and advice) of every call of `describe` or of an exception, and of every row of a
    table `cases`. A variable stands for the text that was assigned to it last."""
    known: list[tuple[int, str, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            (target,) = node.targets[:1]
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts))
            known += [(node.lineno, name.id, value) for name, value in pairs if isinstance(name, ast.Name)]

    def resolved(argument: ast.expr, line: int) -> str | None:
        if isinstance(argument, ast.Name):
            values = [(at, value) for at, name, value in known if name == argument.id and at <= line]
            return text_of(max(values, key=lambda found: found[0])[1]) if values else None
        return text_of(argument)

    for line, name, value in known:
        if name == "cases" and isinstance(value, ast.Tuple):
            for row in value.elts:
                assert isinstance(row, ast.Tuple)
                parts = [resolved(part, line) for part in row.elts[1:]]
                yield row.lineno, [*parts, None][:4]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) == "require":
            yield node.lineno, [text_of(argument) for argument in node.args[1:]]
        elif isinstance(node, ast.Call) and (
            called(node) == "describe" or (called(node) in RAISED and len(node.args) > 1)
        ):
            yield node.lineno, [resolved(argument, node.lineno) for argument in node.args]


def objections(got: str | None, expected: str | None, advice: str | None) -> Iterator[str]:
    """What is wrong with the words of one message."""
    for name, text in (("got", got), ("expected", expected), ("advice", advice)):
        if text is not None and (match := WORDS.search(text)):
            yield f"{name}: {match[0]!r} is no word of the field"
        if text is not None and len(text.split()) > MAX_WORDS:
            yield f"{name}: {len(text.split())} words, at most {MAX_WORDS} wanted"
    if advice is None or advice.startswith("{}"):
        return
    first = re.match(r"[A-Z][a-z]+\b", advice)
    if first is None or first[0].lower() not in VERBS:
        yield f"advice: {advice!r} does not begin with an imperative"
    if re.search(r"[.;]( |$)", advice):
        yield f"advice: {advice!r} is more than one sentence, or ends with a full stop"


@pytest.mark.parametrize("folder", sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}))
def test_error_messages_have_one_form(folder: str) -> None:
    found = []
    paths = sorted((SOURCE / folder).rglob("*.py")) if (SOURCE / folder).is_dir() else [SOURCE / folder]
    for path in paths:
        tree, where = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(SOURCE)
        for line, text in written(tree):
            if not set(re.findall(r"[a-z]+", text)) <= PLACES:
                found.append(f"{where}:{line}: {text!r} has not the four parts")
        for line, parts in described(tree):
            if len(parts) != 4:
                found.append(f"{where}:{line}: an error takes place, got, expected and advice")
                continue
            found += [f"{where}:{line}: {objection}" for objection in objections(*parts[1:])]
    assert found == [], "\n".join(found)
