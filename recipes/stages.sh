# What the run_all.sh of each directory share; sourced by them, from the top of the repository.
#   VARIANT    full (all weights, 8 GPUs) or qlora (one GPU); what follows config_ in a recipe's name
#   SCALE      tiny: every stage for two steps on stand-ins for models and data, below outputs/tiny; nothing is downloaded
#   ACCELERATE, NUM_PROCESSES   how processes are started: zero2 and 8, with qlora one process
#   PYTHON     the interpreter
# Every stage skips what is complete, so the same line resumes an interrupted run.
variant=${VARIANT:-full}
label=${variant//_/-}
here=recipes/$experiment

at=data
scale=()
if [[ ${SCALE:-} == tiny ]]; then
    at=outputs/tiny/data
    scale=(--smoke_test)
fi
launch=()
if [[ ${SCALE:-} != tiny && $variant != *qlora ]]; then
    launch=(--accelerate_config "${ACCELERATE:-zero2}" --num_processes "${NUM_PROCESSES:-8}")
fi

gapbridge() {
    echo "== gapbridge $*"
    "${PYTHON:-python}" -m gapbridge "$@"
}

recipe() { # METHOD
    echo "$here/$1/config_$variant.yaml"
}

# The first rows as they will be trained: one process loads what all of them need.
look() { # METHOD [--KEY VALUE …]
    local method=$1
    shift
    gapbridge preview "$(recipe "$method")" --num_rows 3 "${scale[@]}" "$@"
}

train() { # METHOD [--KEY VALUE …]
    local method=$1
    shift
    gapbridge "$method" "$(recipe "$method")" "${launch[@]}" "${scale[@]}" "$@"
}
