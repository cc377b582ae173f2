"""Judges: what answers a judge prompt. An OpenAI-compatible endpoint, or a model in this process."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ...compat import http_client
from ...errors import ConfigError, DataError, RunError, describe


if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
else:
    httpx = http_client()


logger = logging.getLogger(__name__)

TEMPERATURE = 0.01  # the paper's
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")  # what servers call the longest reply
MAX_TOKENS = 512
_QUOTED = 500  # characters of a server's message
_TRANSIENT = (408, 429)  # and every 5xx

_ADDRESS = "an address such as http://127.0.0.1:8000/v1"

OnReply = Callable[[int, str], object]


class Judge(Protocol):
    """Answers prompts. `identity` holds, as JSON values, everything that changes a reply to a given prompt."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def ask(self, prompts: Sequence[str], on_reply: OnReply) -> None:
        """Reply to each prompt; all differ. `on_reply(index, text)` is called once for each, as soon as its reply is
        there, in any order and possibly from several threads. After an error, replies that came before were passed on.

        Raises:
            ConfigError: the judge cannot be used as configured. DataError: a prompt cannot be judged.
            RunError: a reply could not be had.
        """
        ...


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind OpenAI's chat-completions protocol: OpenAI itself, vLLM, llama.cpp, Ollama and others.

    Timeouts, broken connections, 408, 429 and 5xx are tried again after an exponentially growing wait with jitter, or
    after the server's Retry-After if that is longer. Any other refusal stops at once. The address is no part of the
    identity, so that a server may move; two models that share a name must not share a cache.

    Args:
        base_url: up to and including `/v1`.
        model: the name under which the server knows the model.
        api_key_env: the environment variable that holds the key, read when a request is made; it may be unset, as for
            local servers. None sends no key.
        temperature: None leaves it to the server, as some hosted models demand.
        max_tokens: the longest reply; a reply cut before its verdict is unparsable.
        token_limit_field: how the server calls that limit; where it asks for the other name, that is used.
        timeout: seconds for one attempt, from the connection to the reply's last byte.
        max_retries: attempts after the first.
        backoff: seconds before the first retry, doubled for each further one.
        max_wait: seconds; the longest wait. A server that asks for a longer one ends the run.
        concurrency: requests under way at a time.

    Raises:
        ConfigError: options lie outside their range; all are listed.
    """

    base_url: str
    model: str
    api_key_env: str | None = "OPENAI_API_KEY"
    temperature: float | None = TEMPERATURE
    max_tokens: int = MAX_TOKENS
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    timeout: float = 120.0
    max_retries: int = 6
    backoff: float = 1.0
    max_wait: float = 120.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        errors = []
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            errors.append(describe("base_url", f"{self.base_url!r} ({error})", _ADDRESS, "Correct the address"))
        else:
            if url.userinfo or url.query:
                # Not quoted: what stands there may be a secret.
                errors.append(
                    describe(
                        "base_url",
                        "an address with a user, a password or a query",
                        "an address alone",
                        "Put the key into an environment variable, and name it with api_key_env",
                    )
                )
            elif url.scheme not in ("http", "https") or not url.host:
                errors.append(describe("base_url", repr(self.base_url), _ADDRESS, "Correct the address"))
        if not self.model:
            errors.append(describe("model", "an empty name", "the name that the server uses", "Add the name"))
        if self.temperature is not None and not self.temperature >= 0:
            errors.append(
                describe("temperature", self.temperature, "None, or a number of at least 0", "Correct the value")
            )
        if self.token_limit_field not in TOKEN_LIMITS:
            errors.append(
                describe(
                    "token_limit_field",
                    f"{self.token_limit_field!r}",
                    "max_tokens or max_completion_tokens",
                    "Choose one of them",
                )
            )
        if not self.timeout > 0:
            errors.append(describe("timeout", self.timeout, "a number of seconds above 0", "Correct the value"))
        least = {"max_tokens": 1, "concurrency": 1, "max_retries": 0, "backoff": 0, "max_wait": 0}
        errors += [
            describe(name, vars(self)[name], f"at least {low}", "Correct the value")
            for name, low in least.items()
            if not vars(self)[name] >= low
        ]
        if errors:
            raise ConfigError(errors)

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "openai-chat",
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + "/chat/completions"

    def ask(self, prompts: Sequence[str], on_reply: OnReply) -> None:
        """See `Judge.ask`. After an error the requests under way are still awaited, and no further ones are made."""
        if not prompts:
            return
        key = self._key()
        stop = threading.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
        limit_field = _LimitField(self.token_limit_field)
        with (
            httpx.Client(timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(max_workers=min(self.concurrency, len(prompts))) as pool,
        ):

            def answer(index: int) -> None:
                try:
                    reply = None if stop.is_set() else self._reply(client, key, prompts[index], stop, limit_field)
                except (ConfigError, RunError):
                    stop.set()  # here too: the pool may start the next request before the error is seen below
                    raise
                if reply is not None:
                    on_reply(index, reply)

            futures = [pool.submit(answer, index) for index in range(len(prompts))]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                stop.set()
                for future in futures:
                    future.cancel()

    def _key(self) -> str | None:
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not key.isascii() or not key.isprintable():
            raise ConfigError(self.api_key_env, "a key that is not printable ASCII", "an API key", "Correct the key")
        return key or None

    def _reply(
        self, client: httpx.Client, key: str | None, prompt: str, stop: threading.Event, limit_field: _LimitField
    ) -> str | None:
        """The reply; None if `stop` was set while this waited to try again."""
        error = ""
        for attempt in range(self.max_retries + 1):
            attempted = self._attempt(client, key, prompt, limit_field)
            if isinstance(attempted, str):
                return attempted
            error = attempted.error
            if attempted.wait > self.max_wait:
                raise RunError(
                    self.url,
                    f"{error}, with a request to wait {attempted.wait:.0f} s",
                    f"at most max_wait ({self.max_wait:g} s)",
                    "Repeat the command later, or raise max_wait",
                )
            delay = min(self.max_wait, self.backoff * 2**attempt) * random.uniform(0.5, 1)
            if attempt < self.max_retries and stop.wait(max(delay, attempted.wait)):
                return None
        raise RunError(
            self.url,
            f"no reply in {self.max_retries + 1} attempts (the last one: {error})",
            "a reply",
            "Check the server, then repeat the command",
        )

    def _attempt(
        self, client: httpx.Client, key: str | None, prompt: str, limit_field: _LimitField
    ) -> str | _Transient:
        """The reply, or why there is none yet. A refusal that will not pass raises ConfigError."""
        try:
            field = limit_field.name
            response = self._post(client, key, prompt, field)
            if other := _wanted_field(response, field):
                response = self._post(client, key, prompt, other)
                if response.status_code < 400:
                    limit_field.change(other, self.url)
        except httpx.RequestError as error:
            what = "timeout" if isinstance(error, httpx.TimeoutException) else "connection failed"
            return _Transient(f"{what} ({type(error).__name__}: {error})")
        # Some servers repeat the key that they refuse.
        message = " ".join(response.text.split()).replace(key or "\0", "<the API key>")[:_QUOTED]
        said = f"status {response.status_code}: {message}"
        if response.status_code in _TRANSIENT or response.status_code >= 500:
            return _Transient(said, _retry_after(response.headers.get("retry-after", "")))
        if not response.is_success:
            hint = ""
            if "temperature" in message:
                hint = "Leave the temperature to the server with --judge_temperature none"
            elif any(name in message for name in TOKEN_LIMITS):
                hint = f"Choose {' or '.join(TOKEN_LIMITS)} with --judge_token_limit_field"
            elif self.api_key_env and not key:
                hint = f"Set the environment variable {self.api_key_env}, which holds no key"
            raise ConfigError(
                self.url,
                f"a refusal for model {self.model!r} and a prompt of {len(prompt)} characters ({said})",
                "a reply",
                str(hint or "Check the model and the options"),
            )
        content = _content(response.content)
        return _Transient(f"no chat completion, {said}") if content is None else content

    def _post(self, client: httpx.Client, key: str | None, prompt: str, limit_field: str) -> httpx.Response:
        """The response, if it is whole within the timeout.

        The client's own timeout begins again with each byte. A server that sends byte by byte is left to a thread that
        ends with the process.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            limit_field: self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        outcome: queue.SimpleQueue[httpx.Response | httpx.RequestError] = queue.SimpleQueue()

        def send() -> None:
            try:
                outcome.put(client.post(self.url, json=body, headers=headers))
            except httpx.RequestError as error:
                outcome.put(error)

        threading.Thread(target=send, daemon=True).start()
        try:
            found = outcome.get(timeout=self.timeout)
        except queue.Empty:
            raise httpx.ReadTimeout(f"no complete reply within {self.timeout:g} s") from None
        if isinstance(found, httpx.RequestError):
            raise found
        return found


