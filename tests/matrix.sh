#!/usr/bin/env bash
# What matters on one pair of versions: the trainers, a fork's own recipes (with the command, and copied into it) and resume.
#
#     tests/matrix.sh TRL TRANSFORMERS HUGGINGFACE_HUB [pytest options]
#
# The environment is made once, in .venv-matrix; all else is as constraints.txt has it, or the newest that fits.
set -euo pipefail
cd "$(dirname "$0")/.."
trl=$1 transformers=$2 hub=$3
shift 3
env=.venv-matrix/trl-$trl-transformers-$transformers
pins=$env/constraints.txt
tests=(tests/unit/test_compat.py tests/integration/methods/test_contract.py tests/reliability/test_resume.py tests/integration/runs/test_fork_recipes.py tests/integration/handbook/test_fork.py
    tests/unit/decoding/test_architectures.py tests/integration/evaluation/test_eval_command.py tests/integration/recipe/test_tiny_scale.py tests/integration/training/test_trl_formats.py
    tests/unit/test_project.py::test_every_module_imports)
chosen=()

if [ ! -f "$env/.installed" ]; then
    "${PYTHON:-python3}" -m venv "$env"
    cp constraints.txt "$pins"
    if [ "${transformers%%.*}" -lt 5 ]; then
        sed -i -E '/^(trl|transformers|tokenizers|huggingface_hub|datasets|dill|lm_eval|evaluate)==/d' "$pins"
        printf 'trl==%s\ntransformers==%s\nhuggingface_hub==%s\n' "$trl" "$transformers" "$hub" >> "$pins"
    fi
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$pins" torch
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$pins" -e ".[dev,eval,serve]"
    touch "$env/.installed"
fi
# What learns from pairs of answers, or several tokens at once, is refused there, which tests/unit/test_compat.py looks at;
# RecurrentGemma keeps the state of a batch there and fails with the next.
if [ "${trl%%.*}" -lt 1 ]; then chosen=(-k "test_compat or every_module or not (dpo or spin or mtp or recurrent)"); fi  # another -k replaces it
exec "$env/bin/python" -m pytest "${tests[@]}" "${chosen[@]}" "$@"
