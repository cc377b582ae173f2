"""ROUGE equals the package to the last digit; sentences and empty answers follow the stated rules."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbridge.errors import DataError
from gapbridge.evaluation.aggregate import Group, grade_edits, grade_rouge, summarize_group
from gapbridge.evaluation.rouge import (
    ROUGE_METRICS,
    RougeScores,
    UnicodeTokenizer,
    is_dropped,
    score_rouge,
    sentence_lines,
)


rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

REFERENCE = "Police killed the gunman. He had fired on officers, twice. Nobody else was hurt!"
TEXTS = [
    (REFERENCE, REFERENCE),
    ("The gunman was killed by police.", REFERENCE),
    ("Nobody was hurt! The gunman was killing officers. Police had fired.", REFERENCE),
    ("the gunman\nwas killed by police\n", "police killed the gunman\nnobody was hurt"),
    ("One line. Two sentences.", "One line.\nTwo sentences."),
    ("Überraschung für 1,250 €!", "Eine Überraschung: 1,250 €."),
    ("...", REFERENCE),
    ("", REFERENCE),
]
WORDS = st.sampled_from("the police killed killing a gunman relations relational. hurt! 12.5 Dr. (no.) \n".split(" "))
SUMMARIES = st.lists(WORDS, max_size=25).map(" ".join)


def package(answer: str, reference: str) -> dict[str, float]:
    """The package's own scores of the texts as they are, and of ROUGE-Lsum with one sentence a line."""
    scorer = rouge_scorer.RougeScorer(list(ROUGE_METRICS), use_stemmer=True)
    values = {name: score.fmeasure for name, score in scorer.score(reference, answer).items()}
    lines = scorer.score(sentence_lines(reference), sentence_lines(answer))
    return {**values, "rougeLsum": lines["rougeLsum"].fmeasure}


def given_by(score: RougeScores) -> dict[str, float]:
    return {metric: vars(score)[metric] for metric in ROUGE_METRICS}


def test_equals_the_package() -> None:
    answers, references = zip(*TEXTS, strict=True)
    scores = score_rouge(answers, references)
    assert [given_by(score) for score in scores] == [package(*pair) for pair in TEXTS]
    assert scores[0].rouge2 == scores[0].rougeLsum == 1.0


@settings(max_examples=150, deadline=None)
@given(answer=SUMMARIES, reference=SUMMARIES.map(lambda text: f"{text} the end"))
def test_equals_the_package_on_any_text(answer: str, reference: str) -> None:
    (score,) = score_rouge([answer], [reference])
    assert given_by(score) == package(answer, reference)
    assert (score.answer_words, score.reference_words) == (len(answer.split()), len(reference.split()))


def test_texts_with_lines_equal_the_package_as_they_are() -> None:
    answer, reference = TEXTS[3]
    scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True)
    (score,) = score_rouge([answer], [reference])
    assert score.rougeLsum == scorer.score(reference, answer)["rougeLsum"].fmeasure


