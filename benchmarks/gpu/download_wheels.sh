#!/bin/sh
# Wheels of the packages that a machine with PyTorch, transformers and accelerate lacks.
#   benchmarks/gpu/download_wheels.sh FOLDER PYTHON_VERSION
set -eu
cd "$(dirname "$0")/../.."
folder=$1 python=$2
pinned() { for name in "$@"; do sed -n "s/^\($name==[^;]*\).*/\1/p" constraints.txt | head -n 1; done; }
python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$python" \
	--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	-d "$folder" $(pinned trl datasets peft rich) dill==0.4.1 multiprocess xxhash einops hjson msgpack py-cpuinfo \
	ninja nvidia-ml-py pydantic pydantic-core annotated-types typing-inspection psutil
# DeepSpeed has no wheel of its own; it compiles nothing before it needs to.
DS_BUILD_OPS=0 python3 -m pip wheel --quiet --no-deps -w "$folder" $(pinned deepspeed)
du -sh "$folder"
