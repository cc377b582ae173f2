"""Where final answers stand, which are equal by the data sets' own match, and the table of corrections."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from gapbridge.evaluation.answer_extraction import bare_answer, marked_answer
from gapbridge.evaluation.asserted_text import asserted, own_parts
from gapbridge.evaluation.grading import _CURRENCY
from gapbridge.evaluation.latex_normalization import normalize_latex
from gapbridge.evaluation.math import correction_table, decided_without_parser, is_correct, same_answer
from gapbridge.evaluation.units import quantity


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        ("3+4=7\n#### 7", "7", "7"),
        ("#### 1,234", "1,234", "1234"),
        ("#### $18.50", "$18.50", "37/2"),
        ("#### -3", "-3", "-3"),
        ("#### -$3", "-$3", "-3"),
        ("#### 007", "007", "7"),
        ("#### 5.00", "5.00", "5"),
        ("#### .5", ".5", "1/2"),
        ("#### 3/4", "3/4", "3/4"),
        ("#### 18 eggs a day", "18 eggs a day", "18"),
        ("#### 1\nQuestion: more\n#### 2", "1", "1"),
        ("#### Solution\nSo 18.", None, None),
        ("#### Step 1\n5\n#### Step 2\n6", None, None),
        ("so she pays\nA: 90,000", "90,000", "90000"),
        ("A: Let us see. She has 2.\nSo\nA: 18", "18", "18"),
        ("A: Let us see. She has 2.", None, None),
        ("Job A: 2000 hours, job B: 30\nA: 8400", "8400", "8400"),
        ("A: Let us see. The answer is 18.", "18", "18"),
        ("**Answer:** 18", "18", "18"),
        ("**Answer:**\n18", "18", "18"),
        ("### Final Answer\n\n$$\n18\n$$", "18", "18"),
        ("Final Answer: The final answer is $18$. I hope so", "18", "18"),
        ("so the answer is $1,080 dollars.", "$1,080 dollars", "1080"),
        ("The answer is 5 + 10 = 15.", "5 + 10 = 15", None),
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}", "1/2"),
        (r"$\boxed{3}$ or $\boxed{-3}$", "3, -3", None),
        (r"\boxed{1 and \boxed{2}", "2", "2"),
        ("#### five", "five", "5"),
        ("#### 1/0", "1/0", None),
        ("####", None, None),
        ("she makes 7", None, None),
        (r"\boxed{1", None, None),
        ("", None, None),
    ],
)
def test_marked_answers(text: str, answer: str | None, value: str | None) -> None:
    assert marked_answer(text) == answer
    found = None if answer is None else quantity(answer)
    assert (found and str(found.value)) == value


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 9.\nSo x = 5.", "x = 5"),
        ("Alice", "Alice"),
        ("We see that it was she.\nAlice", None),
        ("She makes 18 dollars and 3 cents.", None),
        ("", None),
    ],
)
def test_bare_answers(text: str, answer: str | None) -> None:
    assert bare_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 1/2", Fraction(5, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        (r"2\frac12 \text{ hours}", Fraction(5, 2)),
        ("1.5e-3", Fraction(3, 2000)),
        (r"1.5 \times 10^{3}", Fraction(1500)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("$1,234.50 a day", Fraction(2469, 2)),
        ("2.5 million", Fraction(2500000)),
        ("20%", Fraction(20)),
        ("(2,5)", None),
        ("1,2,3", None),
        ("3,-3", None),
        ("6-5i", None),
        ("2x", None),
        ("2516_8", None),
        ("5 and 6", None),
        ("5 or", None),
        ("5!", None),
        ("2 3/2", None),
        ("1e9999", None),
        ("1" * 5000, None),
        ("nan", None),
        ("", None),
    ],
)
def test_a_number_is_the_whole_text(text: str, value: Fraction | None) -> None:
    found = quantity(text)
    assert (found and found.value) == value


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1,000", "1000", True),
        ("18.00", "18", True),
        ("$18", "18 dollars", True),
        ("20%", "20", True),
        (r"\frac12", r"\dfrac{1}{2}", True),
        (r"5 \text{ cm}", "5", True),
        ("1 m", "100 cm", True),
        ("1 m", "1 cm", False),
        (r"\text{east}", "east", True),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        ("x=5", "5", True),
        ("x=5", "y=5", False),
        (r"2\sqrt3", r"2\sqrt{3}", True),
        ("2^3", "2", False),
        (r"2\pi", "2", False),
        ("1.2", "12", False),
        ("1 2", "12", False),
        ("-3", "3", False),
        ("", "0", False),
        ("", "", False),
    ],
)
def test_same_answer(first: str, second: str, same: bool) -> None:
    assert same_answer(first, second) is same and same_answer(second, first) is same


@pytest.mark.parametrize(
    ("first", "second", "last_word"),
    [
        ("5", "6", True),
        ("listen", "silent", True),
        (r"\{1,2\}", "(1,2)", True),
        ("2516_8", "2516", True),
        ("2x+3=7", "7", True),
        ("x+1", "1+x", False),
        ("(1,2)", "(2,1)", False),
        ("3", "3,-3", False),
    ],
)
def test_math_verify_is_asked_where_it_knows_better(first: str, second: str, last_word: bool) -> None:
    assert decided_without_parser(first, second) is last_word


def test_an_answer_without_a_mark_is_no_exact_match() -> None:
    assert is_correct("#### 12", "x\n#### 12.0") and not is_correct("12", "#### 12") and not is_correct("", "#### 0")


def test_normal_form_keeps_what_tells_answers_apart() -> None:
    assert normalize_latex(r"**$\left(1,\, 2\right)$**.") == "(1,2)"
    assert normalize_latex(r"\text{A} \text{ and } \text{B}") != normalize_latex(r"\text{A} \text{ and } \text{C}")
    assert normalize_latex("x") != normalize_latex("X") and normalize_latex("Alice") == normalize_latex(
        r"\text{alice}"
    )


def test_monstrous_texts_take_no_time() -> None:
    many = 30_000
    texts = ["answer to " * many, "answer: " + " " * many, "#### " * many, "Answer:\n" * many, "answer is \\[" * many]
    texts += [
        "{" * many + "}" * many,
        r"\boxed{" * many,
        r"\boxed{1} and " * many,
        "(" * many,
        "1," * many,
        "9" * many,
    ]
    texts += [
        r"\boxed{" + "(" * 400 + ")" * 400 + "}",
        r"\boxed{1" + " eggs" * 190 + "}",
        r"\boxed{" + "$" * 990 + "}",
        *(
            piece * (200_000 // len(piece))
            for piece in ("$1 aaa ", "aaa ", "$ ", "Q:\n", "####\n", "72 or ", "not ", "<think>")
        ),
        "$1 " + "aaa " * 50_000,
        r"\boxed{7} and \boxed{8} and " * 3_000,
    ]
    for text in texts:
        start = time.perf_counter()
        answer = marked_answer(text) or bare_answer(text) or text[:1000]
        for known in (answer, text):  # a reference without a mark is compared whole
            same_answer(known, "18")
            decided_without_parser("18", known)
        _CURRENCY.sub("", text)
        assert time.perf_counter() - start < 5, text[:20]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>5</think>\n18", ["\n18"]),
        ("5</think>18<think>6", ["18"]),
        ("<think>5", []),
        ("<|channel|>analysis<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>18<|return|>", ["18"]),
        ("analysis5assistantfinal18", ["18"]),
        ("18\nuser\n5", ["18\n"]),
        ("18<|im_end|>\n<|im_start|>assistant\n5", ["18"]),
        ("User: 5?\nAssistant: 18", [" 18"]),
        ("User: 18", []),
        ("No.\nUser: 5?\nAssistant: 18", ["No.\n"]),
        ("18\nQ: 5?", ["18\n"]),
        ("Again.\nQ: 5?\nA: 18", ["Again.\n", "Q: 5?\nA: 18"]),
        ("AI: 18", ["AI: 18"]),
        ("", []),
    ],
)
def test_only_the_models_own_words_count(text: str, parts: list[str]) -> None:
    assert own_parts(text) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is 72, not 70.", "It is 72, ."),
        ("It is not 70 but 72.", "It is  but 72."),
        ("Is it 70? It is 72.", " It is 72."),
        ("It is 3/8 or 0.375.", "It is 3/8 or 0.375."),
        ("It is 3 or 5.", "It is  ."),
        ("Not counting tax she pays 72.", "Not counting tax she pays 72."),
    ],
)
def test_what_is_denied_or_asked_is_not_asserted(text: str, said: str) -> None:
    assert asserted(text).split() == said.split()


def test_correction_table_counts_each_case() -> None:
    table = correction_table([True, True, False, False, False], [True, False, True, False, True])
    assert table == {"wrong_to_right": 2, "right_to_wrong": 1, "right_to_right": 1, "wrong_to_wrong": 1}
