"""The procedural tasks: problems within their limits, disjoint splits, oracles that take only what is right."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gapbridge.errors import ConfigError
from gapbridge.tasks.__main__ import main
from gapbridge.tasks.page_summaries import FACTS, TRIFLES, claims
from gapbridge.tasks.procedural import SPLITS, Problem
from gapbridge.tasks.task import PROCEDURAL
from gapbridge.tasks.word_problems import NAMES


FEW = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 10**6)
# Options in their limits, for each task.
ORDERS = st.sampled_from(["working_first", "answer_first"])
OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "word_problems": st.fixed_dictionaries(
        {"steps": st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), "order": ORDERS}
    ),
    "page_summaries": st.fixed_dictionaries({"facts": st.integers(2, len(FACTS)), "distractors": st.integers(0, 12)}),
}
REQUESTS = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda name: st.tuples(st.just(name), OPTIONS[name], st.sampled_from(SPLITS), SEEDS)
)


def made(name: str, split: str = "train", count: int = 1, seed: int = 0, **options: Any) -> list[Problem]:
    return list(PROCEDURAL[name].problems(split, count=count, seed=seed, **options))


def score(name: str, problem: Problem, answer: str) -> dict[str, float]:
    return PROCEDURAL[name].score(problem.prompt, problem.answer, answer)


def computed(name: str, problem: Problem) -> Any:
    """What a problem computes, read from its text."""
    if name == "word_problems":
        lines = [line for line in problem.answer.splitlines() if not line.startswith("####")]
        return tuple(line.split(": ")[1].split("=")[0] for line in lines)
    return frozenset(claim.clause for claim in claims(problem.answer))


def test_every_task_is_tried_here() -> None:
    assert sorted(OPTIONS) == sorted(PROCEDURAL)


@FEW
@given(REQUESTS)
def test_the_oracle_takes_the_reference_and_no_other_task_data(request: tuple[str, dict[str, Any], str, int]) -> None:
    name, options, split, seed = request
    first, second = made(name, split, 2, seed, **options)
    scores = score(name, first, first.answer)
    assert scores["correct"] == 1 and set(PROCEDURAL[name].measures) <= set(scores)
    for answer in ("", " ", "#### ", "I do not know.", ", and , .", second.prompt):
        scores = score(name, first, answer)
        assert scores["correct"] == 0 and all(0 <= value <= 1 for value in scores.values()), answer
    if computed(name, first) != computed(name, second) and name != "word_problems":
        assert score(name, first, second.answer)["correct"] == 0


@FEW
@given(REQUESTS, st.data())
def test_the_oracle_refuses_a_changed_answer(
    request: tuple[str, dict[str, Any], str, int], data: st.DataObject
) -> None:
    """One word lost, said twice, or another in its place."""
    name, options, split, seed = request
    (problem,) = made(name, split, 1, seed, **options)
    words = problem.answer.replace("\n", " \n ").split(" ")
    at = data.draw(st.integers(0, len(words) - 1))
    assume(words[at] != "\n")
    forced_error = data.draw(st.sampled_from(("lost", "twice", "other")))
    changed = [
        *words[:at],
        *{"lost": (), "twice": (words[at],) * 2, "other": ("zzz9",)}[forced_error],
        *words[at + 1 :],
    ]
    answer = " ".join(changed).replace(" \n ", "\n")
    scores = score(name, problem, answer)
    assert all(0 <= value <= 1 for value in scores.values())
    if name == "word_problems":  # names and signs are no result: only what is changed there is seen
        result = next(line for line in problem.answer.splitlines() if line.startswith("####"))
        on_result = result not in answer.splitlines()
        assert scores["correct"] == (not on_result) or forced_error == "lost"
        if not on_result and not words[at].endswith(":"):
            assert scores["step_accuracy"] < 1
    else:
        assert scores["correct"] == 0


@FEW
@given(REQUESTS)
def test_problems_are_a_function_of_split_seed_index_and_options(
    request: tuple[str, dict[str, Any], str, int],
) -> None:
    name, options, split, seed = request
    sampled = made(name, split, 8, seed, **options)
    assert made(name, split, 8, seed, **options) == sampled and made(name, split, 2, seed, **options) == sampled[:2]
    assert [problem.id for problem in sampled] == [f"{split}-{seed}-{index}" for index in range(8)]
    row = sampled[0].row()
    assert row["prompt"][0]["content"] == sampled[0].prompt and row["completion"][0]["content"] == sampled[0].answer
    others = made(name, split, 8, seed + 1, **options)
    assert [problem.prompt for problem in others] != [problem.prompt for problem in sampled]


# Small enough that every computation comes up again and again.
SMALL: dict[str, dict[str, Any]] = {
    "word_problems": {"steps": (1,)},
    "page_summaries": {"facts": 2},
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_splits_share_no_computation(name: str) -> None:
    found = {split: {computed(name, problem) for problem in made(name, split, 600, **SMALL[name])} for split in SPLITS}
    assert min(len(each) for each in found.values()) > 3
    assert not (found["train"] & found["validation"] or found["train"] & found["test"])
    assert not found["validation"] & found["test"]


def test_a_wrong_first_line_is_not_mended_by_the_working() -> None:
    name, mark = "word_problems", "####"
    (problem,) = made(name, order="answer_first")
    first, _, working = problem.answer.partition("\n")
    assert first.startswith(mark) and mark not in working
    wrong = f"{mark} {int(first.removeprefix(mark)) + 1}\n{working}"
    assert score(name, problem, wrong) == {"correct": 0, "step_accuracy": 1, "result_consistent": 0}
    assert score(name, problem, f"{wrong}\n{first}")["correct"] == 0
    assert score(name, problem, f"{working}\n{first}") == {"correct": 0, "step_accuracy": 1, "result_consistent": 0}
    assert score(name, problem, working)["correct"] == 0
    assert score(name, problem, f"{problem.answer}\n{working}")["step_accuracy"] == 0.5
    (other,) = made(name)
    assert other.prompt == problem.prompt and other.answer == f"{working}\n{first}"
    assert score(name, other, f"{working}\n{first}") == {"correct": 1, "step_accuracy": 1, "result_consistent": 1}


@FEW
@given(OPTIONS["page_summaries"], SEEDS)
def test_a_page_says_what_its_summary_says(options: dict[str, Any], seed: int) -> None:
    (problem,) = made("page_summaries", "train", 1, seed, **options)
    needed = list(claims(problem.answer))
    page = problem.prompt.partition("\n")[2]
    assert len(needed) == options["facts"] and all(claim.is_on(page) and claim.kind in FACTS for claim in needed)
    assert len({claim.subject for claim in needed}) == 1 and f"deeds of {needed[0].subject} in" in problem.prompt
    assert page.count(".") == options["facts"] + options["distractors"]
    person = needed[0].subject
    assert not any(claim.is_on(page.replace(person, "Somebody")) for claim in needed)
    about = [wording.replace("{b}", person) for kind in FACTS for wording in kind.wordings if "{b}" in wording]
    for name in NAMES:  # what others do to the person is no deed of the person
        assert not any(sentence.format(a=name) in page for sentence in about)


PAGE = (
    "Sum up the home, work and deeds of Ana in one sentence.\n"
    "It rained a little. Ana lost 12 pens. By the lake Ana ran into Ben. Ben lost 2 pens. Ana has a dog."
)


@pytest.mark.parametrize(
    ("summary", "kept", "false", "needless"),
    [
        ("Ana lost 12 pens and met Ben.", 1, 0, 0),
        ("Ana met Ben and lost 12 pens", 1, 0, 0),
        ("Ana lost 12 pens. She met Ben.", 1, 0, 0),
        ("Ana lost 12 pens.", 0.5, 0, 0),
        ("Ana lost 2 pens and met Ben.", 0.5, 0.5, 0),
        ("Ben lost 12 pens and met Ana.", 0, 1, 0),
        ("Ana lost 12 pens, met Ben and has a dog.", 1, 0, 1 / 3),
        ("Ana lost 12 pens, met Ben and has a cat.", 1, 1 / 3, 0),
        ("Ana lost 12 pens, met Ben and Ben lost 2 pens.", 1, 0, 1 / 3),
        ("Ana lost 12 pens, lost 12 pens and met Ben.", 1, 0, 1 / 3),
        ("Ana lost pens and met Ben.", 0.5, 0.5, 0),
        ("lost 12 pens and met Ben.", 0, 1, 0),
        ("", 0, 0, 0),
    ],
)
def test_facts_kept_false_and_needless(summary: str, kept: float, false: float, needless: float) -> None:
    scores = PROCEDURAL["page_summaries"].score(PAGE, "Ana lost 12 pens and met Ben.", summary)
    assert scores.pop("correct") == (kept == 1 and not false and not needless)
    assert scores == pytest.approx({"facts_kept": kept, "false_facts": false, "needless_facts": needless})


def test_kinds_of_facts_are_told_apart() -> None:
    """Every wording tells every value, and no clause reads as another kind's."""
    for kind in FACTS + TRIFLES:
        values = re.findall(r"\{\w+\}", kind.clause)
        assert all(value in wording for wording in kind.wordings for value in ("{a}", *values))
        clause = re.sub(r"\{\w+\}", "9", kind.clause)
        assert [other for other in FACTS + TRIFLES if re.fullmatch(other.pattern, clause)] == [kind]


