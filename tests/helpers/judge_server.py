"""A server that speaks OpenAI's chat completions, with whatever errors a test wants, and pairs to be judged."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gapbridge.evaluation.judge.judges import EndpointJudge
from gapbridge.evaluation.judge.winrate import Pair


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
                    sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}
                    for name, value in sent.items():
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


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Servers that stop at the end."""
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
    return EndpointJudge(server.base_url, "judge-1", **{"timeout": 5.0, "max_retries": 1, "concurrency": 4, **options})


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
