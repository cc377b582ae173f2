# Two commands on a fresh machine: `make quickstart` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_WORKERS ?= 2

export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help install quickstart test test-unit test-nightly test-all test-browser test-vllm test-oldest test-matrix quality format docs bench evidence evidence-real mutants tiny-base real-model clean

help:
	@echo "make quickstart   set up, then SFT, BASH and RAC on the embedded model, evaluation, gap picture, report (CPU, minutes)"
	@echo "make real-model   set up, then SFT, BASH, evaluation and report with SmolLM2-135M on 200 problems (CPU, 8 GB)"
	@echo "make test         set up, then run the tests (all but gpu)"
	@echo "make test-unit    the unit tests alone (below two minutes on two cores)"
	@echo "make test-browser load reports in headless Chromium, at desktop and phone width (apt-get install chromium)"
	@echo "make test-nightly the long sweeps, and any recipe that hypothesis thinks of (hours)"
	@echo "make test-vllm    set up vLLM for CPUs in .venv-vllm (1.3 GB), then train, evaluate and serve through it"
	@echo "make test-oldest  the trainers, a fork's recipes and resume on the oldest TRL and transformers that are tested"
	@echo "make test-matrix  the trainers, a fork's recipes and resume on the oldest, a middle and the newest TRL and transformers"
	@echo "make quality      ruff and mypy"
	@echo "make docs         the documentation site in build/site; a broken link fails"
	@echo "make bench        the benchmarks of benchmarks/ on this machine"
	@echo "make evidence     the comparisons of benchmarks/evidence/cpu, from nothing (about 100 minutes on two cores)"
	@echo "make evidence-real  the comparisons of benchmarks/evidence/real with SmolLM2-135M, resumable (about six hours on two cores; not measured)"
	@echo "make mutants FOLDER=src/gapbridge/gap TESTS=tests/unit/gap [COUNT=20] [SEED=0]   which one-line errors no test notices"
	@echo "make tiny-base    make recipes/tiny/base and recipes/tiny/data again (about 20 minutes)"

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,eval,lm-eval,serve]"
	@touch $(STAMP)

install: $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python recipes/tiny/quickstart.py

real-model: $(STAMP)
	PYTHON=$(BIN)/python recipes/smollm2-135m/shortest.sh

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not gpu and not nightly and not vllm and not browser" tests

test-unit: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not nightly" tests/unit

test-nightly: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "nightly and not gpu and not vllm and not browser" tests

test-browser: $(STAMP)
	$(BIN)/python -m pytest -m browser tests

test-all: $(STAMP)
	$(BIN)/python -m pytest tests

test-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest -m vllm tests/with_vllm

.venv-vllm/.installed: tests/vllm_env.sh setup.py
	PYTHON=$(PYTHON) tests/vllm_env.sh .venv-vllm

test-oldest:
	tests/matrix.sh 0.25.1 4.57.6 0.36.2 -n $(TEST_WORKERS) --dist worksteal \
		-k "test_compat or every_module or test_fork_recipes or test_eval_command or \
		(not (dpo or spin or mtp or recurrent) and (promised or degenerate or (killed and bash) or test_architectures or good_without))"

test-matrix:
	tests/matrix.sh 0.25.1 4.57.6 0.36.2 -n $(TEST_WORKERS) --dist worksteal
	tests/matrix.sh 0.27.2 4.57.6 0.36.2 -n $(TEST_WORKERS) --dist worksteal
	tests/matrix.sh 1.16.0 5.23.0 2.4.0 -n $(TEST_WORKERS) --dist worksteal

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)
	$(BIN)/python benchmarks/mixing.py --model tiny --output benchmarks/results/mixing-tiny-cpu.json
	$(BIN)/python benchmarks/mixing.py --model random-25m --output benchmarks/results/mixing-random-25m-cpu.json
	$(BIN)/python benchmarks/drafting.py --model tiny --ragged --output benchmarks/results/drafting-tiny-ragged-cpu.json
	$(BIN)/python benchmarks/drafting.py --model random-25m --stop_every 4 --rows 128 --skip generate_batch --output benchmarks/results/drafting-random-25m-ragged-cpu.json
	$(BIN)/python benchmarks/mixing.py --model random-25m --kv_heads 2 --rows 16 --batch_size 16 --answers 600 800 --skip "token by token" "known runs skipped" "fixed point" --output benchmarks/results/mixing-grouped-cpu.json
	$(BIN)/python benchmarks/sampling.py --output benchmarks/results/sampling-cpu.json
	$(BIN)/python benchmarks/scaling.py --axes vocabulary --output benchmarks/results/scaling-vocabulary-cpu.json
	$(BIN)/python benchmarks/overhead.py --repeats 5 --output benchmarks/results/overhead-tiny-cpu.json
	$(BIN)/python benchmarks/multi_token.py memory --repeats 1 --output benchmarks/results/multi-token-memory-cpu.json
	$(BIN)/python -m gapbridge mtp recipes/tiny/mtp/config_full.yaml
	$(BIN)/python benchmarks/multi_token.py decoding --repeats 1 --output benchmarks/results/multi-token-decoding-tiny-cpu.json
	$(BIN)/python benchmarks/rac_ablation.py --output benchmarks/results/rac-ablation-tiny-cpu.json
	$(BIN)/python benchmarks/pause_grid.py --output benchmarks/results/pause-grid-tiny-cpu.json --plot docs/images/pause.png

evidence: $(STAMP)
	$(BIN)/python benchmarks/evidence/run.py benchmarks/evidence/cpu/*.yaml --num_parallel_seeds $(TEST_WORKERS)

evidence-real: $(STAMP)
	test -f outputs/smollm2-135m-instruct/config.json || GAPBRIDGE_REAL_MODEL=$(GAPBRIDGE_REAL_MODEL) PYTHON=$(BIN)/python benchmarks/evidence/real/find_model.sh
	test -d data/scitldr || $(BIN)/python recipes/smollm2-135m/make_data.py
	$(BIN)/python benchmarks/evidence/run.py benchmarks/evidence/real/scitldr.yaml benchmarks/evidence/real/answer_first.yaml --num_parallel_seeds $(TEST_WORKERS) --delete_models

mutants: $(STAMP)
	$(BIN)/python tests/mutants.py $(FOLDER) $(TESTS) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

tiny-base: $(STAMP)
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --split train --count 2000 --output recipes/tiny/data/train.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --split test --count 400 --output recipes/tiny/data/test.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --form preferences --seed 1 --split train --count 384 --output recipes/tiny/data/preferences_train.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --form preferences --seed 1 --split test --count 64 --output recipes/tiny/data/preferences_test.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --form text --seed 2 --split train --count 600 --output recipes/tiny/data/text_train.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --order answer_first --split train --count 2000 --output recipes/tiny/data/answer_first_train.jsonl
	$(BIN)/python -m gapbridge.tasks word_problems --validation overlapping --order answer_first --split test --count 400 --output recipes/tiny/data/answer_first_test.jsonl
	$(BIN)/python recipes/tiny/make_base.py --output recipes/tiny/base

clean:
	rm -rf $(VENV) .venv-matrix .venv-vllm outputs build *.egg-info
