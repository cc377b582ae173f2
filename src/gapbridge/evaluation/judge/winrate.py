"""Win rate: a judge compares two answers to each prompt, in both orders.

Each order's verdict is read from the judge's reply. Verdicts that agree make a win, a loss or a tie; verdicts that
disagree follow the order and not the answers: a flip, which counts as a tie. A pair with an unreadable verdict is
counted apart and enters no rate. Replies are cached one file each, by the judge's identity and the filled prompt, the
moment they arrive; a run that was killed asks again only what was under way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit
from tqdm.auto import tqdm

from ...errors import ConfigError, RunError
from ...files import write_json_atomic
from ...intervals import mean_interval
from ...jsonl import as_json_values
from ...store.records import read_record
from .judges import EndpointJudge
from .prompt_templates import Template, Verdict, load_template, read_verdict


logger = logging.getLogger(__name__)

Outcome = Literal["win", "loss", "tie", "unparsable"]

MIN_PAIRS = 10  # fewer give no length-controlled figure
_SCORES: dict[str, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_RIDGE = 0.01


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: `first` is the model's, whose wins are counted, `second` its rival."""

    id: str
    prompt: str
    first: str
    second: str


class ReplyCache:
    """A judge's raw replies, one file each, under a hash of the judge's identity and the filled prompt."""

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory: Path = Path(directory)
        self.identity = as_json_values(identity)

    def path(self, prompt: str) -> Path:
        key = json.dumps([self.identity, prompt], sort_keys=True).encode()
        return self.directory / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.json"

    def read(self, prompts: Sequence[str]) -> dict[str, str]:
        """The replies that are there, by prompt; a damaged file or another judge's reply counts as none."""
        records = {prompt: read_record(self.path(prompt), is_needed=False) for prompt in prompts}
        return {
            prompt: record["reply"]
            for prompt, record in records.items()
            if (record.get("prompt"), record.get("judge")) == (prompt, self.identity)
            and isinstance(record.get("reply"), str)
        }

    def write(self, prompt: str, reply: str) -> None:
        write_json_atomic(self.path(prompt), {"judge": self.identity, "prompt": prompt, "reply": reply})


@dataclass(frozen=True)
class PairVerdict:
    """One pair's outcome for `first`, its verdicts and raw replies: first as A, then first as B.

    Answers that are equal are a tie; the judge is not asked, and there are no replies. `first_words` and
    `second_words` are the answers' lengths.
    """

    id: str
    outcome: Outcome
    verdicts: tuple[Verdict | None, ...]
    replies: tuple[str, ...]
    first_words: int
    second_words: int

    @property
    def flipped(self) -> bool:
        """Whether the two orders' verdicts disagree."""
        return self.outcome == "tie" and self.verdicts not in ((), ("tie", "tie"))


@dataclass(frozen=True)
class WinRate:
    """How often `first` wins. Rates are shares in [0, 1]; None where they are not defined.

    wins, losses, ties, unparsable: pairs; they add up to `pairs`.
    flips, identical: those of the ties that come from orders that disagree, and from equal answers.
    win_rate, low, high: (wins + ties / 2) / (wins + losses + ties), and its 95 % interval over these pairs.
    length_controlled: the rate expected at equal lengths; see `length_controlled_rate`.
    first_words, second_words: mean lengths over all pairs, in words between white space.
    """

    judge: str
    template: str
    pairs: int
    wins: int
    losses: int
    ties: int
    flips: int
    identical: int
    unparsable: int
    win_rate: float | None
    low: float | None
    high: float | None
    length_controlled: float | None
    first_words: float
    second_words: float
    judgements: tuple[PairVerdict, ...] = field(repr=False)


def judge_pairs(
    pairs: Sequence[Pair], judge: EndpointJudge, *, cache: Path, template: Template | str | Path = "general_qa"
) -> WinRate:
    """Let `judge` compare each pair in both orders.

    Args:
        cache: the directory of the replies; several judges, templates and runs may share one.
        template: a template, or what `load_template` takes.

    Raises:
        ConfigError: the template has errors, or the judge cannot be used as configured.
        RunError: a reply could not be had. What is cached is said, and the same call continues from there.
    """
    if not isinstance(template, Template):
        template = load_template(template)
    cache = Path(cache)
    if cache.exists() and not cache.is_dir():
        raise ConfigError(cache, "a file", "a directory for the judge's replies", "Name a directory")
    cache.mkdir(parents=True, exist_ok=True)  # a place that cannot be written to shows before a reply is paid for
    asked = {}
    for pair in pairs:
        if pair.first != pair.second:
            orders = ((pair.first, pair.second), (pair.second, pair.first))
            asked[pair.id] = tuple(template.fill(pair.prompt, *order) for order in orders)
    replies = _replies(asked, judge, ReplyCache(cache, judge.identity))
    judgements = []
    for pair in pairs:
        own = tuple(replies[prompt] for prompt in asked.get(pair.id, ()))
        verdicts = tuple(read_verdict(reply) for reply in own)
        words = len(pair.first.split()), len(pair.second.split())
        judgements.append(PairVerdict(pair.id, _outcome(verdicts), verdicts, own, *words))
    result = summarize_verdicts(judgements, judge=judge.model, template=template.name)
    if result.unparsable:
        logger.warning(
            "judge %s: %d of %d pairs have an unreadable verdict. They enter no rate. Their replies are in %s.",
            judge.model, result.unparsable, result.pairs, cache,
        )  # fmt: skip
        empty = sum(not reply.strip() for judgement in judgements for reply in judgement.replies)
        if empty:
            logger.warning("%d replies are empty. Increase --judge_max_tokens for a judge that reasons.", empty)
    return result


