"""Forced errors: exact on models whose answers are known, and forced errors from the distribution that they are said
to be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.handmade import EOS, VOCAB, by_position, counting, examples_of, numbers_tokenizer
from scipy.stats import chisquare
from transformers import PreTrainedModel, TrainingArguments

from gapbridge.data.tokenization import build_examples
from gapbridge.decoding import Completion
from gapbridge.errors import ConfigError
from gapbridge.gap.error_recovery import (
    ErrorRecovery,
    edit_recovered,
    recovery_score,
    score_recovery,
    tokens_recovered,
)
from gapbridge.gap.forced_errors import (
    ForcedError,
    ForcedErrorSet,
    continuations_after_errors,
    error_position,
    sample_forced_errors,
)
from gapbridge.tasks.word_problems import problems


PLACES = [0.0, 0.35, 0.75]
REFERENCE = [2, 3, 4, 5, 6, 7, EOS]


def _args(folder: Path) -> TrainingArguments:
    return TrainingArguments(str(folder), use_cpu=True, bf16=False)


def _slips(model: PreTrainedModel, folder: Path, count: int = 6, **changes: Any) -> ForcedErrorSet:
    options = {"source": "m", "places": PLACES, "max_completion_length": 12, **changes}
    return sample_forced_errors(
        model, numbers_tokenizer(), examples_of([0, 1], REFERENCE, count), _args(folder), **options
    )


def _recovery(model: PreTrainedModel, forced_errors: ForcedErrorSet, folder: Path, count: int = 6) -> ErrorRecovery:
    tokenizer, examples = numbers_tokenizer(), examples_of([0, 1], REFERENCE, count)
    completions = continuations_after_errors(
        model, tokenizer, examples, forced_errors, _args(folder), folder, max_completion_length=12
    )
    found = score_recovery(tokenizer, list(examples), forced_errors, completions)
    assert found is not None
    return found


def test_places() -> None:
    y, free = list(range(21)), [False] * 21
    assert [error_position(y, share, free, 99) for share in (0, 0.15, 0.35, 0.55, 0.75, 0.99)] == [0, 3, 7, 11, 15, 19]
    assert error_position(list(range(101)), 0.29, [False] * 101, 999) == 29
    assert error_position(y, 0.15, [at in (3, 4) for at in range(21)], 99) == 5, "a control token is passed over"
    assert error_position(y, 0.15, [True] * 21, 99) is None and error_position([EOS], 0.15, [False], 99) is None
    assert error_position(y, 0.15, free, 5) == 3 and error_position(y, 0.15, free, 4) is None, "no room to go on"


def test_a_model_that_returns_to_the_reference_recovers_everything(tmp_path: Path) -> None:
    model = by_position([0, *REFERENCE])
    found = _recovery(model, _slips(model, tmp_path), tmp_path)
    assert found.examples == [6, 6, 6] and (found.answers, found.truncated) == (18, 0)
    for score in (found.tokens_recovered, found.edit_recovered):
        assert [at.mean for at in score.at if at] == [1.0] * 3 and score.mean.mean == 1.0
    assert found.final_right is None and found.steps_right is None, "nothing marks a result here"


def test_a_model_that_goes_on_from_the_slip_recovers_nothing(tmp_path: Path) -> None:
    model = counting()
    forced_errors = _slips(model, tmp_path)
    found = _recovery(model, forced_errors, tmp_path)
    assert [at.mean for at in found.tokens_recovered.at if at] == [0.0] * 3
    in_circles = [
        forced_error and 8 <= forced_error.token < EOS
        for own in forced_errors.errors_by_example.values()
        for forced_error in own
    ]
    assert 0 < found.truncated == sum(map(bool, in_circles)) < found.answers


def test_answers_behind_slips_are_the_models_own(tmp_path: Path) -> None:
    tokenizer, examples = numbers_tokenizer(), examples_of([0, 1], REFERENCE, 3)
    sampled = {
        "e0": [ForcedError(1, 5), None],
        "e1": [ForcedError(1, 2), ForcedError(4, 9)],
        "e2": [None, ForcedError(5, 5)],
    }
    forced_errors = ForcedErrorSet("m", [0.2, 0.7], dict.fromkeys(sampled, REFERENCE), sampled)
    completions = continuations_after_errors(
        counting(), tokenizer, examples, forced_errors, _args(tmp_path), tmp_path, max_completion_length=8
    )
    assert completions == [
        [Completion([6, 7, EOS], True), None],
        [Completion([3, 4, 5, 6, 7, EOS], True), Completion([10, 11, 12], False)],  # 4 + 1 + 3 tokens are 8
        [None, Completion([6, 7], False)],  # 5 + 1 + 2 tokens are 8, and the stop token would be the ninth
    ]
    scores = score_recovery(tokenizer, list(examples), forced_errors, completions)
    assert scores is not None and scores.examples == [2, 2]
    # Behind y_1 stand 4 5 6 7 <eos>: two are missing, or two too many at the start; behind y_4: 7 <eos>; y_5: <eos>.
    expected = {"e0": pytest.approx(3 / 5), "e1": pytest.approx((5 / 6 + 0) / 2), "e2": 0}
    assert scores.edit_recovered.by_example == expected
    assert scores.tokens_recovered.by_example == {"e0": 0.0, "e1": 0.0, "e2": 0.0}


def test_forced_errors_follow_the_models_distribution_without_the_reference(tmp_path: Path) -> None:
    weights = torch.arange(1, VOCAB + 1, dtype=torch.float32)
    forced_errors = _slips(counting(weights.log()), tmp_path, 1500, places=[0.35])
    assert {
        forced_error.at for own in forced_errors.errors_by_example.values() for forced_error in own if forced_error
    } == {2}
    sampled = Counter(
        forced_error.token for own in forced_errors.errors_by_example.values() for forced_error in own if forced_error
    )
    allowed = [token for token in range(VOCAB) if token not in (REFERENCE[2], EOS)]
    assert set(sampled) <= set(allowed) and sampled.total() == 1500
    expected = weights[allowed] / weights[allowed].sum() * 1500
    assert chisquare([sampled[token] for token in allowed], expected.numpy().astype(float)).pvalue > 0.001


def test_forced_errors_depend_on_example_and_seed_alone(tmp_path: Path) -> None:
    model = counting(torch.zeros(VOCAB))
    first = _slips(model, tmp_path, 40).errors_by_example
    assert _slips(model, tmp_path, 40, batch_size=7).errors_by_example == first
    assert _slips(model, tmp_path, 10).errors_by_example == {key: first[key] for key in list(first)[:10]}
    assert _slips(model, tmp_path, 40, seed=1).errors_by_example != first


def test_answers_are_kept(tmp_path: Path) -> None:
    model = counting()
    forced_errors = _slips(model, tmp_path, 70)
    before = _recovery(model, forced_errors, tmp_path, 70)
    (manifest,) = tmp_path.glob("*/manifest.json")
    first, second = sorted(manifest.parent.glob("shard-*"))
    written = first.stat().st_mtime_ns
    manifest.unlink()
    second.unlink()
    assert _recovery(model, forced_errors, tmp_path, 70) == before
    assert first.stat().st_mtime_ns == written and second.exists() and manifest.exists()
    _recovery(model, _slips(model, tmp_path, 70, seed=1), tmp_path, 70)
    assert len(list(tmp_path.glob("*/manifest.json"))) == 2, "other forced errors, another store"
    assert json.loads(manifest.read_text())["identity"]["forced_errors"] == forced_errors.digest()


def test_forced_errors_are_for_references_of_the_same_tokens(tmp_path: Path) -> None:
    forced_errors = _slips(counting(), tmp_path)
    forced_errors.check(examples_of([0], REFERENCE, 6), "other")
    with pytest.raises(ConfigError, match="--error_source self"):
        forced_errors.check(examples_of([0], [*REFERENCE[1:], EOS], 6), "other")


def test_scores_by_hand() -> None:
    y = [1, 2, 3, 4, 5]
    assert tokens_recovered(y, 1, [3, 9, 5, 7]) == pytest.approx(2 / 3) and tokens_recovered(y, 1, []) == 0.0
    assert edit_recovered(y, 1, [9, 3, 4, 5]) == pytest.approx(3 / 4) and edit_recovered(y, 1, []) == 0.0
    score = recovery_score([[1.0, 0.0], [0.5, None], [None, None]], ["a", "b", "c"])
    assert score is not None and [at and at.mean for at in score.at] == [0.75, 0.0]
    assert score.by_example == {"a": 0.5, "b": 0.5} and score.mean.mean == 0.5
    assert recovery_score([[None]], ["a"]) is None


def test_results_and_steps_behind_a_slip(tokenizer: Any) -> None:
    """A forced error in the first line of a word problem; the answers go on as the reference, or with a wrong last
    step."""
    rows = [problem.row() for problem in problems("test", count=2, steps=(3,))]
    examples = list(
        build_examples(Dataset.from_list(rows), tokenizer, stops=[tokenizer.eos_token_id], max_length=None)
    )
    sampled, completions = {}, []
    for example in examples:
        first_line = tokenizer.decode(example.completion_ids).index("\n")
        at = len(
            tokenizer(tokenizer.decode(example.completion_ids)[: first_line // 2], add_special_tokens=False).input_ids
        )
        wrong = next(t for t in range(50, 90) if t != example.completion_ids[at] and "\n" not in tokenizer.decode([t]))
        sampled[example.id] = [ForcedError(at, wrong)]
        completions.append([Completion(example.completion_ids[at + 1 :], True)])
    forced_errors = ForcedErrorSet("m", [0.1], {e.id: e.completion_ids for e in examples}, sampled)
    found = score_recovery(tokenizer, examples, forced_errors, completions)
    assert found is not None and found.final_right is not None and found.steps_right is not None
    assert found.final_right.mean.mean == 1.0 and found.steps_right.mean.mean == 1.0

    # The second answer is cut in the line of its result: its two last steps of three stand, its result does not.
    own = examples[1]
    cut = tokenizer.decode(own.completion_ids[sampled[own.id][0].at + 1 :], skip_special_tokens=True).rindex("\n")
    words = tokenizer.decode(own.completion_ids[sampled[own.id][0].at + 1 :], skip_special_tokens=True)[: cut + 1]
    completions[1] = [Completion(tokenizer(words, add_special_tokens=False).input_ids, False)]
    found = score_recovery(tokenizer, examples, forced_errors, completions)
    assert found is not None and found.final_right is not None and found.steps_right is not None
    assert found.final_right.by_example[own.id] == 0.0 and found.final_right.mean.mean == 0.5
    assert found.steps_right.by_example[own.id] == pytest.approx(2 / 3) and found.truncated == 1