class _LimitField:
    """The name of the token limit that the server takes, for all requests of one `ask`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def change(self, name: str, url: str) -> None:
        if self.name != name:
            logger.warning("%s takes %s instead of %s", url, name, self.name)
            self.name = name


@dataclass(frozen=True)
class _Transient:
    """Why an attempt failed, and the seconds that the server asks to wait."""

    error: str
    wait: float = 0.0


def _wanted_field(response: httpx.Response, field: str) -> str | None:
    """The other name of the token limit, where a refusal names either; else None."""
    if response.status_code not in (400, 422) or not any(name in response.text for name in TOKEN_LIMITS):
        return None
    return next(name for name in TOKEN_LIMITS if name != field)


def _retry_after(value: str) -> float:
    """Seconds from Retry-After, which holds seconds or a date (RFC 9110, 10.2.3); 0 where there is none."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _content(body: bytes) -> str | None:
    """The text of a chat completion; None if the body is none. A message without text (a refusal) is empty."""
    try:
        message = json.loads(body)["choices"][0]["message"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    # Half of a surrogate pair becomes a question mark: no file can hold it.
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


class LocalJudge:
    """A causal language model in this process, on its device, asked through its chat template if it has one.

    Replies are generated with noise keyed by the prompt, so a reply does not depend on what else is asked.

    Args:
        max_tokens: the longest reply.
        batch_size: prompts in one pass; replies are passed on batch by batch.

    Raises:
        ConfigError: the tokenizer has no EOS token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
        batch_size: int = 16,
    ) -> None:
        # Here and not above: an endpoint is judged with without loading PyTorch.
        from ...data.special_tokens import stop_tokens, undecodable_token_ids
        from ...store.fingerprint import tokenizer_fingerprint, weights_fingerprint

        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.max_tokens, self.batch_size = temperature, max_tokens, batch_size
        self.stops, self.unnamed = stop_tokens(tokenizer, model), undecodable_token_ids(tokenizer, model)
        self.identity: Mapping[str, Any] = {
            "kind": "local",
            "weights": weights_fingerprint(model),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "stop_tokens": self.stops,
            "suppress_tokens": self.unnamed,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }

    @property
    def name(self) -> str:
        return str(self.model.config.name_or_path)

    def ask(self, prompts: Sequence[str], on_reply: OnReply) -> None:
        """See `Judge.ask`.

        Raises:
            DataError: prompts do not fit the tokenizer's `model_max_length`; all are listed. ConfigError: an option
                lies outside its range.
        """
        from ...decoding import generate_completions

        tokens = [self._tokens(prompt) for prompt in prompts]
        room = self.tokenizer.model_max_length - self.max_tokens
        errors = [
            describe(
                f"judge prompt {prompt[:60]!r}…",
                f"{len(ids)} tokens and {self.max_tokens} for the reply",
                f"at most {self.tokenizer.model_max_length}, the tokenizer's model_max_length",
                "Shorten the prompt, or lower max_tokens",
            )
            for prompt, ids in zip(prompts, tokens, strict=True)
            if len(ids) > room
        ]
        if errors:
            raise DataError(errors)
        for start in range(0, len(prompts), max(1, self.batch_size)):
            part = range(start, min(start + self.batch_size, len(prompts)))
            completions = generate_completions(
                self.model,
                [tokens[index] for index in part],
                ids=[hashlib.blake2b(prompts[index].encode(), digest_size=16).hexdigest() for index in part],
                max_completion_length=self.max_tokens,
                temperature=self.temperature,
                stop_tokens=self.stops,
                suppress_tokens=self.unnamed,
                batch_size=self.batch_size,
            )
            for index, completion in zip(part, completions, strict=True):
                on_reply(index, str(self.tokenizer.decode(completion.tokens, skip_special_tokens=True)))

    def _tokens(self, prompt: str) -> list[int]:
        from ...data.chat_template import ChatTemplate

        asks_text = self.tokenizer.chat_template is None
        return ChatTemplate(self.tokenizer).prompt_ids(prompt if asks_text else [{"role": "user", "content": prompt}])
