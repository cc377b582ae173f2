"""Forced slips: exact on models whose answers are known, and slips from the distribution that they are said to be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from handmade import EOS, VOCAB, by_position, counting, examples_of, numbers_tokenizer
from scipy.stats import chisquare
from transformers import PreTrainedModel, TrainingArguments

from gapbridge.decoding import Draft
from gapbridge.errors import ConfigError
from gapbridge.examples.build import build_examples
from gapbridge.gap.slip_scores import (
    SlipRecovery,
    edit_recovered,
    score_slips,
    slip_score,
    tokens_recovered,
)
from gapbridge.gap.slips import Slip, Slips, answers_behind, draw_slips, slip_place
from gapbridge.tasks.word_problems import problems


PLACES = [0.0, 0.35, 0.75]
REFERENCE = [2, 3, 4, 5, 6, 7, EOS]


def _args(folder: Path) -> TrainingArguments:
    return TrainingArguments(str(folder), use_cpu=True, bf16=False)


def _slips(model: PreTrainedModel, folder: Path, count: int = 6, **changes: Any) -> Slips:
    options = {"source": "m", "places": PLACES, "max_completion_length": 12, **changes}
    return draw_slips(model, numbers_tokenizer(), examples_of([0, 1], REFERENCE, count), _args(folder), **options)


def _recovery(model: PreTrainedModel, slips: Slips, folder: Path, count: int = 6) -> SlipRecovery:
    tokenizer, examples = numbers_tokenizer(), examples_of([0, 1], REFERENCE, count)
    drafts = answers_behind(model, tokenizer, examples, slips, _args(folder), folder, max_completion_length=12)
    found = score_slips(tokenizer, list(examples), slips, drafts)
    assert found is not None
    return found


def test_places() -> None:
    y, free = list(range(21)), [False] * 21
    assert [slip_place(y, share, free, 99) for share in (0, 0.15, 0.35, 0.55, 0.75, 0.99)] == [0, 3, 7, 11, 15, 19]
    assert slip_place(list(range(101)), 0.29, [False] * 101, 999) == 29
    assert slip_place(y, 0.15, [at in (3, 4) for at in range(21)], 99) == 5, "a control token is passed over"
    assert slip_place(y, 0.15, [True] * 21, 99) is None and slip_place([EOS], 0.15, [False], 99) is None
    assert slip_place(y, 0.15, free, 5) == 3 and slip_place(y, 0.15, free, 4) is None, "no room to go on"


def test_a_model_that_returns_to_the_reference_recovers_everything(tmp_path: Path) -> None:
    model = by_position([0, *REFERENCE])
    found = _recovery(model, _slips(model, tmp_path), tmp_path)
    assert found.examples == [6, 6, 6] and (found.answers, found.capped) == (18, 0)
    for score in (found.tokens_recovered, found.edit_recovered):
        assert [at.mean for at in score.at if at] == [1.0] * 3 and score.mean.mean == 1.0
    assert found.final_right is None and found.steps_right is None, "nothing marks a result here"


def test_a_model_that_goes_on_from_the_slip_recovers_nothing(tmp_path: Path) -> None:
    model = counting()
    slips = _slips(model, tmp_path)
    found = _recovery(model, slips, tmp_path)
    assert [at.mean for at in found.tokens_recovered.at if at] == [0.0] * 3
    in_circles = [slip and 8 <= slip.token < EOS for own in slips.drawn.values() for slip in own]
    assert 0 < found.capped == sum(map(bool, in_circles)) < found.answers


def test_answers_behind_slips_are_the_models_own(tmp_path: Path) -> None:
    tokenizer, examples = numbers_tokenizer(), examples_of([0, 1], REFERENCE, 3)
    drawn = {"e0": [Slip(1, 5), None], "e1": [Slip(1, 2), Slip(4, 9)], "e2": [None, Slip(5, 5)]}
    slips = Slips("m", [0.2, 0.7], dict.fromkeys(drawn, REFERENCE), drawn)
    drafts = answers_behind(counting(), tokenizer, examples, slips, _args(tmp_path), tmp_path, max_completion_length=8)
    assert drafts == [
        [Draft([6, 7, EOS], True), None],
        [Draft([3, 4, 5, 6, 7, EOS], True), Draft([10, 11, 12], False)],  # 4 + 1 + 3 tokens are 8
        [None, Draft([6, 7], False)],  # 5 + 1 + 2 tokens are 8, and the stop token would be the ninth
    ]
    scores = score_slips(tokenizer, list(examples), slips, drafts)
    assert scores is not None and scores.examples == [2, 2]
    # Behind y_1 stand 4 5 6 7 <eos>: two are missing, or two too many at the start; behind y_4: 7 <eos>; y_5: <eos>.
    expected = {"e0": pytest.approx(3 / 5), "e1": pytest.approx((5 / 6 + 0) / 2), "e2": 0}
    assert scores.edit_recovered.by_example == expected
    assert scores.tokens_recovered.by_example == {"e0": 0.0, "e1": 0.0, "e2": 0.0}


def test_slips_follow_the_models_distribution_without_the_reference(tmp_path: Path) -> None:
    weights = torch.arange(1, VOCAB + 1, dtype=torch.float32)
    slips = _slips(counting(weights.log()), tmp_path, 1500, places=[0.35])
    assert {slip.at for own in slips.drawn.values() for slip in own if slip} == {2}
    drawn = Counter(slip.token for own in slips.drawn.values() for slip in own if slip)
    allowed = [token for token in range(VOCAB) if token not in (REFERENCE[2], EOS)]
    assert set(drawn) <= set(allowed) and drawn.total() == 1500
    expected = weights[allowed] / weights[allowed].sum() * 1500
    assert chisquare([drawn[token] for token in allowed], expected.numpy().astype(float)).pvalue > 0.001


def test_slips_depend_on_example_and_seed_alone(tmp_path: Path) -> None:
    model = counting(torch.zeros(VOCAB))
    first = _slips(model, tmp_path, 40)
    assert _slips(model, tmp_path, 40, batch_size=7).drawn == first.drawn
    assert _slips(model, tmp_path, 10).drawn == {key: first.drawn[key] for key in list(first.drawn)[:10]}
    assert _slips(model, tmp_path, 40, seed=1).drawn != first.drawn


def test_answers_are_kept(tmp_path: Path) -> None:
    model = counting()
    slips = _slips(model, tmp_path, 70)
    before = _recovery(model, slips, tmp_path, 70)
    (manifest,) = tmp_path.glob("*/manifest.json")
    first, second = sorted(manifest.parent.glob("shard-*"))
    written = first.stat().st_mtime_ns
    manifest.unlink()
    second.unlink()
    assert _recovery(model, slips, tmp_path, 70) == before
    assert first.stat().st_mtime_ns == written and second.exists() and manifest.exists()
    _recovery(model, _slips(model, tmp_path, 70, seed=1), tmp_path, 70)
    assert len(list(tmp_path.glob("*/manifest.json"))) == 2, "other slips, another store"
    assert json.loads(manifest.read_text())["identity"]["slips"] == slips.digest()


def test_slips_are_for_references_of_the_same_tokens(tmp_path: Path) -> None:
    slips = _slips(counting(), tmp_path)
    slips.check(examples_of([0], REFERENCE, 6), "other")
    with pytest.raises(ConfigError, match="--slips_from each"):
        slips.check(examples_of([0], [*REFERENCE[1:], EOS], 6), "other")


def test_scores_by_hand() -> None:
    y = [1, 2, 3, 4, 5]
    assert tokens_recovered(y, 1, [3, 9, 5, 7]) == pytest.approx(2 / 3) and tokens_recovered(y, 1, []) == 0.0
    assert edit_recovered(y, 1, [9, 3, 4, 5]) == pytest.approx(3 / 4) and edit_recovered(y, 1, []) == 0.0
    score = slip_score([[1.0, 0.0], [0.5, None], [None, None]], ["a", "b", "c"])
    assert score is not None and [at and at.mean for at in score.at] == [0.75, 0.0]
    assert score.by_example == {"a": 0.5, "b": 0.5} and score.mean.mean == 0.5
    assert slip_score([[None]], ["a"]) is None


def test_results_and_steps_behind_a_slip(tokenizer: Any) -> None:
    """A slip in the first line of a word problem; the answers go on as the reference, or with a wrong last step."""
    rows = [problem.row() for problem in problems("test", count=2, steps=(3,))]
    examples = list(
        build_examples(Dataset.from_list(rows), tokenizer, stops=[tokenizer.eos_token_id], max_length=None)
    )
    drawn, drafts = {}, []
    for example in examples:
        first_line = tokenizer.decode(example.reference).index("\n")
        at = len(tokenizer(tokenizer.decode(example.reference)[: first_line // 2], add_special_tokens=False).input_ids)
        wrong = next(t for t in range(50, 90) if t != example.reference[at] and "\n" not in tokenizer.decode([t]))
        drawn[example.id] = [Slip(at, wrong)]
        drafts.append([Draft(example.reference[at + 1 :], True)])
    slips = Slips("m", [0.1], {e.id: e.reference for e in examples}, drawn)
    found = score_slips(tokenizer, examples, slips, drafts)
    assert found is not None and found.final_right is not None and found.steps_right is not None
    assert found.final_right.mean.mean == 1.0 and found.steps_right.mean.mean == 1.0

    # The second answer is cut in the line of its result: its two last steps of three stand, its result does not.
    own = examples[1]
    cut = tokenizer.decode(own.reference[drawn[own.id][0].at + 1 :], skip_special_tokens=True).rindex("\n")
    words = tokenizer.decode(own.reference[drawn[own.id][0].at + 1 :], skip_special_tokens=True)[: cut + 1]
    drafts[1] = [Draft(tokenizer(words, add_special_tokens=False).input_ids, False)]
    found = score_slips(tokenizer, examples, slips, drafts)
    assert found is not None and found.final_right is not None and found.steps_right is not None
    assert found.final_right.by_example[own.id] == 0.0 and found.final_right.mean.mean == 0.5
    assert found.steps_right.by_example[own.id] == pytest.approx(2 / 3) and found.capped == 1
