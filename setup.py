"""Package metadata. Ranges are what the code needs; `constraints.txt` pins what was tested, `make test-matrix` tries
older TRL and transformers."""

from pathlib import Path

from setuptools import find_packages, setup


extras = {
    "eval": ["math-verify[antlr4_13_2]>=0.9", "pebble>=5.1", "rouge-score>=0.1.2"],
    "lm-eval": ["lm-eval>=0.4.13,<0.5"],
    "vllm": ["vllm>=0.22,<=0.31"],  # the range that TRL 1.16 supports
    "serve": ["openai>=1.40"],  # RAC through a server: a client with retries and time limits
    "qlora": ["bitsandbytes>=0.45"],
    "docs": ["mkdocs-material>=9.6"],
}
extras["dev"] = [
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "scipy>=1.11",
    "types-PyYAML",
]

setup(
    name="gapbridge",
    version="0.2.0",
    description="Close the training-inference gap in LLM fine-tuning: methods as TRL trainers and recipes.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "src", "gapbridge.accelerate_configs": "accelerate_configs"},
    packages=[*find_packages("src"), "gapbridge.accelerate_configs"],
    package_data={
        "gapbridge": ["py.typed", "evaluation/judge/prompts/*.txt", "tasks/recipes/*.yaml"],
        "gapbridge.accelerate_configs": ["*.yaml"],
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=4.57.6",
        "trl>=0.23,<2",
        "accelerate>=1.12",
        "datasets>=4.0",
        "peft>=0.18",
        "tokenizers>=0.21",
        "huggingface_hub>=0.36",
        "pyarrow>=17",
        "pyyaml>=6",
        "rich>=13",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "packaging>=23",
        "jinja2>=3.1",
        "psutil>=5.9",
        "safetensors>=0.4",
        "tqdm>=4.66",
        "deepspeed>=0.16; sys_platform == 'linux'",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["gapbridge=gapbridge.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
