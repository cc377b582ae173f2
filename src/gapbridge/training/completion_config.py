"""Keys of methods that let the model answer by itself before training, through vLLM if wanted. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from ..decoding.sampling_params import vllm_errors
from ..errors import describe
from .config import GenerationArgs, option


@dataclass
class CompletionArgs(GenerationArgs):
    """How completions are generated; names and defaults of the vLLM keys are those of [`~trl.GRPOConfig`].

    A completion that reaches `max_completion_length` is closed there, kept, and counted.
    """

    RUNTIME_ONLY = frozenset(
        """
        vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
        vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size
        """.split()
    )

    RANGES = {
        "max_completion_length": (1, None), "vllm_server_port": (1, 65535), "vllm_server_timeout": (0, None),
        "vllm_tensor_parallel_size": (1, None),
    }  # fmt: skip

    max_completion_length: int = option(256, "Maximum number of tokens of a generated completion.")
    use_vllm: bool = option(False, "Generate completions with vLLM.")
    vllm_mode: str = option(
        "colocate",
        "server: send requests to a `vllm serve` process; colocate: run vLLM in this process.",
        choices=["server", "colocate"],
    )
    vllm_server_base_url: str | None = option(
        None, "URL of the vLLM server, such as http://localhost:8000; it overrides host and port."
    )
    vllm_server_host: str = option("0.0.0.0", "Host of the vLLM server.")
    vllm_server_port: int = option(8000, "Port of the vLLM server.")
    vllm_server_timeout: float = option(240.0, "Seconds to wait until the vLLM server answers.")
    vllm_gpu_memory_utilization: float = option(0.3, "Fraction (0-1) of the GPU memory for vLLM, with colocate.")
    vllm_max_model_length: int | None = option(
        None, "Maximum number of tokens of prompt and completion, with colocate; default: the model's limit."
    )
    vllm_tensor_parallel_size: int = option(1, "Number of GPUs of one vLLM engine, with colocate.")

    def own_errors(self) -> list[str]:
        if not self.use_vllm:
            return []
        is_local, share = self.vllm_mode == "colocate", self.vllm_gpu_memory_utilization
        length, url = self.vllm_max_model_length, self.vllm_server_base_url
        install = 'Install it with `pip install "gapbridge[vllm]"`, or set vllm_mode: server for a server elsewhere'
        cases = (
            (is_local and find_spec("vllm") is None, "vllm_mode", "colocate without vLLM", "an installed vLLM",
             install),
            (is_local and self.world_size > 1, "vllm_mode", f"colocate in a run of {self.world_size} processes",
             "one process", "Set vllm_mode: server, which all processes share"),
            (is_local and not 0 < share <= 1, "vllm_gpu_memory_utilization", share, "a fraction above 0 and up to 1",
             "Correct the value"),
            (is_local and length is not None and length <= self.max_completion_length, "vllm_max_model_length", length,
             f"more than max_completion_length ({self.max_completion_length})", "Increase the value"),
            (not is_local and url is not None and not url.startswith(("http://", "https://")), "vllm_server_base_url",
             repr(url), "http://HOST:PORT", "Correct the address"),
        )  # fmt: skip
        found = [describe(key, got, wanted, advice) for holds, key, got, wanted, advice in cases if holds]
        return vllm_errors(self.temperature, self.top_p, self.min_p) + found

    @property
    def vllm_server_url(self) -> str:
        """Where the server is."""
        return self.vllm_server_base_url or f"http://{self.vllm_server_host}:{self.vllm_server_port}"
