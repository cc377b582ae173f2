"""A push that cannot work is refused before anything is trained, and one that fails says where the model lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from helpers import recipe, refused
from huggingface_hub import HfApi, constants


class Hub(BaseHTTPRequestHandler):
    """Answers to `create_repo` alone: as often as it is told, then no more."""

    answers: list[int] = []
    asked: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(self.path)
        status = self.answers.pop(0) if self.answers else 500
        body = json.dumps(
            {"url": "https://huggingface.co/me/run", "name": "me/run"} if status == 200 else {"error": "no"}
        ).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    Hub.answers, Hub.asked = [], []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    made = HfApi.__init__

    def at_address(self: HfApi, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "endpoint": address})

    monkeypatch.setattr(HfApi, "__init__", at_address)
    yield Hub
    server.shutdown()
    server.server_close()


def sft(folder: Path, **keys: Any) -> list[str]:
    return ["sft", *recipe(folder, method="sft", push_to_hub=True, **keys)]


@pytest.mark.parametrize("name", ["me/x y/z", "me/x/y", "-x", "x..y", "a" * 97, "me/", "ü"])
def test_names_that_no_hub_takes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = sft(tmp_path, hub_model_id=name, hub_token="hf_x")
    said = refused(capsys, *command)
    assert f"hub_model_id: got {name!r}, expected NAME or OWNER/NAME" in said
    assert not (tmp_path / "run").exists()
    assert f"hub_model_id: got {name!r}" in refused(capsys, "validate", *command[1:])


def test_no_way_to_a_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = sft(tmp_path)  # the tests are offline
    assert "push_to_hub: got a refusal for run" in refused(capsys, *command)
    assert not (tmp_path / "run").exists()
    assert "push_to_hub: got true with HF_HUB_OFFLINE" in refused(capsys, "validate", *command[1:])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "push_to_hub: got no token" in refused(capsys, "validate", *command[1:])


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses(status: int, hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.answers = [status]
    said = refused(capsys, *sft(tmp_path, hub_token="hf_x", hub_model_id="me/run"))
    assert "push_to_hub: got a refusal for me/run" in said and not (tmp_path / "run").exists()
    assert hub.asked == ["/api/repos/create"]


def test_a_push_that_fails_at_the_end_says_where_the_model_lies(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answers = [200, 500, 500]
    command = sft(tmp_path, hub_token="hf_x", hub_model_id="me/run")
    for _ in range(2):  # the same command tries again, and trains no more
        said = refused(capsys, *command)
        model = tmp_path / "run" / "round_1" / "model"
        assert f"{model}: got a trained model that is not uploaded" in said
        assert (model / "model.safetensors").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"
    assert len(hub.asked) == 3
