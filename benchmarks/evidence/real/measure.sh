#!/usr/bin/env bash
# ROUGE of every model of scitldr_cpu.yaml, or of scitldr_arms_cpu.yaml, its losses after its own completions and after
# those of the model that all start from, what it forgets, and the hypotheses of docs/research/evidence-plan-smollm2.md.
# The models must be there.
#   benchmarks/evidence/real/measure.sh
#   RUNS=outputs/scitldr-arms-cpu VARIANTS="sft scheduled_sampling rac spin" LIMIT=64 GAP_LIMIT=40 benchmarks/evidence/real/measure.sh
#   SEEDS, VARIANTS   "21 22 23" and "sft bash_0.2 bash_0.2_masked random"
#   RUNS              the folder of the models (outputs/scitldr-cpu)
#   LIMIT, GAP_LIMIT, PREFIXES   test examples (100), those of the losses (60), and numbers of generated tokens ("8 16")
#   DATA              folder or data set (data/scitldr)
# After an interruption the same line continues; other VARIANTS need another OUT (RUNS-measured).
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python}
runs=${RUNS:-outputs/scitldr-cpu}
out=${OUT:-$runs-measured}
base=outputs/evidence/bases/scitldr-cpu

tasks=recipes/smollm2-135m/scitldr
variants=${VARIANTS:-sft bash_0.2 bash_0.2_masked random}
read -ra prefixes <<<"${PREFIXES:-8 16}"
data=(--dataset_name "${DATA:-data/scitldr}" --dataset_test_split "test[300:]" --max_completion_length 64)
score=("$python" -m gapbridge eval --task summarization "${data[@]}" --max_examples "${LIMIT:-100}")
gap=("$python" -m gapbridge gap --config $tasks/sft/config_full.yaml "${data[@]}" --max_examples "${GAP_LIMIT:-60}")
gap+=(--prefix_lengths "${prefixes[@]}" --error_positions)
greedy=("$out/seed_{seed}/greedy")
[[ " $variants " == *" rac "* ]] && greedy+=("$out/seed_{seed}/corrected")

seeds=${SEEDS:-21 22 23}
for seed in $seeds; do
    at=$out/seed_$seed
    trained=()
    for variant in $variants; do
        trained+=(--model "$runs/seed_$seed/$variant")
    done
    models=(--model "$base" "${trained[@]}")

    "${gap[@]}" "${models[@]}" --completions_from "$base" --output_dir "$at/same"
    "${score[@]}" --config $tasks/sft/config_full.yaml "${models[@]}" --temperature 1 --output_dir "$at/sampled"
    "${score[@]}" --config $tasks/sft/config_full.yaml "${models[@]}" --temperature 0 --output_dir "$at/greedy"
    "${gap[@]}" "${models[@]}" --output_dir "$at/own"
    if [[ " $variants " == *" rac "* ]]; then
        "${score[@]}" --config $tasks/rac/config_full.yaml --model "$runs/seed_$seed/rac" --decoding_mode self_correct \
            --temperature 0 --output_dir "$at/corrected"
    fi
    "$python" benchmarks/evidence/forgetting.py --start "$base" "${trained[@]}" --output "$at/forgetting.json"
done
"$python" benchmarks/evidence/real/findings.py --seeds $seeds --greedy "${greedy[@]}" --sampled "$out/seed_{seed}/sampled" \
    --own "$out/seed_{seed}/own" --same "$out/seed_{seed}/same" --output "$out/findings.json"
