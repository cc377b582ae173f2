#!/usr/bin/env bash
# The summarisation experiment: data, SFT, BASH, RAC and scheduled sampling from it, ROUGE on the test set, report.
#   recipes/pythia-1b-tldr/run_all.sh
#   SCALE=tiny recipes/pythia-1b-tldr/run_all.sh        a try of every stage, nothing downloaded
#   JUDGE=MODEL JUDGE_URL=URL                           and the win rate against the reference summaries
# See recipes/stages.sh for all settings.
set -euo pipefail
cd "$(dirname "$0")/../.."
experiment=pythia-1b-tldr
source recipes/stages.sh

look sft
train sft
train bash
train rac
train scheduled_sampling

runs=()
for method in sft bash rac scheduled-sampling; do
    runs+=("$at/$experiment-$method-$label")
done
options=(--task tldr)
if [[ ${SCALE:-} == tiny ]]; then # without the test set, which is on a hub
    options=(--task summarization --config "$(recipe rac)" --max_examples 2 --max_completion_length 16 "${scale[@]}")
fi
if [[ -n ${JUDGE:-} ]]; then
    options+=(--judge "$JUDGE" --judge_url "$JUDGE_URL")
fi
gapbridge eval "${options[@]}" --decoding_mode all --output_dir "$at/$experiment-$label" "${runs[@]/#/--model=}"
gapbridge report "${runs[@]}" --extra_results_dir "$at/$experiment-$label" --output_dir "$at/$experiment-$label/report"
