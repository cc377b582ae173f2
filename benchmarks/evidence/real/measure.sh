#!/usr/bin/env bash
# ROUGE of every model of scitldr_cpu.yaml, its losses after its own completions and after those of the model that all start
# from, what it forgets, and the hypotheses of docs/research/evidence-plan-smollm2.md. The models must be there.
#   benchmarks/evidence/real/measure.sh
#   SEEDS, VARIANTS   "21 22 23" and "sft bash_0.2 bash_0.2_masked"
#   LIMIT, GAP_LIMIT, PREFIXES   test examples (100), those of the losses (60), and numbers of generated tokens ("8 16")
#   DATA              folder or data set (data/scitldr)
# After an interruption the same line continues.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python}
runs=outputs/scitldr-cpu
out=$runs-measured
base=outputs/evidence/bases/scitldr-cpu

trained=()
for seed in ${SEEDS:-21 22 23}; do
    for variant in ${VARIANTS:-sft bash_0.2 bash_0.2_masked}; do
        trained+=(--model "$runs/seed_$seed/$variant")
    done
done
read -ra prefixes <<<"${PREFIXES:-8 16}"
recipe=(recipes/smollm2-135m/scitldr/sft/config_full.yaml --dataset_name "${DATA:-data/scitldr}" --dataset_test_split "test[300:]")
recipe+=(--max_completion_length 64 --model "$base" "${trained[@]}")
score=("$python" -m gapbridge eval --task summarization --config "${recipe[@]}" --max_examples "${LIMIT:-100}")
gap=("$python" -m gapbridge gap "${recipe[@]}" --max_examples "${GAP_LIMIT:-60}" --prefix_lengths "${prefixes[@]}" --error_positions)

"${gap[@]}" --completions_from "$base" --output_dir "$out/same"
"${score[@]}" --temperature 1 --output_dir "$out/sampled"
"${score[@]}" --temperature 0 --output_dir "$out/greedy"
"${gap[@]}" --output_dir "$out/own"
"$python" benchmarks/evidence/forgetting.py --start "$base" "${trained[@]}" --output "$out/forgetting.json"
"$python" benchmarks/evidence/real/findings.py --seeds ${SEEDS:-21 22 23} --greedy "$out/greedy" --sampled "$out/sampled" \
    --own "$out/own" --same "$out/same" --output "$out/findings.json"
