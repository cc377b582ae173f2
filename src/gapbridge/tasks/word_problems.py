"""Procedural grade-school word problems with worked answers in GSM8K's form, for runs that need no download.

A problem is a chain of one to six operations on small integers, one sentence each. The worked answer has
one line per operation and ends like GSM8K's (Cobbe et al. 2021):

    Ben: 4+3=<<4+3=7>>7
    Ana: 7*2=<<7*2=14>>14
    #### 14

Answer first, the line `#### 14` stands before the others.

Problems are a pure function of (split, seed, index, steps). The splits are disjoint by construction: the *computation*
of a problem (its start value and its operations, without names or wording) is hashed, and the hash decides to which
split every problem with that computation belongs. A test problem is therefore never a reworded training problem.
Validation takes an eighth that is not the test split's. The data of `recipes/tiny` are older than it and may hold
computations of this eighth; training problems made with `validation_apart` hold none.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, describe


ANSWER_MARK = "####"
SPLITS = ("train", "validation", "test")
ORDERS = ("working_first", "answer_first")
FORMS = ("completion", "preferences", "text")
MAX_STEPS = 6
MAX_VALUE = 200

NAMES = (
    "Ana", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ines", "Jack", "Kim", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Uma", "Vera", "Will", "Yan", "Zoe",
)  # fmt: skip
ITEMS = (
    "apples", "books", "cards", "coins", "eggs", "marbles", "pears", "pens",
    "plums", "shells", "stamps", "stickers", "stones", "toys",
)  # fmt: skip

START = ("{a} has {n} {items}.", "{a} owns {n} {items}.", "{a} starts with {n} {items}.")
GAIN = ("{a} finds {n} more {items}.", "{a} buys {n} more {items}.", "Then {a} gets {n} more {items}.")
LOSS = ("{a} gives away {n} {items}.", "{a} loses {n} {items}.", "Then {a} sells {n} {items}.")
MORE = ("{b} has {n} more {items} than {a}.", "{b} owns {n} {items} more than {a}.")
FEWER = ("{b} has {n} fewer {items} than {a}.", "{b} owns {n} {items} fewer than {a}.")
TIMES = ("{b} has {n} times as many {items} as {a}.", "{b} owns {n} times the {items} of {a}.")
SHARE = (
    "{a} splits the {items} into {n} equal bags and keeps one bag.",
    "{a} shares the {items} equally among {n} friends, and {b} is one of them.",
)
DISTRACTORS = (
    "{c} has {n} {others}.",
    "{c} wants {n} {others}.",
    "It is {n} days until the holidays.",
    "{c} is {n} years old.",
)
ASK = ("How many {items} does {a} have?", "How many {items} does {a} have now?", "Count the {items} of {a}.")


@dataclass(frozen=True)
class Step:
    """One operation `left operator right = result`, after which `subject` holds `result` things."""

    subject: str
    left: int
    operator: str
    right: int
    result: int

    @property
    def line(self) -> str:
        calculation = f"{self.left}{self.operator}{self.right}"
        return f"{self.subject}: {calculation}=<<{calculation}={self.result}>>{self.result}"


@dataclass(frozen=True)
class Problem:
    """A word problem; `answer` is the worked solution and `result` the number after `####`, which stands after the
    working or before it (`order`). `form`: what its row holds beside the id."""

    id: str
    prompt: str
    steps: tuple[Step, ...]
    order: str = "working_first"
    form: str = "completion"

    @property
    def result(self) -> int:
        return self.steps[-1].result

    @property
    def answer(self) -> str:
        return _worked(self.steps, self.order)

    def wrong_steps(self) -> tuple[Step, ...]:
        """The steps with one whose result is off by 1 to 9, and those after it worked on from that.

        A pure function of the problem. Every result stays a integer in 1 to `MAX_VALUE`, and the last is wrong.
        """
        rng = random.Random(f"word-problems/wrong/{self.id}")
        forced_errors = [(at, by) for at in range(len(self.steps)) for by in range(-9, 10) if by]
        rng.shuffle(forced_errors)
        candidates = (
            _with_wrong_step(self.steps, at, by) for at, by in forced_errors
        )  # an error in the last step is always among them
        return next(steps for steps in candidates if steps and steps[-1].result != self.result)

    def row(self) -> dict[str, Any]:
        """The problem with its id: prompt and completion in TRL's conversational form; as preferences the right answer
        and one with a wrong step; or one text, which has no prompt."""
        prompt, right = [{"role": "user", "content": self.prompt}], [{"role": "assistant", "content": self.answer}]
        if self.form == "text":
            return {"id": self.id, "text": f"{self.prompt}\n\n{self.answer}"}
        if self.form == "preferences":
            wrong = [{"role": "assistant", "content": _worked(self.wrong_steps(), self.order)}]
            return {"id": self.id, "prompt": prompt, "chosen": right, "rejected": wrong}
        return {"id": self.id, "prompt": prompt, "completion": right}

    def preference_row(self) -> dict[str, Any]:
        return replace(self, form="preferences").row()


def _worked(steps: Sequence[Step], order: str) -> str:
    lines, result = [step.line for step in steps], f"{ANSWER_MARK} {steps[-1].result}"
    return "\n".join([result, *lines] if order == "answer_first" else [*lines, result])


def _with_wrong_step(steps: Sequence[Step], at: int, by: int) -> tuple[Step, ...]:
    """The steps with the result of step `at` off by `by`; none where a result would leave 1 to `MAX_VALUE`."""
    found = list(steps[:at])
    for number, step in enumerate(steps[at:], at):
        left = step.left if number == at else found[-1].result
        if step.operator == "/" and left % step.right:
            return ()
        results = {"+": left + step.right, "-": left - step.right, "*": left * step.right, "/": left // step.right}
        result = results[step.operator] + (by if number == at else 0)
        if not 1 <= result <= MAX_VALUE:
            return ()
        found.append(Step(step.subject, left, step.operator, step.right, result))
    return tuple(found)


def hash_eighth(computation: str) -> int:
    """A number in 0 to 7 that is a hash of what a problem computes."""
    return int.from_bytes(hashlib.sha256(computation.encode()).digest()[:8], "big") >> 61


def word_problem_split(steps: Sequence[Step], *, validation_apart: bool = False) -> str:
    """The split that every problem with this computation belongs to, whatever its names and wording.

    What is not of the test split is of training, and with `validation_apart` a seventh of it of validation.
    """
    eighth = hash_eighth(",".join(f"{step.left}{step.operator}{step.right}" for step in steps))
    return "test" if eighth == 0 else "validation" if eighth == 1 and validation_apart else "train"


def problems(
    split: str,
    *,
    count: int,
    steps: Sequence[int] = (4,),
    seed: int = 0,
    order: str = "working_first",
    validation_apart: bool = False,
    form: str = "completion",
) -> Iterator[Problem]:
    """Yield `count` problems of `split`, with the numbers of operations in `steps` taken in turn.

    Args:
        order: where the result stands: `working_first` or `answer_first`. The problems are the same.
        validation_apart: training problems share no computation with validation problems. It changes nothing else.
        form: what a row holds, one of `FORMS`.

    Raises:
        ConfigError: `split`, `order` or `form` is unknown, `count` is negative or a number of steps lies outside 1 to
            6; all errors are listed.
    """
    errors = [
        describe(name, f"{value!r}", f"one of {', '.join(known)}", "Choose one of them")
        for name, value, known in (("split", split, SPLITS), ("order", order, ORDERS), ("form", form, FORMS))
        if value not in known
    ]
    if count < 0:
        errors.append(describe("count", count, "at least 0", "Correct the value"))
    if not steps or any(not 1 <= number <= MAX_STEPS for number in steps):
        errors.append(describe("steps", list(steps), f"numbers from 1 to {MAX_STEPS}", "Correct the list"))
    if errors:
        raise ConfigError(errors)
    apart = validation_apart or split == "validation"
    for index in range(count):
        number = steps[index % len(steps)]
        rng = random.Random(f"word-problems/{split}/{seed}/{index}/{number}")
        problem = _generate_problem(rng, number, f"{split}-{seed}-{index}")
        while word_problem_split(problem.steps, validation_apart=apart) != split:
            problem = _generate_problem(rng, number, problem.id)
        yield replace(problem, order=order, form=form)


def _generate_problem(rng: random.Random, number_of_steps: int, problem_id: str) -> Problem:
    names = rng.sample(NAMES, number_of_steps + 4)
    items, others = rng.sample(ITEMS, 2)
    holder = names.pop()
    value = rng.randint(2, 60)
    sentences = [rng.choice(START).format(a=holder, n=value, items=items)]
    steps: list[Step] = []
    while len(steps) < number_of_steps:
        kind, operator, right, result = _draw_operation(rng, value)
        template = rng.choice(kind)
        newcomer = names[-1]
        sentences.append(template.format(a=holder, b=newcomer, n=right, items=items))
        subject = newcomer if "{b}" in template else holder
        if subject == newcomer:
            names.pop()
        steps.append(Step(subject, value, operator, right, result))
        holder, value = subject, result
    for _ in range(rng.choice((0, 0, 1, 2))):
        distractor = rng.choice(DISTRACTORS).format(c=names.pop(), n=rng.randint(2, 60), others=others)
        sentences.insert(rng.randint(0, len(sentences)), distractor)
    sentences.append(rng.choice(ASK).format(a=holder, items=items))
    return Problem(problem_id, " ".join(sentences), tuple(steps))


def _draw_operation(rng: random.Random, value: int) -> tuple[tuple[str, ...], str, int, int]:
    """A kind of sentence, its operator, right operand and result, such that the result lies in 1 to `MAX_VALUE`."""
    choices: list[tuple[tuple[str, ...], str, int, int]] = []
    if value <= MAX_VALUE - 2:
        gain = rng.randint(2, min(40, MAX_VALUE - value))
        choices += [(GAIN, "+", gain, value + gain), (MORE, "+", gain, value + gain)]
    if value > 2:
        loss = rng.randint(2, min(40, value - 1))
        choices += [(LOSS, "-", loss, value - loss), (FEWER, "-", loss, value - loss)]
    factors = [factor for factor in (2, 3, 4, 5) if value * factor <= MAX_VALUE]
    if factors:
        factor = rng.choice(factors)
        choices.append((TIMES, "*", factor, value * factor))
    divisors = [divisor for divisor in (2, 3, 4, 5) if value % divisor == 0]
    if divisors:
        divisor = rng.choice(divisors)
        choices.append((SHARE, "/", divisor, value // divisor))
    return rng.choice(choices)
