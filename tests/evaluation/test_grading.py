"""The grade of a worked answer: a table of verdicts as a careful teacher gives them, GSM8K's own answers, timeouts."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from gapbridge.errors import DataError
from gapbridge.evaluation.grading import Grade, grade_answers
from gapbridge.evaluation.math import is_correct, marked_answer, number
from gapbridge.evaluation.verification import verify, verify_answers


GSM8K = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
Row = tuple[str, str, bool]

NUMBERS: list[Row] = [
    ("18", "18", True),
    ("18", "#### 18", True),
    ("18.", "18", True),
    ("18.00", "18", True),
    ("018", "18", True),
    ("+18", "18", True),
    ("18", "81", False),
    ("180", "18", False),
    ("1.8", "18", False),
    (".5", "0.5", True),
    ("-3", "3", False),
    ("−3", "-3", True),  # Unicode's minus
    ("–3", "-3", True),  # a dash for a minus
    ("- 3", "-3", True),
    ("1,234", "1234", True),
    ("1,234,567", "1234567", True),
    ("1 234 567", "1234567", True),
    (r"1{,}234", "1234", True),
    (r"1\,234", "1234", True),
    (r"12{,}345{,}678", "12345678", True),
    ("1,234.50", "1234.5", True),
    ("1234", "1,234", True),
    ("12,34", "1234", False),
    ("1,2345", "12345", False),
    ("1.234", "1234", False),  # a point is a decimal point in English data sets
    ("1,5", "1.5", False),  # and a comma is none
    ("100, 200", "100200", False),
    ("five", "5", True),
    ("Five apples", "5", True),
    ("five", "6", False),
    ("2 million", "2000000", True),
    ("$2.5 million", "2500000", True),
    ("2 million", "2", False),  # taste: the question may ask for millions; the value differs
    ("inf", "18", False),
    ("nan", "18", False),
    ("NaN", "0", False),
    (r"\infty", r"\infty", True),
    ("infinity", r"\infty", True),
    ("∞", r"\infty", True),
    (r"-\infty", r"\infty", False),
    ("9" * 5000, "18", False),
    ("9" * 5000, "9" * 4999, False),
    ("1e999999999", "18", False),
    ("0." + "3" * 400, "18", False),
]

FRACTIONS: list[Row] = [
    ("1/2", "0.5", True),
    (r"\frac{1}{2}", "0.5", True),
    (r"\dfrac{1}{2}", r"\frac12", True),
    (r"\tfrac12", "1/2", True),
    (r"\frac{2}{4}", r"\frac{1}{2}", True),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", True),
    (r"\frac{1}{-2}", "-0.5", True),
    ("-1/2", r"-\frac{1}{2}", True),
    ("-1/2", "1/2", False),
    (r"\frac{2}{1}", r"\frac{1}{2}", False),
    ("½", "0.5", True),
    ("2½", "5/2", True),
    ("2 1/2", "5/2", True),
    ("2 1/2", "2.5", True),
    ("2 1/2", "10.5", False),
    ("2 1/2", "21/2", False),
    ("2 1/2", "1", False),
    ("-2 1/2", "-5/2", True),
    ("-2 1/2", "-1.5", False),
    (r"2\frac12", r"\frac{5}{2}", True),
    (r"2 \frac{1}{2}", "2.5", True),
    (r"-1\frac{3}{4}", "-1.75", True),
    ("2 and 1/2", "2.5", True),
    ("2 1/2 hours", "2.5", True),
    ("1/0", "0", False),
    ("1/0", "2/0", False),
    (r"\frac{1}{0}", r"\frac{2}{0}", False),
    ("1/3", "0.33", False),
    ("0.33", "1/3", False),
    ("0.333333", "1/3", True),  # taste: six places, math-verify's measure
    ("0.333334", "1/3", False),
    (r"0.\overline{3}", r"\frac13", True),
    (r"0.1\overline{6}", "1/6", True),
    (r"0.\overline{3}", "0.3", False),
    ("0.0000001", "0", False),
    ("3/4 cup", "0.75", True),
    ("3/4", "4/3", False),
]

SCIENTIFIC: list[Row] = [
    ("1.5e3", "1500", True),
    ("1.5E+3", "1500", True),
    ("1.5e-3", "0.0015", True),
    (r"1.5 \times 10^3", "1500", True),
    (r"1.5\cdot10^{3}", "1500", True),
    ("1.5 × 10³", "1500", True),
    ("1.5 x 10^3", "1500", True),
    ("1.5 * 10^-3", "0.0015", True),
    (r"1.5 \times 10^{4}", "1500", False),
    ("10^3", "1000", True),
    ("2^3", "8", True),
    ("2^3", "2", False),
    ("2^{10}", "1024", True),
    ("1.5e3", "1.5", False),
]

UNITS: list[Row] = [
    ("18 eggs", "18", True),
    ("18 eggs a day", "18", True),
    ("18", "18 eggs", True),
    ("18 eggs", "18 ducks", True),  # taste: words behind a number are not compared
    ("5 cm", "5", True),
    ("5cm", "5", True),
    (r"5 \text{ cm}", "5", True),
    (r"5\,\mathrm{cm}", "5 cm", True),
    ("5 cm", "5 m", False),
    ("100 cm", "1 m", True),
    ("100 cm", "1", False),
    ("5 cm", "5 centimeters", True),
    ("5 cm^2", "5", True),
    ("5 square centimeters", "5 cm^2", True),
    (r"5 \text{ cm}^2", r"5\text{ cm}^{2}", True),
    ("5 cm^2", "5 cm", False),
    ("1 hour", "60 minutes", True),
    ("90 minutes", "1 1/2 hours", True),
    ("60 km/h", "60 mph", False),
    ("60 miles per hour", "60 mph", True),
    ("45°", "45", True),
    (r"45^\circ", "45", True),
    (r"45^{\circ}", "45 degrees", True),
    ("45 degrees", r"\frac{\pi}{4}", False),
    ("20°C", "20°F", False),
    ("5 pm", "5 am", False),
    ("5 pm", "5", True),
    ("6:00 PM", "6:00 AM", False),
    ("6:00", "7:00", False),
    ("6:30 p.m.", "6:30 PM", True),
    ("10:15", "20:30", False),
    (r"2\pi \text{ cm}", r"2\pi", True),
    (r"2\pi \text{ cm}", r"2\pi \text{ m}", False),
    (r"25\pi\text{ square inches}", r"25\pi", True),
    ("$18", "18", True),
    (r"\$18", "18", True),
    ("$18.50", "18.5", True),
    ("-$18", "-18", True),
    ("$-18", "-18", True),
    ("-$18", "18", False),
    ("$1,080 dollars", "1080", True),
    ("18 dollars", "$18", True),
    ("18$", "18", True),
    ("$18 a day", "$18", True),
    ("$5", "500 cents", True),
    ("$5", "5 cents", False),
    ("€5", "$5", False),
    ("£5", "5", True),
    ("18 and a half", "18", False),
    ("2 thirds", "2", False),
    ("5 squared", "5", False),
    ("18 or 19", "18", False),
    ("5 hours and 30 minutes", "5", False),
    ("2 pi", "2", False),
    ("3 over 4", "3", False),
]

PERCENT: list[Row] = [
    ("20%", "20", True),  # taste: a question for a percentage has 20 or 20% for its reference
    ("20", "20%", True),
    ("20%", "0.2", True),
    ("20%", r"\frac{1}{5}", True),
    (r"20\%", "20", True),
    ("20 percent", "20%", True),
    ("0.2", "20", False),
    ("2%", "20%", False),
    ("0.2%", "20%", False),
    ("1/5", "20%", True),
    ("20%", "25", False),
    ("20%", "20 dollars", False),
    (r"33\frac{1}{3}\%", r"33\frac13", True),
]

TUPLES: list[Row] = [
    ("(2,5)", "(2,5)", True),
    ("(2, 5)", "(2,5)", True),
    (r"\left( 2, 5 \right)", "(2,5)", True),
    (r"\left(3, \frac{\pi}{2}\right)", r"(3, \pi/2)", True),
    ("(2,5)", "(2,7)", False),
    ("(2,5)", "(5,2)", False),
    ("(2,5)", "2", False),
    ("2", "(2,5)", False),
    ("(2,5,1)", "(2,5)", False),
    ("(1,234)", "1234", False),
    ("(x,y) = (2,5)", "(2,5)", True),
    ("(x,y) = (2,7)", "(2,5)", False),
    ("1,2", "(1,2)", True),  # taste: the point without its brackets, in its order
    ("2,1", "(1,2)", False),
    ("1,2,3", "1,5", False),
    ("1,2,3", "3,2,1", True),
    ("1, 2 and 3", "1,2,3", True),
    ("1,2,3", "1,2,3,4", False),
    ("1,2", "1", False),
    ("3", "3,-3", False),
    ("-3, 3", "3,-3", True),
    (r"\pm 3", "3,-3", True),
    ("±3", r"\pm 3", True),
    ("3", r"\pm 3", False),
    ("3 or -3", "3,-3", True),
    (r"3 \text{ and } -3", "3,-3", True),
    (r"\{1,2\}", r"\{2,1\}", True),
    (r"\{1,2\}", "1,2", True),
    (r"\{1,2\}", "(1,2)", False),
    ("(1,2)", r"\{1,2\}", False),
    (r"\{1,2\}", r"\{1,2,3\}", False),
    (r"\emptyset", r"\{\}", True),
    ("∅", r"\emptyset", True),
    ("[1,2]", "(1,2)", False),
    ("(1,2]", "[1,2]", False),
    ("(1,2]", "(1,2]", True),
    ("[1,2)", "(1,2]", False),
    (r"[1,2)\cup(3,4]", r"(3,4]\cup[1,2)", True),
    (r"(-\infty,3)", "x<3", True),
    ("x < 3", r"(-\infty, 3)", True),
    ("x ≤ 3", r"(-\infty, 3)", False),
    ("1 < x < 2", "(1,2)", True),
    (r"x \in [1,2]", "[1,2]", True),
    (r"x \in \{1,2\}", r"\{1,2\}", True),
    ("2:3", "3:2", False),
    ("2:3", "2:3", True),
    ("4:6", "2:3", True),
]

EXPRESSIONS: list[Row] = [
    ("6-5i", "6+5i", False),
    ("6+5i", "6+5i", True),
    ("5i+6", "6 + 5i", True),
    ("6", "6+5i", False),
    ("6+5i", "6", False),
    ("5i", "5", False),
    ("2x", "2x+9", False),
    ("2x", "2", False),
    ("2", "2x", False),
    ("2 x", "2", False),
    ("2ab", "2", False),
    ("2x+9", "9+2x", True),
    ("2x + 9", "2x+9", True),
    ("2x-9", "2x+9", False),
    ("(x+1)(x-1)", "x^2-1", True),
    ("x^2+2x+1", "(x+1)^2", True),
    ("x^2", "x^3", False),
    ("x^2", "2x", False),
    ("1.5x", r"\frac{3}{2}x", True),
    ("xy", "yx", True),
    (r"2\pi", "2", False),
    (r"2\pi", r"2\pi", True),
    ("2π", r"2\pi", True),
    ("2pi", r"2\pi", True),
    (r"\pi/2", r"\frac{\pi}{2}", True),
    (r"\pi", "3.14", False),
    ("3.14", r"\pi", False),
    ("3.141593", r"\pi", True),  # taste: six places
    (r"\sqrt3", r"\sqrt{3}", True),
    ("√3", r"\sqrt{3}", True),
    (r"2\sqrt3", r"\sqrt{12}", True),
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    (r"\sqrt{3}", "3", False),
    (r"\sqrt{4}", "2", True),
    ("5!", "120", True),
    ("5!", "5", False),
    (r"\binom52", "10", True),
    (r"\log_2 8", "3", True),
    ("5 + 10", "15", True),
    ("10 + John's age", "10", False),
    ("2516_8", "2516", False),
    ("2516", "2516_8", False),
    ("2516_8", "2516_{8}", True),
    ("2516_8", "2516_{10}", False),
    ("2517_8", "2516_8", False),
    ("1358", "2516_8", False),  # taste: the reference's base is what was asked for
    ("17_{10}", "17", True),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", True),
    (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", False),
    (r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", False),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "1", False),
    ("|x|", "x", False),
    (r"\sin^2 x", r"1-\cos^2 x", True),
]

EQUATIONS: list[Row] = [
    ("x = 5", "5", True),
    ("5", "x=5", True),
    ("x=5", "x = 5", True),
    ("y = 5", "x = 5", False),
    ("x = 5", "6", False),
    ("x = 5 dollars", "5", True),
    ("5 + 10 = 15", "15", True),
    ("5 + 10 = 15", "5", False),
    ("5 + 10 = 16", "15", False),
    ("x = 5 + 10 = 15", "15", True),
    (r"\angle ABC = 45^\circ", "45", True),
    ("f(x) = 2x+1", "2x+1", True),
    ("y = 2x+1", "2x+1", True),
    ("y = 2x+1", "y - 2x = 1", True),
    ("2x+1 = y", "y=2x+1", True),
    ("y = 2x+1", "y=2x+2", False),
    ("2x + 3 = 7", "7", False),
    ("x^2 = 9", "9", False),
    ("x + y = 5", "5", False),
    ("x = 3, x = -3", "3,-3", True),
    (r"x = 3 \text{ or } x = -3", r"\pm 3", True),
    ("x=3, y=4", "(3,4)", True),
    (r"x \neq 5", "5", False),
    ("x > 5", "5", False),
    ("x > 5", r"x \ge 5", False),
    ("5 < x", "x > 5", True),
    ("x > 5", "5 > x", False),
    ("x^2+y^2=1", "x^2+y^2=4", False),
    (r"\text{Total} = 15", "15", True),
]

WORDS: list[Row] = [
    ("yes", "Yes", True),
    ("Yes.", "yes", True),
    ("yes", "no", False),
    ("Yes, because 7 is prime.", "Yes", True),
    ("no", "on", False),
    ("No solution", "no", False),
    ("Alice", "Alice", True),
    (r"\text{Alice}", "Alice", True),
    ("alice", r"\text{Alice}", True),
    ("Alice", "Bob", False),
    ("listen", "silent", False),  # a product of letters commutes, a word does not
    ("east", "seat", False),
    (r"\text{east}", "east", True),
    (r"\text{north east}", "northeast", True),
    (r"\text{A and B}", r"\text{A and C}", False),
    (r"\text{Monday}", "Tuesday", False),
    ("no solution", r"\text{no solution}", True),
    ("(A)", "A", True),
    (r"\text{(A)}", "A", True),
    (r"\textbf{(A)}", "(A)", True),
    ("A.", "A", True),
    ("a", "A", True),  # taste: a choice more often than a variable
    ("(B)", "(A)", False),
    ("B) 12", "B", True),
    ("(B) 12", "(B)", True),
    ("Option B", "B", True),
    ("(B) 12", "A", False),
]

MARKS: list[Row] = [
    ("so\n#### 18", "so\n#### 18", True),
    ("so\n#### 18 ", "#### 18", True),
    ("so\n####18", "#### 18", True),
    ("so\n#### $18", "#### 18", True),
    ("so\n#### **18**", "#### 18", True),
    ("so\n#### 18.", "#### 18", True),
    ("so\n#### five", "#### 5", True),
    ("so\n#### 19", "#### 18", False),
    ("18\n#### 19", "#### 18", False),
    ("#### Solution\nShe has 5 and 10.\nThe answer is 18", "#### 18", True),
    ("#### Step 1\n16 - 3 = 13\n#### Step 2\n13 + 5 = 18\n\nThe answer is 18.", "#### 18", True),
    ("#### 1. Count\n5\n#### 2. Add\n13\n\n**Answer: 18**", "#### 18", True),
    ("#### 1. Count the eggs\nThere are 1.\nThe answer is 18", "#### 1", False),
    ("#### Step 1\nWe get 5.\n" + r"\boxed{18}", "#### 18", True),
    ("**Answer:**\n18", "18", True),
    ("**Answer:**\n\n18 eggs", "18", True),
    ("**Answer:** 18", "18", True),
    ("**Answer**: 18", "18", True),
    ("Answer: **18**", "18", True),
    ("**Answer: 18**", "18", True),
    ("### Answer\n\n18", "18", True),
    ("## Final Answer\n$18$", "18", True),
    ("Final Answer: $18$", "18", True),
    ("Final Answer:\n\\[\n18\n\\]", "18", True),
    ("Final Answer:\n\\[ \\boxed{18} \\]", "18", True),
    ("Final Answer: The final answer is $18$. I hope it is correct.", "18", True),
    ("A: 18", "18", True),
    ("Ans: 18", "18", True),
    ("A: Let us see.\nShe has 2.\nSo\nA: 18", "18", True),
    ("A: 16 - 3 - 4 = 9 eggs\n9 * 2 = 18\nThe answer is 18.", "18", True),
    ("A: 16 - 3 - 4 = 9 eggs\n9 * 2 = 18", "18", True),
    ("A: 16 - 3 - 4 = 9 eggs\n9 * 2 = 18", "9", False),
    ("Job A: 2000 hours, job B: 30\nA: 8400", "8400", True),
    ("The answer is 5 + 10 = 15.", "15", True),
    ("The answer is 5 + 10 = 15.", "5", False),
    ("The answer is 18.", "18", True),
    ("The answer is: 18", "18", True),
    ("The answer is **18**.", "18", True),
    ("**The answer is 18**", "18", True),
    ("(the answer is 18)", "18", True),
    ("The answer is 18!", "18", True),  # taste: joy, no factorial
    (r"The answer is \( 18 \).", "18", True),
    ("The answer is $18 a day.", "18", True),
    ("The answer is $18.", "18", True),
    ("the answer is $1,080 dollars.", "1080", True),
    ("The answer is 18, because 2 * 9 = 18 and not 20.", "18", True),
    ("The answer is 18 since 20 is too much.", "20", False),
    ("The answer to the question is therefore 18.", "18", True),
    ("The final answer would be -18", "-18", True),
    ("The answer is (2, 5).", "(2,5)", True),
    ("The answer is (2, 5).", "(2,7)", False),
    ("The answer is $x = 5$.", "5", True),
    ("The answer is Alice.", "Alice", True),
    ("The answer is yes, because 7 is prime.", "yes", True),
    ("The answer is (B).", "B", True),
    ("The answers are 3 and -3.", "3,-3", True),
    ("The solutions are x = 3 and x = -3.", "3,-3", True),
    ("The answer is 18.\nThat answer is reasonable.", "18", True),
    ("The answer is 5? No.\nWait: the answer is 18.", "18", True),  # what is said last
    ("The answer is 18? No.\nWait: the answer is 5.", "18", False),
    ("Answer: 18\n\nCheck: 9 * 2 = 18, and 20 would be wrong.", "18", True),
    (r"so $\boxed{18}$", "18", True),
    (r"so \boxed{18\text{ eggs}}.", "18", True),
    (r"so \boxed{\$18}", "18", True),
    (r"so \boxed{\dfrac{1}{2}}", r"\boxed{\frac{1}{2}}", True),
    (r"so \boxed{x = 5}", "5", True),
    (r"so \boxed{5 + 10 = 15}", "15", True),
    (r"so \boxed{\text{Alice}}", "Alice", True),
    (r"\fbox{18}", "18", True),
    (r"first \boxed{1}, then \boxed{18}", "18", True),
    (r"first \boxed{18}, then \boxed{1}", "18", False),
    (r"$\boxed{3}$ and $\boxed{-3}$", "3,-3", True),
    (r"$\boxed{3}$ and $\boxed{-3}$", "-3", False),
    (r"\boxed{5} or \boxed{18}", "18", False),  # two answers are none
    (r"\boxed{18}, \boxed{18}", "18", True),
    (r"\boxed{5}. Wait, that is wrong. The answer is 18.", "18", True),
    (r"The answer is \boxed{18}. I hope the answer is correct.", "18", True),
    (r"\boxed{\boxed{18}}", "18", True),
]

UNMARKED: list[Row] = [
    ("She makes $18 a day.", "18", True),
    ("She makes $18 a day and spends $5 of it in 3 days.", "18", False),  # taste: no mark, the last number
    ("She has 16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = 18", "18", True),
    ("She has 16 - 3 - 4 = 9 eggs.\n9 * 2 = $18.", "18", True),
    ("9 * 2 = 18", "18", True),
    ("So x = 5.", "5", True),
    ("Therefore, (x, y) = (2, 5).", "(2,5)", True),
    ("We solve it.\n\n(2, 5)", "(2,7)", False),
    ("$$x = 5$$", "5", True),
    (r"Hence $x = \frac{1}{2}$.", r"\frac{1}{2}", True),
    ("It is 19.", "18", False),
    ("", "18", False),
    (" \n", "18", False),
    ("####", "18", False),
    ("####\n18", "18", True),
    ("Answer:", "18", False),
    ("**Answer:**", "18", False),
    ("The answer is", "18", False),
    (r"\boxed{}", "18", False),
    (r"\boxed{", "18", False),
    ("$", "18", False),
    ("...", "18", False),
    ("no idea", "7", False),
    ("I do not know.", "0", False),
]

RUN_ON: list[Row] = [
    ("so\n#### 18\nQuestion: Tom has 3.\n#### 5", "18", True),
    ("so\n#### 18\nQuestion: Tom has 3.\n#### 5", "5", False),
    ("so\n#### 18\n\n#### 5", "18", True),
    ("The answer is 18.\n\nQ: Tom has 3 apples.\nA: The answer is 5.", "18", True),
    ("The answer is 18.\n\nQ: Tom has 3 apples.\nA: The answer is 5.", "5", False),
    ("A: 18\n\nProblem 2: Tom has 3.\nA: 5", "18", True),
    ("\\boxed{18}\n\nProblem: Tom has 3.\n\\boxed{5}", "18", True),
    ("\\boxed{18}<|im_end|>\n<|im_start|>user\nAnd \\boxed{5}?", "18", True),
    ("The answer is 18.\n### Instruction:\nThe answer is 5.", "18", True),
    ("The answer is 18.\nUser: Why is the answer 5?\nThe answer is 5.", "18", True),
    ("Question: She has 16 eggs.\nAnswer: 18", "18", True),
    ("Let me repeat it.\nQuestion: She has 16 eggs.\nAnswer: 18", "18", True),
    ("She adds. " * 20_000 + "The answer is 18.", "18", True),
    ("The answer is 18. " + "Good. " * 10_000, "18", True),
    ("{" * 50_000 + r"\boxed{18}", "18", True),
    (r"\boxed{" * 20_000, "18", False),
]

BOXED: list[Row] = [
    (r"\boxed{\text{(C)}}", "C", True),
    (r"\boxed{\text{C}}", r"\text{(C)}", True),
    (r"\boxed{C}", r"\text{(B)}", False),
    (r"\boxed{2,3,5}", "2, 3, 5", True),
    (r"\boxed{2;3;5}", "2,3,5", True),
    (r"\boxed{1,2,3}", "1,5", False),
    (r"\boxed{(-\infty, 2) \cup (2, \infty)}", r"(-\infty,2)\cup(2,\infty)", True),
    (r"\boxed{(-\infty, 2] \cup (2, \infty)}", r"(-\infty,2)\cup(2,\infty)", False),
    (r"\boxed{x \in (-\infty, 2)}", r"(-\infty,2)", True),
    (r"\boxed{x \geq 3}", r"[3,\infty)", True),
    (r"\boxed{x > 3}", r"[3,\infty)", False),
    (r"\boxed{3\sqrt{2}}", r"\sqrt{18}", True),
    (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{1}{\sqrt{2}}", True),
    (r"\boxed{-\frac{3}{5}+\frac{4}{5}i}", r"\frac{-3+4i}{5}", True),
    (r"\boxed{1+i}", "1-i", False),
    (r"\boxed{\frac{1}{2}+\frac{\sqrt{3}}{2}i}", r"\cos 60^\circ + i \sin 60^\circ", False),
    (r"\boxed{10\%}", "10", True),
    (r"\boxed{10\%}", "0.1", True),
    (r"\boxed{\$10}", r"\$10.00", True),
    (r"\boxed{10 \text{ dollars}}", "10", True),
    (r"\boxed{10\text{ apples}}", "10", True),
    (r"\boxed{10\ \text{apples}}", "10", True),
    (r"\boxed{10~\mathrm{m/s}}", "10", True),
    (r"\boxed{10 \text{ m/s}^2}", "10", True),
    (r"\boxed{10 m}", "10", True),
    (r"\boxed{3x^2 + 2x + 1}", "3x^2+2x+1", True),
    (r"\boxed{2x+1+3x^2}", "3x^2+2x+1", True),
    (r"\boxed{3x^2 + 2x}", "3x^2+2x+1", False),
    (r"\boxed{f(x) = 3x^2}", "3x^2", True),
    (r"\boxed{y = -2x + 3}", "y=-2x+3", True),
    (r"\boxed{2x + y = 3}", "y=-2x+3", True),
    (r"\boxed{2x + y - 3 = 0}", "y=-2x+3", True),
    (r"\boxed{2x + y = 4}", "y=-2x+3", False),
    (r"\boxed{2516}", "2516_8", False),
    (r"\boxed{1101_2}", "1101_2", True),
    (r"\boxed{1101_{\text{two}}}", "1101_2", True),
    (r"\boxed{4D7_{16}}", "4D7_{16}", True),
    (r"\boxed{\text{even}}", "even", True),
    (r"\boxed{\text{odd}}", "even", False),
    (r"\boxed{even}", r"\text{even}", True),
    (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", True),
    (r"\boxed{\text{Evelyn}}", r"\text{Briana}", False),
    (r"\boxed{6 - 5i}", "6+5i", False),
    (
        r"\boxed{\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}}",
        r"\begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}",
        True,
    ),
    (r"\boxed{\begin{pmatrix}1&0\\0&1\end{pmatrix}}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", True),
    (r"\boxed{\left(\begin{array}{cc}1&0\\0&1\end{array}\right)}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", True),
    (r"\boxed{\sqrt[3]{2}}", "2^{1/3}", True),
    (r"\boxed{2^{\frac13}}", r"\sqrt[3]{2}", True),
    (r"\boxed{\tan x}", r"\frac{\sin x}{\cos x}", True),
    (r"\boxed{\frac{9}{4}}", "2.25", True),
    (r"\boxed{2.25}", r"2\frac{1}{4}", True),
    (r"\boxed{90^\circ}", "90", True),
    (r"\boxed{\frac{\pi}{2}}", r"90^\circ", False),
    (r"\boxed{0}", "0", True),
    (r"\boxed{-0}", "0", True),
    (r"\boxed{00}", "0", True),
    (r"\boxed{1}", "0", False),
    (r"\boxed{.75}", r"\frac34", True),
    (r"\boxed{11\sqrt2}", r"11\sqrt{2}", True),
    (r"\boxed{\sqrt{2}+\sqrt{3}}", r"\sqrt{3}+\sqrt{2}", True),
    (r"\boxed{p - q}", "p-q", True),
    (r"\boxed{q - p}", "p-q", False),
    (r"\boxed{3, 5, 7}", r"\{3,5,7\}", True),
    (r"\boxed{\{3, 5\}}", "3,5,7", False),
    (r"\boxed{a=1, b=2}", "(1,2)", True),
    (r"\boxed{A=1, B=2}", "A=2, B=1", False),
    (r"\boxed{-2 \text{ or } 3}", "-2,3", True),
    (r"\boxed{12:30}", "12:30", True),
    (r"\boxed{3:4}", r"\frac34", True),
    (r"\boxed{\frac{3}{4}}", "3:4", True),
    (r"\boxed{January 5}", "January 5", True),
    (r"\boxed{\text{January 5}}", "January 6", False),
    (r"\boxed{5th}", "5", True),
    (r"\boxed{5^{\text{th}}}", "5", True),
    (r"\boxed{5\text{th}}", "6", False),
    (r"\boxed{2^3 \cdot 3^2}", "72", True),
    (r"\boxed{8!}", "40320", True),
    (r"\boxed{10^{100}}", "10^{100}", True),
    (r"\boxed{10^{100}}", "10^{101}", False),
    (r"\boxed{\text{undefined}}", "undefined", True),
    (r"\boxed{\text{DNE}}", "0", False),
    (r"\boxed{5}", r"\text{five}", True),
]

SENTENCES: list[Row] = [
    (r"The answer is \frac{1}{2}.", "0.5", True),
    (r"The answer is $\frac{1}{2}$ and not 2.", "0.5", True),
    (r"The final answer is: **$\frac{3}{4}$**", "3/4", True),
    ("Thus the answer is **(C)**.", "C", True),
    ("The correct answer is C.", "C", True),
    ("The correct option is (C) 15", "C", True),
    ("The answer is C) 15", "C", True),
    ("Answer: C", "C", True),
    ("Answer: C. 15 eggs", "C", True),
    ("The answer is C.", "D", False),
    (r"The value is $x=\frac{1}{2}$ so the final answer is $\frac{1}{2}$.", r"\frac12", True),
    ("The total is 18 dollars. Therefore, she has **18** dollars left.", "18", True),
    ("So, Janet makes **$18** every day.", "18", True),
    ("So Janet makes $18 per day at the farmers' market.", "18", True),
    (r"Janet has $16-3-4=9$ eggs, thus she makes $9 \times 2 = 18$ dollars.", "18", True),
    ("Therefore, the number of eggs is 18.", "18", True),
    (r"Therefore, the number of eggs is $\boxed{18}$ eggs.", "18", True),
    ("The answer is 1,5.", "1,5", True),
    ("The answer is 1,234.56.", "1234.56", True),
    ("The answer is -5.", "-5", True),
    ("The answer is −5.", "-5", True),
    ("The answer is $-5$.", "5", False),
    ("Answer: -$5", "-5", True),
    ("answer: 18 eggs per day.", "18", True),
    ("ANSWER: 18", "18", True),
    ("Final answer - 18", "18", True),
    ("The answer is: $$18$$", "18", True),
    ("My final answer is 18. Thank you!", "18", True),
    ("Answer: $18.00", "18", True),
    ("Answer: 18/1", "18", True),
    ("Answer: 36/2", "18", True),
    ("Answer: 3 + 15", "18", True),
    ("Answer: 18 = 3 + 15", "18", True),
    ("Answer: Janet makes 18 dollars", "18", True),
    ("Answer: She makes $9 * 2 = $18", "18", True),
    ("#### 18 dollars per day", "18", True),
    ("#### $9 * 2 = $18", "18", True),
    ("#### 9*2=18", "18", True),
    ("#### x = 18", "18", True),
    ("#### -18", "18", False),
    ("#### 18, 19", "18", False),
    ("#### 18 19", "18", False),
    ("#### 1 8", "18", False),
    ("#### approximately 18", "18", True),
    ("#### about 18 eggs", "18", True),
    ("#### The answer is 18", "18", True),
    ("#### Answer: 18", "18", True),
    (r"#### Final Answer: $\boxed{18}$", "18", True),
    ("{18}", "18", True),
    ("`18`", "18", True),
    ('"18"', "18", True),
    ("[18]", "18", True),
    ("(18)", "18", True),
    ("<18>", "18", False),
    ("18\n\n", "18", True),
    ("x=18\n", "18", True),
    ("1/2/3", "1/6", True),
    ("--3", "3", True),
    ("1..5", "1.5", False),
    ("1e5", "100000", True),
    ("0x12", "18", False),
    ("1_000", "1000", False),
    ("５", "5", True),
    ("18.0000000001", "18", False),
    ("3.0", "3", True),
    ("3.10", "3.1", True),
    ("$3.10", "3.1", True),
    ("3.1", "3.01", False),
]

# Where the grader's verdict is not the teacher's: the third column is the teacher's.
LIMITS: list[Row] = [
    (r"\boxed{5}", "5, 5", False),  # math-verify compares lists as sets
    (r"\boxed{e^{i\pi}}", "-1", True),
    (r"\boxed{10 \frac{m}{s}}", "10", True),
    (r"\boxed{3 \text{ to } 4}", "3:4", True),
    (r"\boxed{\ln 2}", r"\log 2", True),  # MATH writes the natural logarithm both ways
    ("She sells 18 eggs in 2 days.", "18", True),  # no mark: the last number
]

TABLE = [
    *NUMBERS,
    *FRACTIONS,
    *SCIENTIFIC,
    *UNITS,
    *PERCENT,
    *TUPLES,
    *EXPRESSIONS,
    *EQUATIONS,
    *WORDS,
    *MARKS,
    *UNMARKED,
    *RUN_ON,
    *BOXED,
    *SENTENCES,
]


def _grades(rows: list[Row]) -> list[Grade]:
    return grade_answers([answer for answer, _, _ in rows], [reference for _, reference, _ in rows])


def test_verdicts_are_a_careful_teachers() -> None:
    assert len(set(TABLE)) == len(TABLE) > 500
    grades = _grades([*TABLE, *LIMITS])
    wrong = [row for row, grade in zip(TABLE, grades, strict=False) if grade.correct is not row[2]]
    assert wrong == []
    assert not any(grade.timed_out for grade in grades)
    mended = [row for row, grade in zip(LIMITS, grades[len(TABLE) :], strict=True) if grade.correct is row[2]]
    assert mended == [], "known limits that are none any more: move them into the table"


def test_grades_put_both_judges_side_by_side() -> None:
    rows: list[tuple[str, str, tuple[bool, bool, bool]]] = [
        ("... so 16\n#### 18", "#### 18", (True, True, True)),
        ("A: 19", "#### 18", (False, False, False)),
        ("She makes $18 a day.", "#### 18", (True, False, True)),  # no mark: math-verify alone
        ("9 + 9 = 18", "#### 18", (True, False, True)),  # no mark, but an answer and nothing else
        (r"\boxed{0.5}", r"so \boxed{\frac{1}{2}}", (True, True, True)),
        (r"\boxed{x+1}", r"\boxed{1+x}", (True, False, True)),
        (r"\boxed{2516}", r"\boxed{2516_8}", (False, False, True)),  # math-verify knows no bases
        (r"\boxed{(3, \frac{\pi}{2})}", r"\boxed{\left( 3, \frac{\pi}{2} \right)}", (True, True, True)),
        ("", "#### 18", (False, False, False)),
        ("no idea", "7", (False, False, False)),
        ("#### 7", "7", (True, True, True)),  # a column that holds the final answer alone
    ]
    grades = grade_answers([answer for answer, _, _ in rows], [reference for _, reference, _ in rows])
    assert [(g.correct, g.exact, g.verified) for g in grades] == [expected for _, _, expected in rows]
    assert [g.marked for g in grades] == [answer[:1] in ("\\", "#", ".", "A") for answer, _, _ in rows]
    with pytest.raises(DataError, match="row 1: the reference"):
        grade_answers(["1", "2"], ["#### 1", " "])


def test_an_endless_expression_costs_its_timeout_and_no_more() -> None:
    hard = r"\boxed{9^{9^{9^{9}}}}"
    verdicts = verify_answers([hard, "7", hard, "8"], ["3", "7", "3", "8"], timeout=3)
    assert [v.timed_out for v in verdicts] == [True, False, True, False]
    assert [v.correct for v in verdicts] == [False, True, False, True]


@pytest.mark.parametrize(
    ("answer", "reference"), [("1/0", "2/0"), (r"$\frac{1}{0}$", r"$\frac{2}{0}$"), ("6:00", "7:00")]
)
def test_divisions_by_zero_are_equal_to_nothing(answer: str, reference: str) -> None:
    assert not verify(answer, reference).correct


def test_grades_agree_with_published_marks() -> None:
    """Unusual final answers of the model solutions that came with GSM8K (Cobbe et al. 2021), with their marks."""
    rows = [json.loads(line) for line in (ROOT / "tests" / "data" / "gsm8k_marks.jsonl").read_text().splitlines()]
    grades = grade_answers([row["answer"] for row in rows], [row["reference"] for row in rows])
    assert len(rows) > 100
    assert [row for row, grade in zip(rows, grades, strict=True) if grade.correct != row["is_correct"]] == []


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K's files are not beside the repository")
def test_gsm8k_references_are_right_for_themselves_and_wrong_for_others() -> None:
    references = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]
    assert len(references) == 1319
    numbers = [number(marked_answer(reference) or "") for reference in references]
    assert None not in numbers
    others = [references[-1], *references[:-1]]
    grades = grade_answers(references + others, references * 2)
    same = [True] * len(references) + [a == b for a, b in zip(numbers, [numbers[-1], *numbers[:-1]], strict=True)]
    assert [grade.correct for grade in grades] == same
    for form in ("**Answer:**\n{}", "#### Solution\nWe add.\nThe answer is {} + 0 = {}.", "so $\\boxed{{{}}}$"):
        for shift in (0, 1):
            answers = [form.format(*[value + shift] * 2) for value in numbers if value is not None]
            right = [is_correct(answer, reference) for answer, reference in zip(answers, references, strict=True)]
            assert right == [not shift] * len(references)
