"""Listing the items of a bag in any order: many answers are right, and the oracle says which.

    In the bag: a pen, a cup, a rope. List the items in any order.        →        rope, pen, cup

The reference is one right answer, in an order generated at random. A split is decided by the set of the items.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .procedural import Options, Procedural, Scores, generator, integer_option


THINGS = (
    "apple", "ball", "bell", "belt", "book", "boot", "bowl", "brush", "cap", "card", "clock", "coin", "comb", "cup",
    "drum", "fan", "flag", "fork", "glove", "hat", "jar", "key", "kite", "knife", "lamp", "lock", "map", "mug", "nail",
    "pan", "pear", "pen", "plum", "ring", "rope", "sock", "soap", "spoon", "stamp", "tie",
)  # fmt: skip


@dataclass(frozen=True)
class ListingOptions(Options):
    items: int = integer_option(6, 2, 12, "items in the bag")
    num_item_types: int = integer_option(24, 2, len(THINGS), "kinds of items there are")

    def conflicts(self) -> list[str]:
        if self.items <= self.num_item_types:
            return []
        return [f"items is {self.items}: there are only {self.num_item_types} kinds, and no item comes twice"]


def _generate_problem(rng: random.Random, options: ListingOptions) -> tuple[str, str, str]:
    items = rng.sample(THINGS[: options.num_item_types], options.items)
    bag = ", ".join(f"{'an' if item[0] in 'aeiou' else 'a'} {item}" for item in items)
    answer = ", ".join(rng.sample(items, len(items)))
    return " ".join(sorted(items)), f"In the bag: {bag}. List the items in any order.", answer


def score(prompt: str, reference: str, answer: str) -> Scores:
    """Score a list.

    correct: it has every item of the reference, none twice, and nothing else, in any order.
    item_recall: the share of the items that it has.
    duplicate_items, invalid_items: the share of its entries that it had before, and that are none of the items.
    """
    wanted, given = set(_entries(reference)), _entries(answer)
    strange = sum(entry not in wanted for entry in given)
    repeated = len(given) - len(set(given))
    return {
        "correct": float(set(given) == wanted and not repeated),
        "item_recall": len(wanted & set(given)) / max(len(wanted), 1),
        "duplicate_items": repeated / max(len(given), 1),
        "invalid_items": strange / max(len(given), 1),
    }


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.strip().removesuffix(".").split(",")] if text.strip() else []


TASK = Procedural(
    name="listing",
    options=ListingOptions,
    generate=generator("listing", _generate_problem),
    score=score,
    measures={
        "correct": "correct",
        "item_recall": "item recall",
        "duplicate_items": "duplicate items",
        "invalid_items": "invalid items",
    },
)
