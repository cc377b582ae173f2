"""A page of small facts in plain English → one sentence with those that matter, as TL;DR asks of longer texts.

    Sum up the home, work and deeds of Ana in one sentence.
    It rained a little. By day Ana is a baker. Ben lost 7 pens. Ana has a dog. A train took Ana to Lund.

    Ana works as a baker and went to Lund.

What matters is what the person that is asked for does, with home and work, in the order of the page. The rest
distracts: background, trifles about that person (`TRIFLES`), and the same kinds of facts about others. A split is
decided by the facts that matter, without the person's name and without wording, order and distractors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .procedural import Options, Procedural, Scores, generator, integer_option
from .word_problems import ITEMS, NAMES


PLACES = (
    "Bath", "Bern", "Bonn", "Cork", "Graz", "Hull", "Lund", "Lyon", "Metz", "Oslo", "Porto", "Riga", "Rome", "Turin",
    "Ulm", "York",
)  # fmt: skip
JOBS = (
    "baker", "cook", "driver", "farmer", "guard", "judge", "nurse", "painter", "singer", "tailor", "teacher", "waiter",
)  # fmt: skip
SLOTS = {
    "place": PLACES,
    "job": JOBS,
    "colour": ("black", "blue", "brown", "green", "grey", "pink", "red", "white"),
    "pet": ("cat", "dog", "goat", "hen", "horse", "parrot"),
    "things": ITEMS,
    "b": NAMES,
    "n": tuple(map(str, range(2, 41))),
}


@dataclass(frozen=True)
class Kind:
    """A kind of fact: how a summary says it of its subject, and how a page may say it of {a}."""

    clause: str
    wordings: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """What reads a clause, with the values of its slots as groups."""
        return re.sub(r"\{(\w+)\}", r"(?P<\1>\\w+)", self.clause)


# A value stands between spaces or before the full stop, so that none is found inside a longer one.
FACTS = (
    Kind("lives in {place}", ("{a} lives in {place}.", "The home of {a} is in {place}.", "You find {a} in {place}.")),
    Kind("works as a {job}", ("{a} works as a {job}.", "By day {a} is a {job}.", "The trade of {a}: {job}.")),
    Kind("bought {n} {things}", ("{a} bought {n} {things}.", "At the market {a} paid for {n} {things}.")),
    Kind("lost {n} {things}", ("{a} lost {n} {things}.", "On the way {n} {things} fell from the cart of {a}.")),
    Kind("won {n} {things}", ("{a} won {n} {things}.", "In the game {a} took a prize of {n} {things}.")),
    Kind("met {b}", ("{a} met {b}.", "By the lake {a} ran into {b}.", "Later {a} had tea with {b}.")),
    Kind("helped {b}", ("{a} helped {b}.", "In the end {b} was glad of the help of {a}.")),
    Kind("went to {place}", ("{a} went to {place}.", "A train took {a} to {place}.", "Soon {a} set out for {place}.")),
)
TRIFLES = (
    Kind("likes {colour}", ("{a} likes {colour}.", "The hat of {a} is {colour}.")),
    Kind("has a {pet}", ("{a} has a {pet}.", "The {pet} of {a} is old.")),
    Kind("slept {n} hours", ("{a} slept {n} hours.",)),
    Kind("is {n} years old", ("{a} is {n} years old.",)),
)
BACKGROUND = (
    "It rained a little.", "The street was quiet.", "The bus was late.", "A dog barked {n} times.",
    "The wind was cold.", "It was {n} days before the holidays.", "The lamps were {colour}.", "Many people came by.",
)  # fmt: skip


@dataclass(frozen=True)
class PageOptions(Options):
    # Of pages with one fact the split would hold out the fact itself: a place or a job that training never tells.
    facts: int = integer_option(3, 2, len(FACTS), "facts that matter")
    distractors: int = integer_option(4, 0, 40, "sentences on the page beside them")


@dataclass(frozen=True)
class Claim:
    """What a summary says: a fact of a known kind, or a clause that nothing is known of (`kind` is None)."""

    subject: str
    clause: str
    kind: Kind | None = None

    def is_on(self, page: str) -> bool:
        """Whether the page says so in one of its wordings."""
        if self.kind is None or not self.subject:
            return False
        values = re.fullmatch(self.kind.pattern, self.clause)
        slots = values.groupdict() if values else {}
        return any(wording.format(a=self.subject, **slots) in page for wording in self.kind.wordings)


def claims(summary: str) -> Iterator[Claim]:
    """The claims of a summary, clause by clause; a clause without a name speaks of the one before."""
    subject = ""
    for clause in re.split(r",? and |, |\. ?|;? ?\n", summary.strip()):
        words = clause.strip()
        named = re.match(r"([A-Z]\w*) (?=\w)", words)
        if named:
            subject = subject if named[1] in ("He", "She", "They") else named[1]
            words = words[named.end() :]
        if words:
            kind = next((kind for kind in FACTS + TRIFLES if re.fullmatch(kind.pattern, words)), None)
            yield Claim(subject, words, kind)


def score(prompt: str, reference: str, answer: str) -> Scores:
    """Score a summary by the facts it states.

    correct: it states every needed fact and nothing else.
    facts_kept: the share of the needed facts that it states.
    false_facts: the share of its claims that neither the reference nor the page makes, or that cannot be read.
    needless_facts: the share of its claims that the page makes and no question asked for, or that it made before.
    """
    needed, made = set(claims(reference)), list(claims(answer))
    remaining = len(needed & set(made))
    false = sum(claim not in needed and not claim.is_on(prompt) for claim in made)
    return {
        "correct": float(remaining == len(needed) == len(made)),
        "facts_kept": remaining / max(len(needed), 1),
        "false_facts": false / max(len(made), 1),
        "needless_facts": (len(made) - remaining - false) / max(len(made), 1),
    }


def _generate_problem(rng: random.Random, options: PageOptions) -> tuple[str, str, str]:
    names = rng.sample(NAMES, 4)
    person, others = names[0], names[1:]
    clauses, needed = [], []
    for kind in rng.sample(FACTS, options.facts):
        clause, sentence = _sentence(rng, kind, person, person)
        clauses.append(clause)
        needed.append(sentence)
    sentences = [_distractor(rng, person, others) for _ in range(options.distractors)]
    places = sorted(rng.sample(range(options.facts + options.distractors), options.facts))
    for place, sentence in zip(places, needed, strict=True):  # from the front, so that each comes to stand there
        sentences.insert(place, sentence)
    prompt = f"Sum up the home, work and deeds of {person} in one sentence.\n{' '.join(sentences)}"
    answer = f"{person} {', '.join(clauses[:-1])} and {clauses[-1]}."
    return "; ".join(sorted(clauses)), prompt, answer


def _distractor(rng: random.Random, person: str, others: list[str]) -> str:
    """A sentence of the background, a trifle about the person, or a fact about another one, equally often."""
    sort = rng.randrange(3)
    if sort == 0:
        return rng.choice(BACKGROUND).format(**_values(rng, person))
    if sort == 1:
        return _sentence(rng, rng.choice(TRIFLES), person, person)[1]
    return _sentence(rng, rng.choice(FACTS), rng.choice(others), person)[1]


def _sentence(rng: random.Random, kind: Kind, subject: str, person: str) -> tuple[str, str]:
    """A fact of this kind about `subject`, as a clause and as a sentence; only the subject in it is `person`."""
    values = _values(rng, subject, person)
    return kind.clause.format(**values), rng.choice(kind.wordings).format(a=subject, **values)


def _values(rng: random.Random, *absent: str) -> dict[str, str]:
    """A value for every slot, no name among `absent`."""
    return {slot: rng.choice([value for value in values if value not in absent]) for slot, values in SLOTS.items()}


TASK = Procedural(
    name="page_summaries",
    options=PageOptions,
    generate=generator("page_summaries", _generate_problem),
    score=score,
    measures={"correct": "correct", "facts_kept": "facts kept", "false_facts": "false facts"},
    rouge=True,
)
