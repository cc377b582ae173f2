"""Free-running answers ŷ ~ π(· | x) by vLLM, for models and machines where speed matters more than keyed noise.

Two engines: a server started with `vllm serve`, and vLLM in this process. Both hold a copy of the weights that nothing
here updates, so `check_weights` compares it with the model before anything is sampled. Each answer has a seed of its
own: prompts that share one seed would be answered with the same random numbers. vLLM's batches change with the load,
so the result is not byte-reproducible, as that of `generate_completions` is.
"""

from __future__ import annotations

import gc
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from ..compat import vocabulary_size
from ..errors import RunError
from .engine import Completion
from .model_state import generation_mode, generation_precision
from .noise import example_keys
from .sampling_params import SamplingParams
from .validate_inputs import check_ids


logger = logging.getLogger(__name__)

CHECKED_PROMPTS, CHECKED_TOKENS = 8, 32
# Nats a token. bfloat16 and another attention kernel give a few hundredths.
LOG_PROBABILITY_TOLERANCE = 0.1

_POLL_SECONDS = 1.0
_HEALTH_SECONDS = 5.0
_ANSWER_SECONDS = 3600.0  # a server that takes longer for one answer has hung
_NEVER = -100.0  # the lowest logit bias of the API
_MORE_ROOM = "Raise --max-model-len of the server or vllm_max_model_length"


@dataclass(frozen=True)
class Reply:
    """What vLLM drew: `tokens` with the one that ended it, their `log_probabilities`, and `reason` (stop, length)."""

    tokens: list[int]
    log_probabilities: list[float]
    reason: str | None


class Engine(Protocol):
    """Something that answers.

    name: in errors. remedy: how it gets the right weights. max_length: the most tokens of a prompt and its completion,
    where known.
    """

    name: str
    remedy: str
    max_length: int | None

    def answers(self, prompts: Sequence[Sequence[int]], parameters: Sequence[dict[str, Any]]) -> Iterator[Reply]:
        """One answer a prompt, in order; `parameters` are vLLM's `SamplingParams`, one a prompt."""

    def close(self) -> None:
        """Give back what the engine holds."""


