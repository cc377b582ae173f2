"""The win rate against a real endpoint with faults: every outcome counted, nothing judged twice."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from gapbridge.errors import ConfigError, DataError, RunError
from gapbridge.evaluation.judge.judges import EndpointJudge, LocalJudge
from gapbridge.evaluation.judge.winrate import (
    Judgement,
    Pair,
    Template,
    judge_pairs,
    length_controlled_rate,
    load_template,
    summarise,
)


KEY = "sk-not-to-be-seen"
SHOWN = re.compile(r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\n\nWeigh", re.DOTALL)


@dataclass
class Reply:
    """What the server does with a request: wait, then answer."""

    content: str | None = ""
    status: int = 200
    body: str | None = None  # instead of a chat completion
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


class Server:
    """An OpenAI-compatible server. `respond(prompt, attempt)` says what to do; every request is kept."""

    def __init__(self, respond: Callable[[str, int], Reply]) -> None:
        self.respond, self.lock = respond, threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.busy = self.most_busy = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = server.handle(self.path, body, self.headers.get("Authorization"))
                time.sleep(reply.delay)
                completion = {"choices": [{"message": {"role": "assistant", "content": reply.content}}]}
                data = (json.dumps(completion) if reply.body is None else reply.body).encode()
                with server.lock:
                    server.busy -= 1
                try:
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the client has left

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def handle(self, path: str, body: dict[str, Any], key: str | None) -> Reply:
        prompt = body["messages"][0]["content"]
        with self.lock:
            self.requests.append(body)
            self.keys.add(key)
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
            attempt = self.asked()[prompt]
        return self.respond(prompt, attempt) if path == "/v1/chat/completions" else Reply(status=404, body="no route")

    def asked(self) -> Counter[str]:
        return Counter(body["messages"][0]["content"] for body in self.requests)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"


Serve = Callable[[Callable[[str, int], Reply]], Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    servers: list[Server] = []

    def start(respond: Callable[[str, int], Reply]) -> Server:
        servers.append(Server(respond))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def endpoint(server: Server, **options: Any) -> EndpointJudge:
    return EndpointJudge(
        server.base_url, "judge-1", **{"backoff": 0.01, "timeout": 5.0, "max_retries": 3, "concurrency": 4, **options}
    )


def answers(prompt: str) -> tuple[str, str]:
    match = SHOWN.search(prompt)
    assert match is not None
    return match[1], match[2]


def better(prompt: str, attempt: int = 1) -> Reply:
    """Prefers the answer that says good; a tie if both or neither do."""
    a, b = ("good" in answer for answer in answers(prompt))
    return Reply("One sentence.\nVerdict: " + ("tie" if a == b else "A" if a else "B"))


def some_pairs(count: int = 12) -> list[Pair]:
    """Of every four the first answer wins two, loses one, and one is a tie."""
    kinds = [("good one", "poor"), ("poor", "a good one"), ("poor", "bad"), ("very good", "poor indeed")]
    return [Pair(f"p{i}", f"Question {i}?", *(f"{text} {i}" for text in kinds[i % 4])) for i in range(count)]


def counts(result: Any) -> tuple[int, ...]:
    return result.wins, result.losses, result.ties, result.flips, result.identical, result.unparsable


# What a reply says


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "A"),
        ("A is fine.\n\n**Verdict:** B.", "B"),
        ("verdict: [[Tie]]", "tie"),
        ("Verdict:\n“A”\n", "A"),
        ("Verdict: Answer B", "B"),
        ("Verdict: A\nOn second thought.\nVerdict: B", "B"),
        ("<think>Verdict: A?</think> Verdict : A", "A"),
        ("Verdict: A\nVerdict: both", None),
        ("Verdict: <A, B or tie>", None),
        ("Verdict: A or B", None),
        ("Verdict: A is better", None),
        ("The verdict is A", None),
        ("My preverdict: A", None),
        ("Verdict:", None),
        ("A", None),
        ("", None),
    ],
)
def test_verdicts_are_read(reply: str, verdict: str | None) -> None:
    assert load_template("general_qa").verdict(reply) == verdict


def test_the_summary_prompt_has_the_layout_of_the_literature() -> None:
    template = load_template("tldr")
    assert template.verdict('Comparison: A is vague. Preferred: "B"') == "B"
    assert template.verdict('Comparison: Both are fine.\nPreferred: "A" or "B"') is None
    assert template.verdict("Verdict: A") is None


def test_braces_in_texts_stay() -> None:
    for name in ("tldr", "general_qa"):
        filled = load_template(name).fill("{second} {x}", "{prompt}{{}}", r"\1 {first}")
        assert all(f"\n{text}\n" in filled for text in ("{second} {x}", "{prompt}{{}}", r"\1 {first}"))
        assert "#!" not in filled
    assert Template("own", 'say {"v": 1} {first}|{second}|{prompt}', "V").fill("p", "f", "s") == 'say {"v": 1} f|s|p'


def test_templates_are_files_and_their_faults_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("#! mine\n#! verdict: Final choice\n{prompt}|{first}|{second}\nFinal choice: A or B\n")
    template = load_template(path)
    assert template.text == "{prompt}|{first}|{second}\nFinal choice: A or B"
    assert template.verdict("Final choice: b") == "B"
    path.write_text("{prompt} {answer} {reference}")
    with pytest.raises(ConfigError, match="3 faults") as caught:
        load_template(path)
    assert "no {first}; it has {answer}, {reference}" in caught.value.faults[0]
    assert "never says `Verdict:`" in caught.value.faults[2]
    path.write_text("#! verdict: (.*)\n{prompt} {first} {second}")
    with pytest.raises(ConfigError, match="one or more words"):
        load_template(path)
    path.write_bytes(b"\xff{prompt}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_template(path)
    with pytest.raises(ConfigError, match="general_qa, tldr nor a file"):
        load_template("tdlr")


# What is counted


def test_both_orders_are_asked_once_and_a_second_run_asks_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    pairs = [*some_pairs(), Pair("same", "Q?", "good", "good")]
    result = judge_pairs(pairs, endpoint(server), cache=tmp_path / "cache")
    assert counts(result) == (6, 3, 4, 0, 1, 0)
    assert result.win_rate == pytest.approx(8 / 13) and result.low is not None and result.high is not None
    assert result.low < 8 / 13 < result.high
    assert set(server.asked().values()) == {1} and len(server.requests) == 24
    assert {(b["model"], b["temperature"], b["max_tokens"]) for b in server.requests} == {("judge-1", 0.01, 512)}
    assert server.most_busy <= 4
    assert "61.5 %" in str(result) and "(0 flips, 1 identical), 0 unparsable" in str(result)

    assert judge_pairs(pairs, endpoint(server), cache=tmp_path / "cache") == result
    assert len(server.requests) == 24
    moved = serve(better)
    assert judge_pairs(pairs, endpoint(moved), cache=tmp_path / "cache") == result
    assert not moved.requests, "the address is no part of a judgement"
    judge_pairs(pairs, endpoint(server, temperature=0.5), cache=tmp_path / "cache")
    assert len(server.requests) == 48, "another temperature is another judge"


def test_equal_prompts_are_asked_once(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    result = judge_pairs(
        [Pair("x", "Q", "good", "poor"), Pair("y", "Q", "good", "poor"), Pair("z", "Q", "poor", "good")],
        endpoint(server), cache=tmp_path,
    )  # fmt: skip
    assert counts(result) == (2, 1, 0, 0, 0, 0) and len(server.requests) == 2


def test_a_judge_of_positions_gives_flips(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda prompt, attempt: Reply("Verdict: A"))
    result = judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert counts(result) == (0, 0, 12, 12, 0, 0)
    assert (result.win_rate, result.low, result.high) == (0.5, 0.5, 0.5)
    assert all(judgement.flipped for judgement in result.judgements)


def test_a_verdict_in_one_order_and_a_tie_in_the_other_is_a_flip(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda prompt, attempt: Reply("Verdict: A" if "good" in answers(prompt)[0] else "Verdict: tie"))
    result = judge_pairs([Pair("x", "Q", "good", "poor")], endpoint(server), cache=tmp_path)
    assert counts(result) == (0, 0, 1, 1, 0, 0) and result.judgements[0].verdicts == ("A", "tie")


def test_garbage_is_counted_apart(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def respond(prompt: str, attempt: int) -> Reply:
        if "Question 0?" in prompt:
            return Reply("I cannot choose {}")
        if "Question 1?" in prompt and "poor 1" in answers(prompt)[0]:
            return Reply(None)  # one order only, and no text at all
        return better(prompt)

    server = serve(respond)
    with caplog.at_level(logging.WARNING):
        result = judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert counts(result) == (5, 2, 3, 0, 0, 2) and result.win_rate == pytest.approx(6.5 / 10)
    assert "2 of 12 pairs have a verdict that cannot be read" in caplog.text
    assert result.judgements[0].replies == ("I cannot choose {}",) * 2
    judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert len(server.requests) == 24, "a garbage reply is a reply"


def test_no_readable_verdict_gives_no_rate(serve: Serve, tmp_path: Path) -> None:
    result = judge_pairs(some_pairs(), endpoint(serve(lambda p, a: Reply("?"))), cache=tmp_path)
    assert counts(result) == (0, 0, 0, 0, 0, 12)
    assert (result.win_rate, result.low, result.high, result.length_controlled) == (None,) * 4
    assert str(result).startswith("no win rate, length-controlled —")


# Faults of the endpoint


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=500, body="broken"),
        Reply(status=503, body="{}"),
        Reply(status=408, body=""),
        Reply(status=429, body='{"error": {"message": "slow down"}}'),
        Reply(delay=0.6),
        Reply(body="<html>gateway</html>"),
        Reply(body='{"error": {"code": 502}}'),
        Reply(body='{"choices": []}'),
    ],
    ids=["500", "503", "408", "429", "timeout", "html", "error in 200", "no choice"],
)
def test_a_passing_fault_is_tried_again(serve: Serve, tmp_path: Path, fault: Reply) -> None:
    server = serve(lambda prompt, attempt: fault if attempt == 1 and "Question 1?" in prompt else better(prompt))
    result = judge_pairs(some_pairs(4), endpoint(server, timeout=0.3), cache=tmp_path)
    assert counts(result) == (2, 1, 1, 0, 0, 0)
    assert sorted(server.asked().values()) == [1] * 6 + [2] * 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(serve: Serve, tmp_path: Path, as_date: bool) -> None:
    times: list[float] = []

    def respond(prompt: str, attempt: int) -> Reply:
        times.append(time.monotonic())
        # A date has whole seconds, so it may come up to one second early.
        value = formatdate(time.time() + 1.7, usegmt=True) if as_date else "0.7"
        return better(prompt) if len(times) > 1 else Reply(status=429, body="", headers={"Retry-After": value})

    judge_pairs([Pair("x", "Q", "good", "poor")], endpoint(serve(respond), concurrency=1), cache=tmp_path)
    assert 0.65 < times[1] - times[0] < 4


def test_a_long_retry_after_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda prompt, attempt: Reply(status=429, body="quota", headers={"Retry-After": "3600"}))
    with pytest.raises(RunError, match="status 429: quota. The server asks to wait 3600 s, max_wait is 120 s"):
        judge_pairs(some_pairs(1), endpoint(server), cache=tmp_path)


def test_a_lasting_fault_ends_the_run_and_the_next_continues(serve: Serve, tmp_path: Path) -> None:
    broken = True

    def respond(prompt: str, attempt: int) -> Reply:
        return Reply(status=500, body="disk full") if broken and "Question 5?" in prompt else better(prompt)

    server = serve(respond)
    with pytest.raises(RunError) as caught:
        judge_pairs(some_pairs(), endpoint(server, concurrency=1), cache=tmp_path)
    assert "no reply in 4 attempts, the last one: status 500: disk full" in caught.value.faults[0]
    assert "5 of 12 pairs (10 of 24 replies) are cached" in caught.value.faults[1]
    assert len(server.requests) == 14
    broken = False
    assert counts(judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)) == (6, 3, 3, 0, 0, 0)
    assert len(server.requests) == 28


def test_nobody_there_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(RunError, match="connection failed .ConnectError"):
        judge_pairs(some_pairs(2), endpoint(server, max_retries=1), cache=tmp_path)


def test_a_refusal_stops_at_once_and_never_shows_the_key(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse = serve(lambda prompt, attempt: Reply(status=401, body=f'{{"error": "bad key {KEY}"}}'))
    monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
    judge = endpoint(refuse, api_key_env="JUDGE_KEY", concurrency=1)
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError) as caught:
        judge_pairs(some_pairs(), judge, cache=tmp_path)
    assert len(refuse.requests) == 1 and refuse.keys == {f"Bearer {KEY}"}
    assert 'status 401: {"error": "bad key <the API key>"}' in str(caught.value)
    accept = serve(better)
    with caplog.at_level(logging.DEBUG):
        judge_pairs(some_pairs(), endpoint(accept, api_key_env="JUDGE_KEY"), cache=tmp_path)
    assert accept.keys == {f"Bearer {KEY}"}
    stored = "".join(path.read_text() for path in tmp_path.iterdir())
    assert all(KEY not in text for text in (str(caught.value), repr(judge), caplog.text, stored))

    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        judge_pairs(some_pairs(), endpoint(refuse), cache=tmp_path / "other")
    assert None in refuse.keys
    monkeypatch.setenv("JUDGE_KEY", "schlüssel")
    with pytest.raises(ConfigError, match="JUDGE_KEY: the API key .* not printable ASCII"):
        judge_pairs(some_pairs(), judge, cache=tmp_path / "other")


def test_a_refusal_is_not_hidden_by_requests_that_wait(serve: Serve, tmp_path: Path) -> None:
    def respond(prompt: str, attempt: int) -> Reply:
        if "Question 1?" in prompt:
            return Reply(status=400, body="context too long", delay=0.2)
        return Reply(status=500, body="wait")

    server, start = serve(respond), time.monotonic()
    with pytest.raises(
        ConfigError, match=r"model 'judge-1' with a prompt of \d+ characters: status 400: context too long"
    ):
        judge_pairs(some_pairs(), endpoint(server, backoff=60.0), cache=tmp_path)
    assert time.monotonic() - start < 5 and len(server.requests) == 4


def test_an_endpoints_options_are_checked_together() -> None:
    with pytest.raises(ConfigError, match="8 faults"):
        EndpointJudge(
            "localhost:8000", "", temperature=-1, max_tokens=0, concurrency=0, timeout=0, backoff=-1,
            token_limit_field="tokens",  # type: ignore[arg-type]
        )  # fmt: skip
    with pytest.raises(ConfigError, match="holds a user, a password or a query") as caught:
        EndpointJudge("https://me:secret@host/v1", "m")
    assert "secret" not in str(caught.value)


def test_hosted_models_get_their_own_spelling(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    judge = endpoint(server, temperature=None, token_limit_field="max_completion_tokens")
    judge_pairs(some_pairs(1), judge, cache=tmp_path)
    assert set(server.requests[0]) == {"model", "messages", "max_completion_tokens"}


# The cache


SCRIPT = """
import json, sys
from pathlib import Path
from gapbridge.evaluation.judge.judges import EndpointJudge
from gapbridge.evaluation.judge.winrate import Pair, judge_pairs
pairs = [Pair(**pair) for pair in json.loads(Path(sys.argv[2]).read_text())]
assert "torch" not in sys.modules, "an endpoint is used without PyTorch"
judge_pairs(pairs, EndpointJudge(sys.argv[1], "judge-1", concurrency=4), cache=Path(sys.argv[3]))
"""


def test_nothing_is_judged_twice_after_a_kill(serve: Serve, tmp_path: Path) -> None:
    def slow(prompt: str, attempt: int) -> Reply:
        reply = better(prompt)
        reply.delay = 0.02
        return reply

    server, pairs, cache = serve(slow), some_pairs(40), tmp_path / "cache"
    (tmp_path / "pairs.json").write_text(json.dumps([vars(pair) for pair in pairs]))
    arguments = [server.base_url, str(tmp_path / "pairs.json"), str(cache)]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.json"))) < 24:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.1)  # requests under way reach the server's list
    cached = {json.loads(path.read_text())["prompt"] for path in cache.glob("*.json")}
    before = server.asked()
    assert 24 <= len(cached) < 80 and cached <= before.keys() and sum(before.values()) <= len(cached) + 4

    resumed = judge_pairs(pairs, endpoint(server), cache=cache)
    again = {prompt for prompt, times in server.asked().items() if times > 1}
    assert not again & cached and len(again) <= 4 and sum(server.asked().values()) <= 84
    assert resumed == judge_pairs(pairs, endpoint(serve(better)), cache=tmp_path / "undisturbed")


def test_damaged_files_are_all_named(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    cut, empty, swapped, whole, *_ = sorted(tmp_path.glob("*.json"))
    cut.write_text(cut.read_text()[:-20])
    empty.write_text("[]")
    swapped.write_text(whole.read_text())
    with pytest.raises(DataError, match="3 faults") as caught:
        judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    assert all(any(path.name in fault for fault in caught.value.faults) for path in (cut, empty, swapped))
    assert len(server.requests) == 24
    for path in (cut, empty, swapped):
        path.unlink()
    assert counts(judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)) == (6, 3, 3, 0, 0, 0)
    assert len(server.requests) == 27
    with pytest.raises(ConfigError, match="is a file; name a directory"):
        judge_pairs(some_pairs(), endpoint(server), cache=whole)


def test_pairs_are_checked_together(tmp_path: Path) -> None:
    judge = EndpointJudge("http://127.0.0.1:9/v1", "m")
    with pytest.raises(DataError, match="no pair"):
        judge_pairs([], judge, cache=tmp_path)
    bad: Any = None
    with pytest.raises(DataError, match="3 faults") as caught:
        judge_pairs([Pair("x", "p", "\ud800", "b"), Pair("x", "p", "a", bad)], judge, cache=tmp_path)
    assert "occurs 2 times" in str(caught.value) and "second is NoneType" in str(caught.value)


# A model in this process


def test_a_local_judge_that_cannot_judge_is_counted(make_base: Any, tokenizer: Any, tmp_path: Path) -> None:
    judge = LocalJudge(make_base(), tokenizer, max_tokens=8, batch_size=3)
    pairs = [Pair(f"p{i}", "What is 3+4?", f"#### {i}", "#### 7") for i in (6, 7, 8)]
    result = judge_pairs(pairs, judge, cache=tmp_path)
    assert counts(result) == (0, 0, 1, 0, 1, 2) and len(list(tmp_path.iterdir())) == 4
    replies = [judgement.replies for judgement in result.judgements]
    alone = judge_pairs(pairs[2:], LocalJudge(make_base(), tokenizer, max_tokens=8), cache=tmp_path / "other")
    assert alone.judgements[0].replies == replies[2], "a reply does not depend on what else is asked"

    asked: list[int] = []
    judge.model.register_forward_hook(lambda *_: asked.append(1))
    assert judge_pairs(pairs, judge, cache=tmp_path) == result and not asked
    with pytest.raises(ConfigError, match="batch_size is 0"):
        judge_pairs(pairs, LocalJudge(judge.model, tokenizer, max_tokens=9, batch_size=0), cache=tmp_path)


def test_a_prompt_too_long_for_a_local_judge_is_named(make_base: Any, tokenizer: Any, tmp_path: Path) -> None:
    before = tokenizer.model_max_length
    tokenizer.model_max_length = 100
    try:
        with pytest.raises(DataError, match="model_max_length of 100") as caught:
            judge_pairs([Pair("x", "p", "a", "b")], LocalJudge(make_base(), tokenizer, max_tokens=8), cache=tmp_path)
    finally:
        tokenizer.model_max_length = before
    assert len(caught.value.faults) == 3 and "0 of 1 pairs" in caught.value.faults[-1]


# Figures


def judged(scores: Any, first: Any, second: Any) -> list[Judgement]:
    outcome = {1.0: "win", 0.5: "tie", 0.0: "loss"}
    verdicts = {1.0: ("A", "B"), 0.5: ("tie", "tie"), 0.0: ("B", "A")}
    return [
        Judgement(str(i), outcome[s], verdicts[s], ("", ""), int(a), int(b))  # type: ignore[arg-type]
        for i, (s, a, b) in enumerate(zip(scores, first, second, strict=True))
    ]


def test_length_control_takes_out_a_judge_of_length(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda p, a: Reply(f"Verdict: {'A' if len(answers(p)[0]) > len(answers(p)[1]) else 'B'}"))
    # Longer by 1 to 48 words, or shorter by 1 to 12.
    pairs = [Pair(str(d), f"Q{d}", "w " * (60 + d), "w " * 60) for d in range(-12, 49) if d]
    result = judge_pairs(pairs, endpoint(server), cache=tmp_path)
    assert result.win_rate == 0.8 and result.first_words > result.second_words
    assert result.length_controlled == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("quality", [-1.0, 0.0, 0.8])
def test_length_control_finds_what_is_left(quality: float) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(50, 150, 4000), rng.integers(20, 120, 4000)
    d = (first - second).astype(float)
    chance = 1 / (1 + np.exp(-(quality + 2 * np.tanh(d / d.std()))))
    result = summarise(judged((rng.random(4000) < chance).astype(float), first, second), judge="j", template="t")
    expected = 1 / (1 + np.exp(-quality))
    assert result.length_controlled == pytest.approx(expected, abs=0.03)
    assert result.win_rate is not None and result.win_rate > expected + 0.05


def test_the_regression_is_the_likelihoods_maximum() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        d = rng.integers(-30, 40, 25).astype(float)
        y = rng.choice([0, 0.5, 1], 25, p=[0.2, 0.1, 0.7])
        x = np.tanh(d / d.std())

        def loss(w: Any, x: Any = x, y: Any = y) -> float:
            z = w[0] + w[1] * x
            return float(np.sum(np.logaddexp(0, z) - y * z) + 0.005 * (w**2).sum())

        fitted = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
        assert length_controlled_rate(y, d) == pytest.approx(1 / (1 + np.exp(-fitted.x[0])), abs=1e-4)


def test_length_control_is_silent_where_it_knows_nothing() -> None:
    assert length_controlled_rate([], []) is None
    assert length_controlled_rate([1.0] * 9, range(9)) is None
    assert length_controlled_rate([1.0, 0.0] * 10, [3] * 20) is None
    always = length_controlled_rate([1.0] * 20, range(-10, 10))
    separable = length_controlled_rate([0.0] * 10 + [1.0] * 10, [*range(-1010, -1000), *range(1000, 1010)])
    assert always is not None and 0.97 < always < 1
    assert separable == pytest.approx(0.5, abs=0.01)
