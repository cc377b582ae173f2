"""Draw options: one object or keywords, checked once, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers import LlamaForCausalLM

from gapbridge import ConfigError
from gapbridge.decoding import SamplingParams, generate_completions, mix_contexts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"top_k": -1}, "top_k: got -1"),
        ({"top_p": 0.0}, "top_p: got 0.0"),
        ({"min_p": 1.1}, "min_p: got 1.1"),
        ({"batch_size": 0, "verify_window": 0}, "2 errors"),
        ({"batch_tokens": 0}, "batch_tokens: got 0"),
    ],
)
def test_values_outside_their_range_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SamplingParams(**change)


def test_options_or_keywords(llama: LlamaForCausalLM) -> None:
    examples = {"prompts": [[1, 2], [3]], "references": [[4, 5, 6, 7], [8, 9, 10]], "ids": ["a", "b"]}
    options = SamplingParams(temperature=0.7, suppress_tokens=[4], seed=2)
    full = mix_contexts(llama, **examples, mixture_coefficient=0.9, options=options)
    draw = {"temperature": 0.7, "suppress_tokens": [4], "seed": 2}
    assert full == mix_contexts(llama, **examples, mixture_coefficient=0.9, **draw)
    with pytest.raises(ConfigError, match=r"2 errors:\s+- mixture_coefficient: got 2.*\s+- options and seed are both"):
        mix_contexts(llama, **examples, mixture_coefficient=2, options=options, seed=3)
    with pytest.raises(TypeError, match="warmth"):
        generate_completions(llama, [[1]], ids=[0], max_completion_length=1, stop_tokens=[], warmth=1.0)


def test_options_cost_no_torch() -> None:
    code = "import sys, gapbridge.decoding.sampling_params, gapbridge.decoding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
