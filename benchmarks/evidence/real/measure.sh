#!/usr/bin/env bash
# ROUGE of every model of scitldr_cpu.yaml, its losses after its own completions and after those of the model that all start
# from, what it forgets, and the hypotheses of docs/research/evidence-plan-smollm2.md. The models must be there.
#   benchmarks/evidence/real/measure.sh
#   SEEDS, VARIANTS   "21 22 23" and "sft bash_0.2 bash_0.2_masked random"
#   LIMIT, GAP_LIMIT, PREFIXES   test examples (100), those of the losses (60), and numbers of generated tokens ("8 16")
#   DATA              folder or data set (data/scitldr)
# After an interruption the same line continues; other VARIANTS need another OUT (outputs/scitldr-cpu-measured).
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python}
runs=outputs/scitldr-cpu
out=${OUT:-$runs-measured}
base=outputs/evidence/bases/scitldr-cpu

read -ra prefixes <<<"${PREFIXES:-8 16}"
seeds=${SEEDS:-21 22 23}
for seed in $seeds; do
    at=$out/seed_$seed
    trained=()
    for variant in ${VARIANTS:-sft bash_0.2 bash_0.2_masked random}; do
        trained+=(--model "$runs/seed_$seed/$variant")
    done
    recipe=(recipes/smollm2-135m/scitldr/sft/config_full.yaml --dataset_name "${DATA:-data/scitldr}" --dataset_test_split "test[300:]")
    recipe+=(--max_completion_length 64 --model "$base" "${trained[@]}")
    score=("$python" -m gapbridge eval --task summarization --config "${recipe[@]}" --max_examples "${LIMIT:-100}")
    gap=("$python" -m gapbridge gap "${recipe[@]}" --max_examples "${GAP_LIMIT:-60}" --prefix_lengths "${prefixes[@]}" --error_positions)

    "${gap[@]}" --completions_from "$base" --output_dir "$at/same"
    "${score[@]}" --temperature 1 --output_dir "$at/sampled"
    "${score[@]}" --temperature 0 --output_dir "$at/greedy"
    "${gap[@]}" --output_dir "$at/own"
    "$python" benchmarks/evidence/forgetting.py --start "$base" "${trained[@]}" --output "$at/forgetting.json"
done
"$python" benchmarks/evidence/real/findings.py --seeds $seeds --greedy "$out/seed_{seed}/greedy" --sampled "$out/seed_{seed}/sampled" \
    --own "$out/seed_{seed}/own" --same "$out/seed_{seed}/same" --output "$out/findings.json"