SCRIPTS = {
    "hindi": ("पूर्व प्रधानमन्त्री शिंजो आबेको हत्याले जापान स्तब्ध छ।", "शिंजो आबेको"),
    "chinese": ("猫坐在垫子上。", "猫在垫子"),
    "japanese": ("東京は日本の首都です。", "東京は"),
    "thai": ("สวัสดีชาวโลก", "สวัสดี"),
    "cyrillic": ("Москва, столица России, 2024", "столица России"),
    "arabic": ("القاهرة عاصمة مصر", "عاصمة مصر"),
    "hebrew": ("ירושלים היא עיר", "היא עיר"),
    "greek": ("Η Αθήνα είναι πρωτεύουσα", "η αθήνα"),
    "korean": ("서울은 대한민국의 수도이다", "서울은 수도이다"),
    "vietnamese": ("Hà Nội là thủ đô của Việt Nam", "thủ đô"),
    "mixed": ("iPhone 手机 很 好", "手机"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_words(script: str) -> None:
    """A text equals itself, a part of it is near, and the figures of another text are nothing."""
    full, part = SCRIPTS[script]
    itself, near, other = score_rouge([full, part, "2025 qq"], [full] * 3)
    assert {vars(itself)[name] for name in ROUGE_METRICS} == {1.0} and itself.unicode_words
    assert 0 < near.rouge1 < 1 and 0 < near.rougeL < 1 and 0 < near.rougeLsum < 1
    assert {vars(other)[name] for name in ROUGE_METRICS} == {0.0}


def test_unicode_words() -> None:
    tokenizer = UnicodeTokenizer(None)
    assert tokenizer.tokenize("Straße, ÉTÉ e\u0301te\u0301 ２０") == ["strasse", "été", "été", "20"]
    assert tokenizer.tokenize("हत्याले छ।") == ["हत्याले", "छ"]
    assert tokenizer.tokenize("猫abc垫 กำ_x") == ["猫", "abc", "垫", *tokenizer.tokenize("กำ"), "x"]
    assert not is_dropped("An English text with one β in it") and is_dropped("Один")


@pytest.mark.parametrize("reference", ["!!! ???", "…", "😀", "_"])
def test_a_reference_without_a_word_is_named(reference: str) -> None:
    with pytest.raises(DataError, match=f"row 1: got the reference {re.escape(repr(reference))} without a word"):
        score_rouge(["a", "a"], ["a", reference])


def test_long_texts_take_bounded_work() -> None:
    start = time.perf_counter()
    for answer, reference in (("a b c " * 150_000, "b c a " * 3_000), ("a\nb\n" * 20_000, "b\na\n" * 20_000)):
        (score,) = score_rouge([answer], [reference])
        assert 0 < score.rougeLsum <= 1
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A b. C d! E?", ["A b.", "C d!", "E?"]),
        ("He said “no.” Then (he left.)  End", ["He said “no.”", "Then (he left.)", "End"]),
        ("It costs 3.50 at a.b.c", ["It costs 3.50 at a.b.c"]),
        ("Dr. No", ["Dr.", "No"]),
        ("A. B.\nC. D.", ["A. B.", "C. D."]),
        ("A. B.\n", ["A.", "B."]),
        ("Wait... what?", ["Wait...", "what?"]),
        ("", [""]),
    ],
)
def test_sentence_rule(text: str, lines: list[str]) -> None:
    assert sentence_lines(text).split("\n") == lines


def test_the_sentence_rule_reaches_only_lsum() -> None:
    """The same sentences in another order: ROUGE-Lsum finds them all, ROUGE-L only the longest run."""
    (score,) = score_rouge(["Nobody was hurt. Police came."], ["Police came. Nobody was hurt."])
    assert score.rougeLsum == 1.0 and score.rougeL == pytest.approx(0.6)


def test_empty_answers_score_nothing_and_count() -> None:
    samples = [{"answer": text, "reference": "police came"} for text in ("", "police came", " \n")]
    group = Group("m", "single_pass", samples)
    grade_rouge([group])
    assert group.values("rouge1") == [0.0, 1.0, 0.0]
    record = summarize_group(group, "rouge")
    assert (record["count"], record["empty"]) == (3, 2)
    assert record["rouge1"]["mean"] == pytest.approx(1 / 3) and 0 < record["rouge1"]["low"] < 1 / 3
    assert record["answer_words"] == pytest.approx(2 / 3) and record["reference_words"] == 2.0


def test_thoughts_are_no_part_of_a_summary() -> None:
    answers = ["<think>police came</think>", "<think>no</think>police came", "police came"]
    group = Group("m", "single_pass", [{"answer": text, "reference": "police came"} for text in answers])
    grade_rouge([group])
    grade_edits([group])
    assert group.values("rougeL") == [0.0, 1.0, 1.0] and group.values("cer") == [1.0, 0.0, 0.0]
    thinking = Group("m", "single_pass", [{"answer": "<think>a b</think>c", "reference": "<think>a b</think>c"}])
    grade_edits([thinking])
    assert thinking.values("cer") == [0.0]


def test_data_faults_are_listed_at_once() -> None:
    with pytest.raises(DataError) as caught:
        score_rouge(["a", "b", "c"], ["", "b", "\n"])
    assert [error.split(":")[0] for error in caught.value.errors] == ["row 0", "row 2"]
