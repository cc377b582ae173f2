"""The gap's measures: zero where they must be, and right by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import VOCAB
from transformers import LlamaForCausalLM
from trl import SFTConfig

from gapbridge.data.example import Example
from gapbridge.decoding.engine import Completion
from gapbridge.gap.gap_metrics import (
    decision_accuracy,
    excess_error,
    recovery_context,
    recovery_curve,
    recovery_losses,
    recovery_rows,
)
from gapbridge.gap.logprobs import Scores, score
from gapbridge.gap.measure import GapReport, measure_gap
from gapbridge.gap.prefix_losses import TEMPERATURE_GRID, fit_temperatures, prefix_losses
from gapbridge.generation.held_out_completions import SINGLE_PASS, ExampleCompletions
from gapbridge.tasks.step_oracle import final_answers, first_wrong_step, oracle_tokens, solution_steps, wrong_steps
from gapbridge.tasks.word_problems import problems


def _rows(count: int = 7) -> tuple[list[list[int]], list[list[int]]]:
    rng = np.random.default_rng(0)
    return (
        [rng.integers(1, 97, rng.integers(2, 9)).tolist() for _ in range(count)],
        [rng.integers(1, 97, rng.integers(5, 20)).tolist() for _ in range(count)],
    )


def test_scores_are_the_models_own(llama: LlamaForCausalLM) -> None:
    prompts, references = _rows()
    contexts = [[(token + 1) % 97 for token in y] for y in references]
    scored = score(llama, prompts, contexts, references, batch_size=3)
    for x, context, y, scores in zip(prompts, contexts, references, scored, strict=True):
        with torch.no_grad():
            logits = llama(torch.tensor([[*x, *context]])).logits[0, len(x) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(y)[:, None])[:, 0]
        np.testing.assert_allclose(scores.log_probs, expected.numpy(), atol=2e-5)
        assert scores.hits.tolist() == (logits.argmax(-1) == torch.tensor(y)).tolist()


def test_only_labels_get_logits(llama: LlamaForCausalLM) -> None:
    """A vocabulary of 49,152 tokens takes a fifth of a real model's pass, and prompts have no label."""
    prompts, references = _rows()
    made: list[int] = []
    hook = llama.lm_head.register_forward_hook(lambda _, inputs, output: made.append(output.numel() // VOCAB))
    score(llama, prompts, references, references, batch_size=3)
    hook.remove()
    assert sum(made) == sum(map(len, references))


def test_scores_at_other_temperatures(llama: LlamaForCausalLM) -> None:
    prompts, references = _rows(3)
    plain = score(llama, prompts, references, references)
    scored = score(llama, prompts, references, references, temperatures=[1.0, 1.7])
    for x, y, before, scores in zip(prompts, references, plain, scored, strict=True):
        assert before.at_temperatures.shape == (0, len(y)) and (before.log_probs == scores.log_probs).all()
        with torch.no_grad():
            logits = llama(torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1]
        expected = (logits / 1.7).log_softmax(-1).gather(1, torch.tensor(y)[:, None])[:, 0]
        np.testing.assert_allclose(scores.at_temperatures, [scores.log_probs, expected.numpy()], atol=2e-5)
        entropies = torch.distributions.Categorical(logits=logits).entropy()
        np.testing.assert_allclose(scores.entropies, entropies.numpy(), atol=2e-5)


def test_prefix_losses_by_hand() -> None:
    """Two examples; each is measured at the temperature that fits the other."""

    def scores(log_probs: list[float], best: int) -> Scores:
        at = np.tile(np.array(log_probs) - 1, (len(TEMPERATURE_GRID), 1))
        at[best] += 0.5
        return Scores(np.array(log_probs), np.ones(len(log_probs), dtype=bool), at_temperatures=at)

    reference = [scores([-1.0, -2.0, -3.0], best=10), scores([-4.0, -5.0], best=20)]
    fitted = fit_temperatures(reference)
    assert fitted == [TEMPERATURE_GRID[20], TEMPERATURE_GRID[10]]
    after = {1: {0: [-9.0, -2.5, -3.5], 1: [-9.0, -6.0]}, 2: {0: [-9.0, -9.0, -4.0]}}
    generated = {
        k: {
            i: Scores(np.array(row), np.ones(len(row), dtype=bool), at_temperatures=np.array([row, row]) - [[1], [2]])
            for i, row in rows.items()
        }
        for k, rows in after.items()
    }
    losses = prefix_losses(reference, generated, fitted, ["a", "b"])
    one, fit = losses.overall["temperature_1"], losses.overall["fitted_temperature"]
    assert one["after_reference"].mean.mean == 3.0 and one["after_reference"].by_example == {"a": 2.0, "b": 4.5}
    assert one["after_generated"].mean.mean == pytest.approx((2.5 + 3.5 + 6 + 4) / 4)
    assert fit["after_reference"].by_example == {"a": 3.0, "b": 5.5}, "its own best temperature is not used"
    assert fit["after_generated"].by_example == pytest.approx({"a": 10 / 3 + 1, "b": 8.0})
    longest = losses.by_prefix_length["temperature_1"]["2"]
    assert longest.by_example == {"a": 4.0} and longest.examples == 1
    alone = prefix_losses(reference[:1], {1: {0: generated[1][0]}}, fit_temperatures(reference[:1]), ["a"])
    assert alone.fitted_temperatures == [] and list(alone.overall) == ["temperature_1"]


def test_a_prefix_that_is_the_reference_disturbs_by_exactly_nothing(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    """And such a row is not scored again: each example is scored after its reference once, and once freely."""
    prompts, references = _rows()
    references = [y if i else y[:4] for i, y in enumerate(references)]
    examples = [Example(str(i), x, [*y, 0], []) for i, (x, y) in enumerate(zip(prompts, references, strict=True))]
    other = [(token + 1) % 97 for token in references[1][:3]]

    def measured(first: list[int]) -> tuple[GapReport, int]:
        own = [[*y, 0] if i != 1 else [*first, *y[3:], 0] for i, y in enumerate(references)]
        answers = [
            ExampleCompletions(str(i), "", "", {SINGLE_PASS: ""}, {SINGLE_PASS: Completion(y, True)})
            for i, y in enumerate(own)
        ]
        rows: list[int] = []
        hook = llama.register_forward_pre_hook(
            lambda _, given, options: rows.append(len(options["input_ids"])), with_kwargs=True
        )
        args = SFTConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False)
        found = measure_gap(llama, None, examples, answers, args, prefix_lengths=[1, 3, 8])  # type: ignore[arg-type]
        hook.remove()
        return found, sum(rows)

    same, passes = measured(references[1][:3])
    assert [(d.mean, d.low, d.high) for d in same.recovery.delta] == [(0.0, 0.0, 0.0)] * 4
    assert passes == 2 * len(references)
    at_one, fitted = (
        same.losses.by_prefix_length[key]["3"].by_example for key in ("temperature_1", "fitted_temperature")
    )
    changed, passes = measured(other)
    assert passes == 2 * len(references) + 3, "the changed example at each k"
    assert {key for key, delta in changed.recovery.by_example.items() if delta != 0} == {"1"}
    for before, key in ((at_one, "temperature_1"), (fitted, "fitted_temperature")):
        after = changed.losses.by_prefix_length[key]["3"].by_example
        assert {i for i in after if after[i] != before[i]} == {"1"}, "the same digits, scored or taken over"


def test_recovery_by_hand(llama: LlamaForCausalLM) -> None:
    y, own, k = [5, 6, 7, 8], [9, 9, 9, 9, 9], 2
    assert recovery_context(y, own, k) == [9, 9, 7, 8]
    assert recovery_rows([y, y, [5, 6]], [own, [9], own], k) == [0], "a short draft, and a reference of k tokens"
    plain, disturbed = score(llama, [[1, 2]] * 2, [y, [9, 9, 7, 8]], [y, y])
    losses = recovery_losses(plain, disturbed, k)
    assert len(losses) == 2
    curve = recovery_curve({0: {"a": np.zeros(4), "b": np.zeros(1)}, k: {"a": losses}}, ["a", "b"])
    expected = (plain.log_probs[2:] - disturbed.log_probs[2:]).mean()
    assert curve.delta[1].mean == pytest.approx(expected) and curve.mean.mean == pytest.approx(expected)
    assert curve.examples == [2, 1]
    assert curve.by_example == {"a": pytest.approx(expected)}


def test_decisions_by_hand() -> None:
    def scores(hits: list[int]) -> Scores:
        return Scores(np.zeros(len(hits)), np.array(hits, dtype=bool))

    forced = [scores([1, 1, 1, 1]), scores([1, 0, 1, 1])]
    free = [scores([1, 0, 0, 0]), scores([1, 0])]  # the second draft ends after one token
    result = decision_accuracy(forced, free, bins=2)
    assert (result.start, result.end, result.examples) == ([0, 2], [2, 4], [2, 1])
    assert [i.mean for i in result.teacher_forced] == [0.75, 1.0]
    assert [i.mean for i in result.free_running] == [0.5, 0.0]
    assert result.drop.mean == pytest.approx(5 / 6 - 2 / 6)


def test_the_oracle_knows_the_line_but_not_the_middle_of_a_wrong_one() -> None:
    end = 10
    y = [1, 2, end, 3, 4, end, 5, 0]
    assert oracle_tokens(y, y, {end}) == y
    #            wrong in the first line, right in the second, one token too many in the last
    own = [1, 9, 9, end, 3, 4, end, 5, 0, 7]
    assert oracle_tokens(y, own, {end}) == [1, 2, None, None, 3, 4, end, 5, 0, None]
    assert oracle_tokens(y, [end, 3], {end}) == [1, 3], "a line that ends at once is wrong, the next one is known"


def test_excess_error_is_a_ratio_of_means() -> None:
    reference = [np.array([0.1, 0.1, 0.1]), np.array([0.1, 0.1])]
    same = excess_error(reference, reference, [1, 3])
    assert [(e.mean, e.low, e.high) for e in same.excess] == [(0.0, 0.0, 0.0)] * 2
    own = [np.array([0.1, np.nan, 0.4]), np.array([0.1, 0.2])]
    result = excess_error(own, reference, [1, 3])
    assert [e.mean for e in result.excess] == pytest.approx([0.0, 100 * (0.2 / 0.1 - 1)])


def test_first_wrong_steps() -> None:
    steps = solution_steps("Ben: 4+3=<<4+3=7>>7\nAna: 7*2=<<7*2=14>>14\n#### 14")
    assert steps == ["4+3=<<4+3=7>>7", "7*2=<<7*2=14>>14", "#### 14"]
    assert first_wrong_step("Eve: 4+3=<<4+3=7>>7\nAna: 7*2=<<7*2=14>>14\n#### 14", steps) is None
    assert first_wrong_step("Ben: 4+3=<<4+3=8>>8\nAna: 7*2=<<7*2=14>>14\n#### 14", steps) == 1
    assert first_wrong_step("Ben: 4+3=<<4+3=7>>7\nAna: 7*2=<<7*2=14>>14\n#### 15", steps) == 3
    assert first_wrong_step("", steps) == 1
    assert solution_steps("She has 3 + 4 = <<3+4=7>>7\n#### 7") is None and solution_steps("") is None
    for problem in problems("test", count=50, steps=(1, 3, 6)):
        known = solution_steps(problem.answer)
        assert known is not None and len(known) == len(problem.steps) + 1
    result = wrong_steps([1, 1, 2, None], [3, 3, 3, 3])
    assert (result.first_wrong, result.all_right) == ([2, 1, 0], 1)
    assert [i.mean for i in result.hazard] == [0.5, 0.5, 0.0]


def test_results_by_the_first_wrong_step() -> None:
    #      wrong in step 1, right in the end; wrong in step 1; all right; only the result wrong; wrong in step 3 of 3
    first, counts = [1, 1, None, 4, 3], [4, 4, 4, 4, 4]
    result = final_answers(first, counts, [True, False, True, False, False])
    assert (result.steps, result.completions) == ([1, 3], [2, 1])
    assert [share.mean for share in result.right] == [0.5, 0.0]
    assert (
        result.num_all_steps_correct == 2
        and result.right_if_all_steps_correct is not None
        and result.right_if_all_steps_correct.mean == 0.5
    )
    assert final_answers([1], [4], [True]).right_if_all_steps_correct is None


def test_intervals_of_the_curve_cover_the_truth() -> None:
    """Losses per token with a known mean and a share that each example has of its own."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        shift = rng.normal(0.3, 0.2, 80)
        tokens = {str(i): shift[i] + rng.normal(0, 0.5, rng.integers(5, 30)) for i in range(80)}
        interval = recovery_curve({4: tokens}, list(tokens), seed=trial).delta[0]
        covered += interval.low <= 0.3 <= interval.high
    assert 0.90 < covered / 200 < 0.985
