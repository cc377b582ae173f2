"""The judge: what answers a judge prompt, through an OpenAI-compatible endpoint."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ...errors import ConfigError, GapbridgeError, RunError, describe


if TYPE_CHECKING:
    import openai
    from openai import OpenAI


TEMPERATURE = 0.01  # the paper's
MAX_TOKENS = 512
_QUOTED = 500  # characters of a server's message
_TRANSIENT = (408, 409, 429)  # and every 5xx: what the client has tried again

OnReply = Callable[[int, str], object]


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind OpenAI's chat-completions protocol: OpenAI itself, vLLM, llama.cpp, Ollama and others.

    The `openai` client repeats a request after a timeout, a broken connection, 408, 409, 429 and 5xx. Any other
    refusal stops at once. The address is no part of the identity, so that a server may move; two models that share a
    name must not share a cache.

    Args:
        base_url: up to and including `/v1`.
        model: the name under which the server knows the model.
        api_key_env: the environment variable that holds the key, read when a request is made; it may be unset, as for
            local servers.
        temperature: None leaves it to the server, as some hosted models demand.
        max_tokens: the longest reply; a reply cut before its verdict is unparsable.
        token_limit_field: how the server calls that limit.
        timeout: seconds for one attempt.
        max_retries: attempts after the first.
        concurrency: requests under way at a time.

    Raises:
        ConfigError: options lie outside their range, or openai is not installed; all errors are listed.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = TEMPERATURE
    max_tokens: int = MAX_TOKENS
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    timeout: float = 120.0
    max_retries: int = 8
    concurrency: int = 8

    def __post_init__(self) -> None:
        errors = []
        url = urlsplit(self.base_url)
        if "@" in url.netloc or url.query:  # not quoted: what stands there may be a secret
            got, advice = "an address with a user, a password or a query", "Put the key into an environment variable"
            errors.append(describe("base_url", got, "an address alone", advice))
        elif url.scheme not in ("http", "https") or not url.hostname:
            expected = "an address such as http://127.0.0.1:8000/v1"
            errors.append(describe("base_url", repr(self.base_url), expected, "Correct the address"))
        if self.temperature is not None and not self.temperature >= 0:
            expected = "none, or a number of at least 0"
            errors.append(describe("temperature", self.temperature, expected, "Correct the value"))
        if not self.timeout > 0:
            errors.append(describe("timeout", self.timeout, "a number of seconds above 0", "Correct the value"))
        if importlib.util.find_spec("openai") is None:
            errors.append(
                describe("--judge_url", "no package openai", "an installed package", "Install `gapbridge[serve]`")
            )
        if errors:
            raise ConfigError(errors)

    @property
    def identity(self) -> Mapping[str, Any]:
        """As JSON values, everything that changes a reply to a given prompt."""
        settings = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return {"kind": "openai-chat", **settings}

    def ask(self, prompts: Sequence[str], on_reply: OnReply) -> None:
        """Reply to each prompt; all differ. `on_reply(index, text)` is called once for each, as soon as its reply is
        there, in any order and from several threads. After an error the requests under way are still awaited, and no
        further ones are made.

        Raises:
            ConfigError: the judge cannot be used as configured. RunError: a reply could not be had.
        """
        from openai import OpenAI

        key = os.environ.get(self.api_key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(self.api_key_env, "a key that is not printable ASCII", "an API key", "Correct the key")
        failed = threading.Event()
        with (
            OpenAI(
                base_url=self.base_url, api_key=key or "none", timeout=self.timeout, max_retries=self.max_retries
            ) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):

            def answer(index: int) -> None:
                if failed.is_set():
                    return
                try:
                    reply = self._reply(client, key, prompts[index])
                except GapbridgeError:
                    failed.set()  # here: the pool may start the next request before the error is seen below
                    raise
                on_reply(index, reply)

            futures = [pool.submit(answer, index) for index in range(len(prompts))]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                failed.set()

    def _reply(self, client: OpenAI, key: str, prompt: str) -> str:
        import openai

        options: dict[str, Any] = {self.token_limit_field: self.max_tokens}
        if self.temperature is not None:
            options["temperature"] = self.temperature
        messages: list[Any] = [{"role": "user", "content": prompt}]
        try:
            reply = client.chat.completions.create(model=self.model, messages=messages, **options)
            content = reply.choices[0].message.content or ""
        except openai.APIStatusError as error:
            raise self._refusal(error, key, prompt) from error
        except openai.APIConnectionError as error:
            cause = f"{error} {error.__cause__ or ''}".strip()
            got = f"no reply ({cause})"
            raise RunError(self.base_url, got, "a reply", "Check the server, then repeat the command") from error
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
            got = f"no chat completion ({error!r})"
            raise RunError(self.base_url, got, "a chat completion", "Check the server") from error
        # Half of a surrogate pair becomes a question mark: no file can hold it.
        return content.encode(errors="replace").decode()

    def _refusal(self, error: openai.APIStatusError, key: str, prompt: str) -> GapbridgeError:
        # Some servers repeat the key that they refuse.
        message = " ".join(error.response.text.split()).replace(key or "\0", "<the API key>")[:_QUOTED]
        said = f"status {error.status_code}: {message}"
        if error.status_code in _TRANSIENT or error.status_code >= 500:
            advice = "Check the server, then repeat the command"
            return RunError(self.base_url, f"no reply in {self.max_retries + 1} attempts ({said})", "a reply", advice)
        advice = "Check the model and the options"
        if "temperature" in message:
            advice = "Leave the temperature to the server with --judge_temperature none"
        elif "max_tokens" in message or "max_completion_tokens" in message:
            advice = "Choose max_tokens or max_completion_tokens with --judge_token_limit_field"
        elif not key:
            advice = f"Set the environment variable {self.api_key_env}, which holds no key"
        got = f"a refusal for model {self.model!r} and a prompt of {len(prompt)} characters ({said})"
        return ConfigError(self.base_url, got, "a reply", advice)
