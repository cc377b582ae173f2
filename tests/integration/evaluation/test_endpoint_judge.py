"""A judge behind an endpoint with errors: what passes is tried again, what lasts ends the run, none is asked twice."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from helpers.judge_server import Reply, Serve, better, counts, endpoint, serving, some_pairs

from gapbridge.errors import ConfigError, RunError
from gapbridge.evaluation.judge.judges import EndpointJudge
from gapbridge.evaluation.judge.winrate import Pair, judge_pairs


KEY = "sk-not-to-be-seen"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with serving(monkeypatch) as start:
        yield start


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=500, body="broken"),
        Reply(status=503, body="{}"),
        Reply(status=408, body=""),
        Reply(status=429, body='{"error": {"message": "slow down"}}'),
        Reply(delay=0.6),
    ],
    ids=["500", "503", "408", "429", "timeout"],
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


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body="<html>gateway</html>", headers={"Content-Type": "text/html"}),
        Reply(body="<html>gateway</html>"),
        Reply(body='{"error": {"code": 502}}'),
        Reply(body='{"choices": []}'),
    ],
    ids=["html", "no JSON", "error in 200", "no choice"],
)
def test_what_is_no_chat_completion_ends_the_run(serve: Serve, tmp_path: Path, reply: Reply) -> None:
    server = serve(lambda prompt, attempt: reply)
    with pytest.raises(RunError, match="got no chat completion"):
        judge_pairs(some_pairs(1), endpoint(server), cache=tmp_path)


def test_a_lasting_fault_ends_the_run_and_the_next_continues(serve: Serve, tmp_path: Path) -> None:
    broken = True

    def respond(prompt: str, attempt: int) -> Reply:
        return Reply(status=500, body="disk full") if broken and "Question 5?" in prompt else better(prompt)

    server = serve(respond)
    with pytest.raises(RunError) as caught:
        judge_pairs(some_pairs(), endpoint(server, concurrency=1), cache=tmp_path)
    assert "got no reply in 2 attempts (status 500: disk full), expected a reply" in caught.value.errors[0]
    assert "5 of 12 pairs (10 of 24 replies) are cached" in caught.value.errors[1]
    assert len(server.requests) == 12
    broken = False
    assert counts(judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)) == (6, 3, 3, 0, 0, 0)
    assert len(server.requests) == 26


def test_nobody_there_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(RunError, match="got no reply .Connection error"):
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

    with pytest.raises(ConfigError, match="Set the environment variable OPENAI_API_KEY, which holds no key"):
        judge_pairs(some_pairs(), endpoint(refuse), cache=tmp_path / "other")
    monkeypatch.setenv("JUDGE_KEY", "schlüssel")
    with pytest.raises(ConfigError, match="JUDGE_KEY: got a key that is not printable ASCII, expected an API key"):
        judge_pairs(some_pairs(), judge, cache=tmp_path / "other")


def test_an_endpoints_options_are_checked_together() -> None:
    with pytest.raises(ConfigError, match="3 errors"):
        EndpointJudge("localhost:8000", "m", temperature=-1, timeout=0)
    with pytest.raises(ConfigError, match="an address with a user, a password or a query") as caught:
        EndpointJudge("https://me:secret@host/v1", "m")
    assert "secret" not in str(caught.value)


def test_hosted_models_get_their_own_spelling(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    judge = endpoint(server, temperature=None, token_limit_field="max_completion_tokens")
    judge_pairs(some_pairs(1), judge, cache=tmp_path)
    assert set(server.requests[0]) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("'temperature' does not support 0.01 with this model", "--judge_temperature none"),
        ("max_tokens is too large", "--judge_token_limit_field"),
    ],
)
def test_a_refused_setting_names_its_option(serve: Serve, tmp_path: Path, body: str, hint: str) -> None:
    server = serve(lambda prompt, attempt: Reply(status=400, body=body))
    with pytest.raises(ConfigError, match=hint):
        judge_pairs(some_pairs(1), endpoint(server, concurrency=1), cache=tmp_path)


@pytest.mark.parametrize(
    "content", ["<think>Verdict: A</think>", "<think>Verdict: A", "<thinking>Verdict: A", "", "Verdict: A or B"]
)
def test_what_a_judge_thinks_is_no_verdict(serve: Serve, tmp_path: Path, content: str) -> None:
    server = serve(lambda prompt, attempt: Reply(content))
    result = judge_pairs(some_pairs(1), endpoint(server), cache=tmp_path)
    assert counts(result) == (0, 0, 0, 0, 0, 1)


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


def test_a_damaged_reply_is_requested_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(better)
    judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)
    cut, empty, swapped, full, *_ = sorted(tmp_path.glob("*.json"))
    cut.write_text(cut.read_text()[:-20])
    empty.write_text("[]")
    swapped.write_text(full.read_text())
    assert counts(judge_pairs(some_pairs(), endpoint(server), cache=tmp_path)) == (6, 3, 3, 0, 0, 0)
    assert len(server.requests) == 27
    with pytest.raises(ConfigError, match="got a file, expected a directory"):
        judge_pairs(some_pairs(), endpoint(server), cache=full)
