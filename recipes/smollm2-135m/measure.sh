#!/usr/bin/env bash
# A small measurement on SciTLDR: from the same model SFT, BASH 0.2, and BASH 0.2 with two labels masked after each replaced
# token; ROUGE, and the loss after reference and generated prefixes.
#   MODEL=DIR recipes/smollm2-135m/measure.sh      DIR: the model's folder; default: the hub's model
#   ROWS, LIMIT   rows of each training (64) and held-out rows (24);   SEED (42)
# After an interruption the same line continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
recipes=recipes/smollm2-135m/scitldr
seed=${SEED:-42}
out=outputs/smollm2-135m-measure-$seed
model=${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}
limit=${LIMIT:-24}

gapbridge() {
    echo "== $(date +%T) gapbridge $*"
    "$python" -m gapbridge "$@"
}

size=(--model_name_or_path "$model" --max_train_examples "${ROWS:-64}" --seed "$seed" --gradient_accumulation_steps 1)
size+=(--max_eval_examples 16)
gapbridge sft $recipes/sft/config_full.yaml --output_dir "$out/sft" "${size[@]}"
gapbridge bash $recipes/bash/config_full.yaml --output_dir "$out/bash" "${size[@]}"
gapbridge bash $recipes/bash/config_full.yaml --output_dir "$out/bash-masked" --num_masked_labels_after_replacement 2 "${size[@]}"

models=(--model "$model" --model "$out/sft" --model "$out/bash" --model "$out/bash-masked")
config=(--config $recipes/sft/config_full.yaml --max_examples "$limit" --output_dir "$out")
gapbridge eval --task summarization --max_completion_length 64 "${config[@]}" "${models[@]}"
gapbridge gap --prefix_lengths 16 --error_positions --max_completion_length 24 "${config[@]}" "${models[@]}"
gapbridge report "$out/sft" "$out/bash" "$out/bash-masked" --extra_results_dir "$out" --output_dir "$out/report"
