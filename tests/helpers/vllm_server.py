"""A server that speaks the part of `vllm serve` that is used and answers with a tiny model of ours.

It refuses keys that vLLM's completion requests do not have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import PreTrainedModel

from gapbridge.decoding import generate_completions


# The keys of vLLM's CompletionRequest that are sent here; a real server answers 400 to others or ignores them.
KEYS = frozenset(
    """
    model prompt max_tokens temperature top_k top_p min_p seed repetition_penalty presence_penalty frequency_penalty
    stop_token_ids include_stop_str_in_output ignore_eos skip_special_tokens logprobs logit_bias return_token_ids
    """.split()
)


@dataclass
class Served:
    """What the server serves, how it misbehaves, and what it was asked."""

    model: PreTrainedModel
    root: str
    name: str
    starting: int = 0
    max_length: int = 2048
    models: str | None = None
    spoil: Callable[[dict[str, Any]], object] = lambda choice: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, stops = body["prompt"], body.get("stop_token_ids", [1])
        with self.lock:
            self.requests.append(body)
            (completion,) = generate_completions(
                self.model, [prompt], ids=[body["seed"]], max_completion_length=body["max_tokens"], stop_tokens=stops,
                temperature=body["temperature"], top_k=body.get("top_k", 0), top_p=body["top_p"],
                min_p=body.get("min_p", 0.0),
                suppress_tokens=[int(token) for token in body.get("logit_bias", {})],
            )  # fmt: skip
            choice = {
                "token_ids": completion.tokens,
                "logprobs": {"token_logprobs": scores(self.model, prompt, completion.tokens)},
                "finish_reason": "stop" if completion.finished else "length",
            }
        self.choices.append(choice)
        self.spoil(choice)
        return {"choices": [choice]}


def scores(model: PreTrainedModel, prompt: list[int], tokens: list[int]) -> list[float]:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0]
    return [float(logits[len(prompt) + at - 1].log_softmax(-1)[token]) for at, token in enumerate(tokens)]


class Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Served, *arguments: Any) -> None:
        self.served = served
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.served.starting -= 1
            self.reply(503 if self.served.starting >= 0 else 200, "")
        elif self.path == "/v1/models":
            cards = [{"id": self.served.name, "root": self.served.root, "max_model_len": self.served.max_length}]
            self.reply(200, json.dumps({"data": cards}) if self.served.models is None else self.served.models)
        else:
            self.reply(404, self.path)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions" or body["model"] != self.served.name:
            self.reply(404, "no such path or model")
        elif not KEYS >= set(body) or not body["prompt"]:
            self.reply(400, f"unknown keys {set(body) - KEYS}, or no prompt")
        else:
            self.reply(200, json.dumps(self.served.complete(body)))

    def reply(self, status: int, text: str) -> None:
        payload = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: Any) -> None:
        """Silence."""


@contextmanager
def running(served: Served) -> Iterator[Served]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, served)) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
