#!/usr/bin/env bash
# SmolLM2-135M-Instruct on a laptop: every task of this directory, from its data to its report.
#   recipes/smollm2-135m/run_all.sh                                 with the hub's model
#   MODEL=DIR recipes/smollm2-135m/run_all.sh                       with a model folder, as make_model.py writes it
#   TASKS="scitldr" ROWS=128 LIMIT=32 recipes/smollm2-135m/run_all.sh   some tasks, and sizes of your own
#   SCALE=tiny recipes/smollm2-135m/run_all.sh                      a try of every stage, nothing downloaded
#   ROWS     training rows of each method, "all" for every one (320)
#   LIMIT    held-out rows that are evaluated (64)
#   TASKS    gsm8k gsm8k-answer-first word-problems word-problems-answer-first scitldr
# The data of GSM8K and SciTLDR come from make_data.py. After an interruption the same line continues.
# See recipes/stages.sh for the other settings.
set -euo pipefail
cd "$(dirname "$0")/../.."
experiment=smollm2-135m
source recipes/stages.sh

tasks=${TASKS:-"word-problems word-problems-answer-first scitldr gsm8k gsm8k-answer-first"}
limit=${LIMIT:-64}
launch=() # one process
if [[ -n ${ACCELERATE:-} ]]; then
    launch=(--accelerate_config "$ACCELERATE" --num_processes "${NUM_PROCESSES:-1}")
fi
rows=()
if [[ ${SCALE:-} == tiny ]]; then
    limit=2
elif [[ ${ROWS:-320} != all ]]; then
    rows=(--max_train_examples "${ROWS:-320}")
fi

task_options() { # what gapbridge eval needs to know of a task, in `options`
    case $task in
    scitldr) options=(--task summarization --max_completion_length 64) ;;
    word-problems*) options=(--task math --max_completion_length 160) ;;
    *) options=(--task math --max_completion_length 256) ;;
    esac
    if [[ ${SCALE:-} == tiny ]]; then
        options=("${options[@]:0:2}" --max_completion_length 8)
    fi
    options+=(--max_examples "$limit" "${scale[@]}")
}

here_of_all=$here
for task in $tasks; do
    here=$here_of_all/$task
    look sft ${MODEL:+--model_name_or_path "$MODEL"}
    runs=()
    for method in sft bash rac scheduled_sampling spin pause mtp; do
        [[ -f $(recipe "$method") ]] || continue
        start=()
        if [[ $method == sft || $method == pause || $method == mtp ]]; then
            start=(${MODEL:+--model_name_or_path "$MODEL"})
        fi
        train "$method" "${rows[@]}" "${start[@]}"
        runs+=("$at/$experiment-$task-${method//_/-}")
    done
    task_options
    place=$at/$experiment-$task
    gapbridge eval "${options[@]}" --config "$(recipe sft)" --decoding_mode all --output_dir "$place" "${runs[@]/#/--model=}"
    gapbridge report "${runs[@]}" --extra_results_dir "$place" --output_dir "$place/report"
done
