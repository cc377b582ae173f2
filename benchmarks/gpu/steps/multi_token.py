"""Multi-token prediction: memory and time of a training step with 1, 2 and 4 tokens, and answers drafted by heads."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

from common import BASE, ROOT, Setup, digit_rows, tokenizer, trainer_options

from gapbridge import MTPConfig, MTPTrainer


def run(setup: Setup) -> None:
    # benchmarks/multi_token.py, which has this module's name.
    spec = importlib.util.spec_from_file_location("multi_token_benchmark", ROOT / "benchmarks" / "multi_token.py")
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    args = argparse.Namespace(
        device=setup.device, repeats=setup.choose(3, 1), rows=setup.choose(8, 2), hidden=setup.choose(2048, 32),
        layers=setup.choose(8, 2), vocabularies=[setup.choose(131072, 1024)], batch_sizes=[1, 64],
        limit=setup.choose(128, 12),
    )  # fmt: skip
    with setup.case("training step") as found:
        found |= benchmark.measure_memory(args)
    with setup.case("self-speculative decoding") as found, tempfile.TemporaryDirectory() as folder:
        args.model, args.rows = trained_heads(setup, Path(folder)), setup.choose(64, 4)
        args.batch_sizes = args.batch_sizes if not setup.is_tiny else [4]
        found |= benchmark.measure_decoding(args)


def trained_heads(setup: Setup, folder: Path) -> Path:
    """A small model whose heads have learnt to predict digits; how often they are right is said with the figures."""
    options = trainer_options(setup, str(folder), max_steps=setup.choose(60, 2), save_strategy="no", bf16=False)
    trainer = MTPTrainer(
        str(BASE),
        args=MTPConfig(**options, num_future_tokens=4, max_length=256), processing_class=tokenizer(),
        train_dataset=digit_rows(setup.choose(256, 8), 12, 24),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder / "model"))
    return folder / "model"
