#!/usr/bin/env bash
# The general question answering experiment: data, BASH, RAC, SPIN and scheduled sampling from the handbook's SFT model,
# DPO after SFT, BASH and RAC, the benchmarks of recipes/eval/general_qa.yaml, report.
#   recipes/mistral-7b-ultrachat/run_all.sh
#   VARIANT=qlora recipes/mistral-7b-ultrachat/run_all.sh
#   SCALE=tiny recipes/mistral-7b-ultrachat/run_all.sh        a try of every stage, nothing downloaded
# See recipes/stages.sh for all settings.
set -euo pipefail
cd "$(dirname "$0")/../.."
experiment=mistral-7b-ultrachat
source recipes/stages.sh

look bash
for method in bash rac spin scheduled_sampling; do
    train "$method"
done
train dpo
for method in bash rac; do
    train dpo --model_name_or_path "data/$experiment-$method-$label" --model_revision main \
        --output_dir "data/$experiment-$method-dpo-$label"
done

runs=()
for method in bash rac spin scheduled-sampling dpo bash-dpo rac-dpo; do
    runs+=("$at/$experiment-$method-$label")
done
for run in "${runs[@]}"; do
    if [[ ${SCALE:-} == tiny ]]; then # in the place of the benchmarks, whose data are on a hub
        gapbridge eval --task summarization --config "$(recipe bash)" --max_examples 2 --max_completion_length 16 "${scale[@]}" --model "$run"
    else
        gapbridge eval --task lm_eval --config recipes/eval/general_qa.yaml --model "$run"
    fi
done
gapbridge report "${runs[@]}" --output_dir "$at/$experiment-$label/report"
