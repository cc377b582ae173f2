"""Package metadata. Ranges are what the code needs; `constraints.txt` pins what was tested, `make test-matrix` tries
older TRL and transformers."""

from pathlib import Path

from setuptools import find_packages, setup


extras = {
    # Equality of mathematical answers, its time limit in processes of their own, and ROUGE as it is published.
    "eval": ["math-verify[antlr4_13_2]>=0.9", "pebble>=5.1", "rouge-score>=0.1.2"],
    "lm-eval": ["lm-eval>=0.4.13,<0.5"],  # benchmarks of lm-evaluation-harness
    "vllm": ["vllm>=0.22,<=0.31"],  # the range that TRL 1.16 supports
    "serve": ["openai>=1.40"],  # RAC and judges through a server: a client with retries and time limits
    "qlora": ["bitsandbytes>=0.45"],  # 4-bit and 8-bit weights
    "docs": ["mkdocs-material>=9.6"],  # the site
}
extras["dev"] = [
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
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
        "gapbridge.reporting": ["templates/*.html"],
        "gapbridge.accelerate_configs": ["*.yaml"],
    },
    install_requires=[
        "torch>=2.6",  # the sampling engine
        "transformers>=4.57.6",  # models, tokenizers, Trainer
        "trl>=0.25,<2",  # the trainers that every method extends
        "accelerate>=1.12",  # processes, mixed precision, sharding
        "datasets>=4.0",  # data files, the hub, memory-mapped rows
        "peft>=0.18",  # adapters
        "tokenizers>=0.21",  # tokens of new names; stand-in tokenizers of smoke tests
        "huggingface_hub>=0.36",  # revisions, and uploads of finished models
        "pyarrow>=17",  # rows and generated contexts on disk
        "pyyaml>=6",  # recipes and suites
        "rich>=13",  # coloured rows and tables in a terminal
        "matplotlib>=3.8",  # pictures of reports
        "numpy>=1.26",  # figures and resampling
        "scipy>=1.11",  # quantiles of Student's t, the fit of length-controlled win rates
        "packaging>=23",  # comparison of library versions
        "pydantic>=2.7",  # suites, mixtures and lm-eval recipes: every error at once
        "jinja2>=3.1",  # HTML reports; chat templates, read as their syntax trees
        "psutil>=5.9",  # memory of this machine; processes that a signal must reach
        "safetensors>=0.4",  # weights of future heads; fingerprints of weights
        "tqdm>=4.66",  # progress bars; 4.66 reads TQDM_DELAY
        "deepspeed>=0.16; sys_platform == 'linux'",  # the accelerate configurations zero2 and zero3
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["gapbridge=gapbridge.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