class ServerEngine:
    """A `vllm serve` process, through `/health`, `/v1/models` and `/v1/completions`.

    TRL's `VLLMClient` needs vLLM installed on this side, and gives all prompts of a request one seed.

    Args:
        url: such as `http://localhost:8000`.
        model: path, or name (`--served-model-name`), under which the server must serve the model.
        timeout: seconds to wait for the server to be up; 0 tries once.
        concurrency: requests at a time; the server batches them.

    Raises:
        RunError: no server answers within `timeout`, or the server serves another model.
    """

    def __init__(self, url: str, *, model: str, timeout: float, concurrency: int) -> None:
        self.url = url.rstrip("/")
        self.name = f"the vLLM server at {self.url}"
        self.remedy = f"Stop it, start `vllm serve {model}`, and repeat the command"
        self.max_length: int | None = None
        self._concurrency = concurrency
        self._opener = urllib.request.build_opener()
        self._wait(timeout, model)
        self._model = self._served(model)

    def answers(self, prompts: Sequence[Sequence[int]], parameters: Sequence[dict[str, Any]]) -> Iterator[Reply]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            yield from pool.map(self._answer, prompts, parameters)

    def close(self) -> None:
        """Nothing is held: each request has its own connection."""

    def _answer(self, prompt: Sequence[int], parameters: dict[str, Any]) -> Reply:
        body = {"model": self._model, "prompt": list(prompt), "return_token_ids": True, **parameters}
        reply = self._call("/v1/completions", body)
        try:
            (choice,) = reply["choices"]
            tokens = [int(token) for token in choice["token_ids"]]
            return Reply(tokens, list(choice["logprobs"]["token_logprobs"]), choice["finish_reason"])
        except (KeyError, TypeError, ValueError) as error:
            got, expected = f"no token ids or log-probabilities ({error!r})", "the reply of vLLM 0.22 or later"
            raise RunError(f"{self.url}/v1/completions", got, expected, "Install a newer vLLM") from error

    def _wait(self, timeout: float, model: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._call("/health", timeout=_HEALTH_SECONDS)
                return
            except RunError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    got = f"no vLLM server after {timeout:g} s ({error.__cause__})"
                    advice = f"Start `vllm serve {model}`, or correct its address (vllm_server_base_url)"
                    raise RunError(self.url, got, "one within vllm_server_timeout", advice) from error
                time.sleep(min(_POLL_SECONDS, left))

    def _served(self, model: str) -> str:
        """The name under which the server answers for `model`."""
        reply = self._call("/v1/models")
        try:
            served = {str(card["id"]): str(card["root"] or card["id"]) for card in reply["data"]}
            lengths = {str(card["id"]): card.get("max_model_len") for card in reply["data"]}
        except (AttributeError, KeyError, TypeError) as error:
            place, got = f"{self.url}/v1/models", f"no list of models ({error!r})"
            raise RunError(place, got, "a vLLM server", "Correct the address") from error
        for name, root in served.items():
            if name == model or _same_path(root, model):
                self.max_length = lengths[name]
                return name
        advice = f"Start `vllm serve {model}` instead, or add `--served-model-name {model}`"
        raise RunError(f"{self.url}/v1/models, model", ", ".join(served.values()), model, advice)

    def _call(self, path: str, body: dict[str, Any] | None = None, timeout: float = _ANSWER_SECONDS) -> Any:
        """The JSON of a reply, None of an empty one; with a body it is a POST."""
        url, data = self.url + path, None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            reason = error.read()[:500].decode(errors="replace")
            got = f"status {error.code} ({reason})"
            raise RunError(url, got, "a completed request", "Check the server and its options") from error
        except (OSError, HTTPException) as error:
            raise RunError(url, error, "a reply", "Start the server, then repeat the command") from error
        except ValueError as error:
            raise RunError(url, "a reply that is not JSON", "a vLLM server", "Correct the address") from error


class ColocatedEngine:
    """vLLM in this process, on this process's GPU, beside the model that is to be trained.

    Args:
        model: directory or hub name, from which vLLM loads its own copy of the weights.
        dtype: the precision of its weights and passes.
        concurrency: answers in one batch.
        gpu_memory_utilization, max_model_length, tensor_parallel_size: as in TRL.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: torch.dtype,
        concurrency: int,
        gpu_memory_utilization: float,
        max_model_length: int | None,
        tensor_parallel_size: int,
        trust_remote_code: bool,
    ) -> None:
        from vllm import LLM  # large and optional: only who asks for it pays for it

        self.name = f"vLLM with the weights of {model}"
        self.remedy = "Save the model with save_pretrained, and start from that directory"
        self.max_length = max_model_length
        self._llm: Any = LLM(
            model=model,
            dtype=str(dtype).removeprefix("torch."),
            max_num_seqs=concurrency,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_length,
            tensor_parallel_size=tensor_parallel_size,
            trust_remote_code=trust_remote_code,
        )

    def answers(self, prompts: Sequence[Sequence[int]], parameters: Sequence[dict[str, Any]]) -> Iterator[Reply]:
        from vllm import SamplingParams as VLLMSamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            sampling_params=[VLLMSamplingParams(**one) for one in parameters],
            use_tqdm=False,
        )
        for output in outputs:
            (choice,) = output.outputs
            tokens = list(choice.token_ids)
            sampled = [entry[token].logprob for entry, token in zip(choice.logprobs, tokens, strict=True)]
            yield Reply(tokens, sampled, choice.finish_reason)

    def close(self) -> None:
        """Free the GPU: vLLM ends its worker when the last reference to it goes."""
        self._llm = None
        gc.collect()
        torch.cuda.empty_cache()


def check_weights(
    engine: Engine, model: PreTrainedModel, prompts: Sequence[Sequence[int]], stop_tokens: Sequence[int]
) -> float:
    """Compare the engine's weights with the model's, on the log-probabilities of tokens that the engine samples.

    Args:
        model: on its device; the caller sets the precision.

    Returns:
        The mean absolute difference of the tokens' log-probabilities, in nats.

    Raises:
        RunError: it is larger than `LOG_PROBABILITY_TOLERANCE`, or the engine knows tokens that the model does not.
    """
    chosen = sorted(prompts, key=len)[:CHECKED_PROMPTS]
    common = _parameters(SamplingParams(), CHECKED_TOKENS, stop_tokens)
    parameters = [{**common, "seed": at} for at in range(len(chosen))]
    vocabulary = vocabulary_size(model)
    differences = []
    with generation_mode(model):
        for prompt, reply in zip(chosen, engine.answers(chosen, parameters), strict=True):
            if not reply.tokens or max(reply.tokens) >= vocabulary:
                got = f"no tokens, or tokens outside the vocabulary of {vocabulary}"
                raise RunError(engine.name, got, "the completions of this model", engine.remedy)
            theirs = torch.tensor(reply.log_probabilities)
            differences.append((_log_probabilities(model, prompt, reply.tokens).cpu() - theirs).abs())
    difference = float(torch.cat(differences).mean())
    if not difference <= LOG_PROBABILITY_TOLERANCE:  # also when it is not a number
        got = f"log-probabilities that differ by {difference:.3f} on average over {len(chosen)} prompts"
        expected = f"at most {LOG_PROBABILITY_TOLERANCE}, as with these weights in this precision"
        raise RunError(engine.name, got, expected, engine.remedy)
    return difference


def generate_completions_vllm(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    *,
    ids: Sequence[str | int],
    max_completion_length: int,
    stop_tokens: Sequence[int],
    options: SamplingParams,
    on_finished: Callable[[int], object] | None = None,
) -> list[Completion]:
    """Let vLLM answer each prompt; arguments and result as those of `generate_completions`.

    The engine has a batch size of its own. An engine that ends at other tokens, samples a suppressed one or cuts an
    answer short of `max_completion_length` is refused.

    Raises:
        DataError: not one id a prompt. RunError: the engine cannot be reached or does not do what it was asked.
    """
    check_ids(prompts, ids)
    longest = max(map(len, prompts), default=0) + max_completion_length
    if engine.max_length is not None and longest > engine.max_length:
        place, expected = f"{engine.name}, tokens of a prompt and its completion", f"at most {engine.max_length}"
        raise RunError(place, longest, expected, f"{_MORE_ROOM}, or shorten the completions")
    common = _parameters(options, max_completion_length, stop_tokens)
    keys = example_keys(ids, seed=options.seed, round_index=options.round_index).tolist()
    parameters = [{**common, "seed": (first & 0x7FFFFFFF) << 32 | second} for first, second in keys]
    stops, suppressed = set(stop_tokens), set(options.suppress_tokens)
    completions = []
    for reply in engine.answers(prompts, parameters):
        completions.append(_completion(reply, engine.name, max_completion_length, stops, suppressed))
        if on_finished is not None:
            on_finished(1)
    return completions


class CheckedGenerator:
    """`generate_completions_vllm` through one engine, whose weights are compared with the model's (`check_weights`)
    before its first completion.

    Args:
        args: says in which precision the model scores.
        stop_tokens: what ends a completion of the comparison.
    """

    def __init__(
        self, engine: Engine, model: PreTrainedModel, args: TrainingArguments, stop_tokens: Sequence[int]
    ) -> None:
        self.engine = engine
        self._model, self._args, self._stop_tokens = model, args, stop_tokens
        self._is_checked = False

    def __call__(self, prompts: Sequence[Sequence[int]], **how: Any) -> list[Completion]:
        """Called as `generate_completions` without its model.

        Raises:
            RunError: the engine holds other weights; the next call compares them again.
        """
        if prompts and not self._is_checked:
            with generation_precision(self._model, self._args):
                difference = check_weights(self.engine, self._model, prompts, self._stop_tokens)
            logger.info("%s holds the model's weights (difference %.4f)", self.engine.name, difference)
            self._is_checked = True
        return generate_completions_vllm(self.engine, prompts, **how)


def _parameters(options: SamplingParams, max_tokens: int, stop_tokens: Sequence[int]) -> dict[str, Any]:
    """vLLM's sampling parameters. All are given: a server takes the missing ones from the model's generation config.

    `ignore_eos` with `stop_token_ids` leaves exactly our stop tokens; vLLM would add those that it knows.
    """
    parameters: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": sorted(set(stop_tokens)),
        "include_stop_str_in_output": True,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "logprobs": 0,  # of the sampled tokens alone
    }
    if options.suppress_tokens:
        parameters["logit_bias"] = dict.fromkeys(sorted(set(options.suppress_tokens)), _NEVER)
    return parameters


def _completion(reply: Reply, engine: str, limit: int, stops: set[int], suppressed: set[int]) -> Completion:
    """The reply as a completion, or a RunError that says what the engine did with it."""
    tokens = reply.tokens
    finished = bool(tokens) and tokens[-1] in stops
    got = f"an end after {len(tokens)} of {limit} tokens ({reply.reason!r})"
    if suppressed.intersection(tokens):
        got, expected = "a token that the tokenizer cannot decode", "none, as logit_bias requests"
        raise RunError(engine, got, expected, "Update the server")
    if stops.intersection(tokens[:-1]) or (reply.reason == "stop" and not finished) or len(tokens) > limit:
        raise RunError(engine, got, f"one of the stop_token_ids {sorted(stops)}", "Update the server")
    if not finished and len(tokens) < limit:
        raise RunError(engine, got, "room for prompt and completion", f"{_MORE_ROOM}, or lower max_completion_length")
    return Completion(tokens, finished)


def _log_probabilities(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """log π(token | prompt, tokens before it), shape `[len(tokens)]`, float32."""
    ids = torch.tensor([[*prompt, *tokens]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].to(torch.float32)
    return logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def _same_path(root: str, model: str) -> bool:
    """Whether the server's path and ours are one: the same name, or on this machine the same directory."""
    if root.rstrip("/") == model.rstrip("/"):
        return True
    return Path(model).is_dir() and Path(root).resolve() == Path(model).resolve()
