# Everything runs in .venv, which is made on first use and again only when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
DIGITS := data/moving_digits
DATA ?= $(DIGITS)
CONFIG ?= conf/train_video.yaml
MODEL ?=
CODEC ?= madebyollin/taef2
LATENTS ?= runs/latents/$(NAME)
ENCODE ?=
AUTOENCODER ?= --model.autoencoder.spatial 8 --model.autoencoder.channels 32 --trainer.max_steps 600
NAME ?= $(notdir $(patsubst %/,%,$(DATA)))
ARGS ?=
OWN_CODEC = runs/autoencoder/$(NAME)/autoencoder
CHOOSE = $(filter file,$(origin CODEC))
REACHES = $(BIN)/python -c 'import sys; from flexivid.runtime.hub import is_within_reach; sys.exit(not is_within_reach(sys.argv[1]))'
CHECKPOINT = $(filter ckpt:%,$(subst --ckpt_path=,ckpt:,$(subst --ckpt_path ,ckpt:,$(ARGS))))
RESUMED = $(patsubst last,runs/$(NAME),$(patsubst ckpt:%,%,$(CHECKPOINT)))
CHOICE = $$($(BIN)/python conf/network_for.py $(CONFIG) tiny nano$(if $(RESUMED), --resumed '$(RESUMED)'))
NETWORK = $(or $(MODEL),$(if $(filter file,$(origin CONFIG)),$(CHOICE)))
TEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
OWN := $(if $(filter $(DIGITS),$(patsubst %/,%,$(DATA))),,yes)

.DEFAULT_GOAL := help
.PHONY: help install data train-video train-latents sample tensorboard test test-slow lint format bench clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo "  make train-video DATA=folder     train on your own videos"
	@echo "  make train-video MODEL=tiny      with this network of conf/model, however slow the machine"
	@echo "  make train-latents DATA=folder   the same in latents; TEXT=encoder trains on captions, CODEC=folder or hub id,"
	@echo "                                   ENCODE='--fps 8 --clips-per-video 64'     anything dataset encode takes"
	@echo "                                   AUTOENCODER='--trainer.max_steps 600'      of the one trained where there is no other"
	@echo "  make train-video ARGS='--trainer.max_steps 100'     anything the command line takes"

.venv/installed: pyproject.toml setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: .venv/installed ## Make .venv with everything in it

$(DIGITS)/recipe.json: | .venv/installed
	$(BIN)/python data/moving_digits.py --output $(DIGITS)

data: $(DIGITS)/recipe.json ## Make the default data set: 2400 clips of moving handwritten digits

train-video: .venv/installed $(if $(OWN),,$(DIGITS)/recipe.json) ## Train (10 minutes on 2 cores), then show samples at three budgets
	$(BIN)/python -m flexivid.train fit --config $(CONFIG) $(if $(NETWORK),--config conf/model/$(NETWORK).yaml) \
	  $(if $(OWN),--config conf/data/folder.yaml) --data.root '$(DATA)' --trainer.logger.init_args.name '$(NAME)' $(ARGS)
	@echo
	@echo "Next:"
	@echo "  $(BIN)/python -m flexivid.sample --budget 0.25                   a quarter of the compute"
	@echo "  $(BIN)/python -m flexivid.sample --budget 1.0 0.5 0.25 --seed 7  the same noise at three budgets"
	@echo "  make tensorboard                                              losses and samples of all runs"

$(OWN_CODEC): | .venv/installed
	@echo "$(CODEC) is not within reach: a small autoencoder is trained first; name another with CODEC="
	$(BIN)/python -m flexivid.train fit --config conf/autoencoder.yaml --data.root '$(DATA)' --data.size 128 \
	  --trainer.logger.init_args.version '$(NAME)' $(AUTOENCODER)

train-latents: .venv/installed ## Encode videos, train in latents (half an hour on 2 cores), show samples (DATA=, CODEC=, TEXT=)
	$(if $(CHOOSE),@test -d '$(OWN_CODEC)' || $(REACHES) '$(CODEC)' 2>/dev/null || $(MAKE) --no-print-directory '$(OWN_CODEC)')
	$(BIN)/python -m flexivid.dataset encode '$(DATA)' '$(LATENTS)' --size 128 --num-frames 8 --short loop --codec '$(CODEC)' \
	  $(if $(CHOOSE),$$(test -d '$(OWN_CODEC)' && echo '--codec $(OWN_CODEC) --num-frames 9')) \
	  $(if $(TEXT),--text-encoder '$(TEXT)' --allow-missing-captions) $(ENCODE)
	$(BIN)/python -m flexivid.train fit --config conf/train_latents.yaml --data.root '$(LATENTS)' \
	  --trainer.logger.init_args.name '$(NAME)' $(ARGS)

sample: .venv/installed ## Sample the newest run at budgets 1.0, 0.5 and 0.25
	$(BIN)/python -m flexivid.sample --budget 1.0 0.5 0.25 $(ARGS)

tensorboard: .venv/installed ## Show all runs in TensorBoard
	$(BIN)/tensorboard --logdir runs --host localhost

test: .venv/installed ## Run the tests (-m 'not slow'), a file at a time on each core
	$(TEST)

test-slow: .venv/installed ## Run the slow tests
	$(TEST) -m slow

lint: .venv/installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed $(DIGITS)/recipe.json ## Run the benchmarks; results go to benchmarks/results
	$(BIN)/python benchmarks/bench_forward.py --output benchmarks/results/bench_forward.json
	$(BIN)/python benchmarks/bench_budget.py --compile --output benchmarks/results/bench_budget.json
	$(BIN)/python benchmarks/bench_index.py --output benchmarks/results/bench_index.json
	$(BIN)/python benchmarks/bench_fvd.py --output benchmarks/results/bench_fvd.json
	@echo "With videos of your own: benchmarks/bench_decode.py FOLDER, benchmarks/bench_loader.py FOLDER"

clean: ## Remove what the programs have made (.venv stays)
	rm -rf runs samples $(DIGITS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