def summarize_verdicts(judgements: Sequence[PairVerdict], *, judge: str, template: str) -> WinRate:
    """Count judgements and work out the rates."""
    outcomes = Counter(judgement.outcome for judgement in judgements)
    parsable = [judgement for judgement in judgements if judgement.outcome != "unparsable"]
    scores = np.array([_SCORES[judgement.outcome] for judgement in parsable])
    rate = mean_interval(scores) if parsable else None

    def mean_words(name: str) -> float:
        return float(np.mean([vars(judgement)[name] for judgement in judgements]))

    return WinRate(
        judge=judge, template=template, pairs=len(judgements),
        wins=outcomes["win"], losses=outcomes["loss"], ties=outcomes["tie"], unparsable=outcomes["unparsable"],
        flips=sum(judgement.flipped for judgement in judgements),
        identical=sum(not judgement.replies for judgement in judgements),
        win_rate=rate.mean if rate else None, low=rate.low if rate else None, high=rate.high if rate else None,
        length_controlled=length_controlled_rate(scores, [j.first_words - j.second_words for j in parsable]),
        first_words=mean_words("first_words"), second_words=mean_words("second_words"),
        judgements=tuple(judgements),
    )  # fmt: skip


def length_controlled_rate(scores: ArrayLike, differences: ArrayLike) -> float | None:
    """The win rate that a logistic regression expects where both answers are equally long.

    The length term is AlpacaEval 2's (Dubois et al. 2024, arXiv:2404.04475), without its terms for models and
    instructions: logit p = a + b · tanh(d / std(d)), with d the difference in words; the rate is that at d = 0. Ties
    enter as 0.5, and a ridge of 0.01 on both coefficients keeps them finite. Where every d has the same sign, the
    figure is an extrapolation.

    Args:
        scores: [pairs], 1 for a win, 0.5 for a tie, 0 for a loss.
        differences: [pairs], words of the first answer less those of the second.

    Returns:
        The rate; None for fewer than 10 pairs, or if the differences do not vary.
    """
    y, d = np.asarray(scores, dtype=float), np.asarray(differences, dtype=float)
    if len(y) < MIN_PAIRS or d.std() == 0:
        return None
    x = np.stack([np.ones_like(d), np.tanh(d / d.std())], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x @ weights
        value = (np.logaddexp(0, logits) - y * logits).sum() + _RIDGE / 2 * weights @ weights
        return float(value), x.T @ (expit(logits) - y) + _RIDGE * weights

    return float(expit(minimize(loss, np.zeros(2), jac=True).x[0]))


def _replies(asked: Mapping[str, tuple[str, ...]], judge: EndpointJudge, cache: ReplyCache) -> dict[str, str]:
    """The reply to each distinct prompt, from the cache or from the judge and then cached."""
    prompts = list(dict.fromkeys(prompt for both in asked.values() for prompt in both))
    replies = cache.read(prompts)
    missing = [prompt for prompt in prompts if prompt not in replies]
    lock = threading.Lock()
    with tqdm(total=len(prompts), initial=len(replies), desc=f"judging by {judge.model}", delay=1) as bar:

        def keep(index: int, reply: str) -> None:
            cache.write(missing[index], reply)
            with lock:
                replies[missing[index]] = reply
                bar.update()

        try:
            judge.ask(missing, keep)
        except (ConfigError, RunError) as error:
            full = sum(set(both) <= replies.keys() for both in asked.values())
            remaining = (
                f"{full} of {len(asked)} pairs ({len(replies)} of {len(prompts)} replies) are cached in "
                f"{cache.directory}; the same command continues from there"
            )
            raise type(error)([*error.errors, remaining]) from error
    return replies


def _outcome(verdicts: tuple[Verdict | None, ...]) -> Outcome:
    """`verdicts` with the first answer as A, then as B; empty for equal answers."""
    if None in verdicts:
        return "unparsable"
    if verdicts == ("A", "B"):
        return "win"
    if verdicts == ("B", "A"):
        return "loss"
    return "tie"
