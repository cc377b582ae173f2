#!/usr/bin/env bash
# The mathematics experiment: data, SFT, BASH and RAC from it, accuracy on the test set, report.
#   recipes/mistral-7b-math/run_all.sh                              GSM8K, all weights
#   VARIANT=math_qlora recipes/mistral-7b-math/run_all.sh           MATH, QLoRA; also qlora and math_full
#   SHARES="10 20 50 100" recipes/mistral-7b-math/run_all.sh        shares of the training data, in per cent
#   SCALE=tiny recipes/mistral-7b-math/run_all.sh                   a try of every stage, nothing downloaded
# See recipes/stages.sh for all settings.
set -euo pipefail
cd "$(dirname "$0")/../.."
experiment=mistral-7b-math
source recipes/stages.sh

length=512
rows=7473
if [[ $variant == math_* ]]; then
    length=1024
    rows=7500
fi

look sft
runs=()
for share in ${SHARES:-100}; do
    part=()
    mark=$label
    if ((share < 100)); then # the mixture is shuffled: its first rows are a random share of it
        part=(--max_train_examples $((rows * share / 100)))
        mark=$label-$share
    fi
    train sft "${part[@]}" --output_dir "data/$experiment-sft-$mark"
    for method in bash rac; do
        train "$method" "${part[@]}" --model_name_or_path "data/$experiment-sft-$mark" --output_dir "data/$experiment-$method-$mark"
    done
    for method in sft bash rac; do
        runs+=("$at/$experiment-$method-$mark")
    done
done

options=(--max_completion_length "$length")
if [[ ${SCALE:-} == tiny ]]; then
    options=(--max_completion_length 16 --max_examples 2 "${scale[@]}")
fi
gapbridge eval --task math --config "$(recipe sft)" "${options[@]}" --decoding_mode all --output_dir "$at/$experiment-$label" "${runs[@]/#/--model=}"
gapbridge report "${runs[@]}" --extra_results_dir "$at/$experiment-$label" --output_dir "$at/$experiment-$label/report"