def test_rows_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    asked = ["--split", "validation", "--count", "3", "--steps", "1", "2", "--order", "answer_first"]
    main(["word_problems", *asked, "--output", str(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        problem.row() for problem in made("word_problems", "validation", 3, steps=(1, 2), order="answer_first")
    ]
    assert [row["completion"][0]["content"].count("\n") for row in rows] == [1, 2, 1]
    for wrong, message in (
        (["page_summaries", "--facts", "1", "--distractors", "900"], "2 errors"),
        (["word_problems", "--steps", "9"], "it must lie in 1 to 6"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*wrong, "--split", "test", "--count", "9", "--output", str(tmp_path / "none.jsonl")])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(ConfigError, match="2 errors"):
        made("word_problems", "dev", -1)


def test_the_examples_in_the_docs_are_what_the_commands_make(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "tasks.md").read_text()
    example = r"    python -m gapbridge\.tasks ([^\n]*) --output row\.jsonl\n\n```\n(.*?)\n\n(.*?)\n```"
    shown = re.findall(example, page, re.S)
    for command, prompt, answer in shown:
        main([*command.split(), "--output", str(tmp_path / "row.jsonl")])
        row = json.loads((tmp_path / "row.jsonl").read_text())
        assert (row["prompt"][0]["content"], row["completion"][0]["content"]) == (prompt, answer)
    assert {command.split()[0] for command, _, _ in shown} == set(PROCEDURAL)


def test_the_table_in_the_docs_names_every_option_and_score() -> None:
    rows = [
        line for line in (ROOT / "docs" / "reference" / "tasks.md").read_text().splitlines() if line.startswith("| `")
    ]
    for row, (name, task) in zip(rows, PROCEDURAL.items(), strict=True):
        options = {field.name: field.default for field in fields(task.options)}
        shown = {key: " ".join(map(str, v)) if isinstance(v, tuple) else v for key, v in options.items()}
        text = ", ".join(f"`{key}` {value}" for key, value in shown.items())
        (problem,) = made(name)
        scores = ", ".join(f"`{measure}`" for measure in list(score(name, problem, ""))[1:])
        assert row.startswith(f"| `{name}` |") and f"| {text} |" in row and f"; {scores} |" in row
