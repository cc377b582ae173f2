"""What the steps share: where they run, at what size, and how a case is recorded."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel


ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from mixing import machine_and_versions  # noqa: E402


BASE = ROOT / "recipes" / "tiny" / "base"
SHAPES: dict[str, dict[str, int]] = {  # published shapes; weights are random
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152},  # SmolLM2-135M
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},  # Llama-3.2-1B
}  # fmt: skip


@dataclass
class Setup:
    """One step's surroundings and its record, which is on disk after every case."""

    step: str
    device: str
    scale: str
    output: Path
    cases: dict[str, Any] = field(default_factory=dict)

    @property
    def is_tiny(self) -> bool:
        return self.scale == "tiny"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def shapes(self, *names: str) -> tuple[str, ...]:
        """The shapes to measure: as asked, or the tiny one."""
        return ("tiny",) if self.is_tiny else names

    def choose(self, full: int, tiny: int) -> int:
        return tiny if self.is_tiny else full

    def model(self, shape: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """A Llama of that shape with random weights, on the device."""
        torch.manual_seed(0)
        config = LlamaConfig(
            **SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1
        )
        with torch.device(self.device):
            model = LlamaForCausalLM(config)
        return model.to(dtype or self.dtype)

    @contextmanager
    def case(self, name: str) -> Iterator[dict[str, Any]]:
        """Record what the body puts into the dictionary. An error is recorded too, and the next case runs."""
        found: dict[str, Any] = {}
        started = time.perf_counter()
        try:
            yield found
        except Exception as error:  # whatever it is: GPU time is rare, and the other cases are worth it
            traceback.print_exc()
            found["error"] = f"{type(error).__name__}: {str(error)[:500]}"
        found["case_seconds"] = round(time.perf_counter() - started, 2)
        self.cases[name] = found
        self.write("running")
        shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
        print(f"{self.step}: {name}: {shown}", flush=True)
        free_memory()

    def write(self, state: str) -> None:
        """Write the record whole: under a temporary name, then under its own."""
        machine, versions = machine_and_versions(self.device, torch.get_num_threads())
        record = {
            "step": self.step, "state": state, "settings": {"device": self.device, "scale": self.scale},
            "machine": machine, "versions": versions, "cases": self.cases,
        }  # fmt: skip
        path = self.output / f"{self.step}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(path)


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def digit_text(tokens: int, seed: int) -> str:
    """Digits, each of them one token of the embedded tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    return "".join(str(digit) for digit in torch.randint(10, (tokens,), generator=generator).tolist())


def digit_rows(count: int, prompt: int, answer: int) -> Dataset:
    """Rows whose prompts and answers have so many tokens, the stop token counted."""
    rows = [
        {"id": str(at), "prompt": digit_text(prompt, 2 * at), "completion": digit_text(answer - 1, 2 * at + 1)}
        for at in range(count)
    ]
    return Dataset.from_list(rows)


def digit_pairs(count: int, prompt: int, answer: int) -> Dataset:
    rows = digit_rows(2 * count, prompt, answer)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
        for a, b in zip(rows.select(range(count)), rows.select(range(count, 2 * count)), strict=True)
    ]
    return Dataset.from_list(pairs)


def trainer_options(setup: Setup, folder: str, **changes: Any) -> dict[str, Any]:
    """Arguments of any trainer: quiet, on the device, nothing saved."""
    options = {
        "output_dir": folder, "use_cpu": setup.device == "cpu", "bf16": setup.device == "cuda", "report_to": "none",
        "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "seed": 1,
        "learning_rate": 1e-4, "per_device_train_batch_size": 4, "dataloader_pin_memory": False,
    }  # fmt: skip
    return {**options, **changes}


def synchronize(setup: Setup) -> None:
    if setup.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(setup: Setup, run: Callable[[], object], repeats: int = 3, warm_up: bool = True) -> dict[str, Any]:
    """Median wall seconds of `run`, and all of them."""
    if warm_up:
        run()
    taken = []
    for _ in range(setup.choose(repeats, 1)):
        synchronize(setup)
        started = time.perf_counter()
        run()
        synchronize(setup)
        taken.append(time.perf_counter() - started)
    return {"seconds": statistics.median(taken), "all_seconds": taken}


def host_waits(setup: Setup, run: Callable[[], object]) -> int | None:
    """How often `run` makes the host wait for the device; None without one."""
    if setup.device != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(entry.message) for entry in caught)


def peak_bytes(setup: Setup, run: Callable[[], object]) -> int:
    """The most bytes of tensors alive in `run`, what was there before it included."""
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    from gapbridge.planning.memory_tracker import MemoryTracker

    with MemoryTracker() as live:
        run()
    return live.peak
