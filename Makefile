# `make demo` and `make test` need only a Python on the machine: both first install the project
# into .venv, which takes some minutes once. To choose the Python: make PYTHON=python3.12 test
PYTHON =
ARGS =
WORKERS = 2

VENV_PYTHON = .venv/bin/python
SETUP = .ci/setup_venv.sh
INSTALLED = .venv/installed
INSTALLED_DEV = .venv/installed-dev

.PHONY: help demo test gpu lint format benchmark-speed benchmark-quality benchmark-training benchmark-stage-one \
	benchmark-data benchmark-memory benchmark-web clean distclean

help: ## list these targets (the default)
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-28s%s\n", $$1, $$2 }'

demo: $(INSTALLED) ## render a novel-view video of the bundled clip
	@$(VENV_PYTHON) examples/demo.py $(ARGS)

test: $(INSTALLED_DEV) ## run the tests; ARGS="-k planes" chooses some
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

gpu: $(INSTALLED_DEV) ## run the tests of a CUDA GPU, and measure time and memory there
	@$(VENV_PYTHON) -c "import sys, torch; torch.cuda.is_available() or sys.exit(2)" || \
		{ echo "make gpu: error: PyTorch sees no CUDA GPU on this machine" >&2; exit 2; }
	@$(VENV_PYTHON) -m pytest -q tests/test_gpu_pipeline.py tests/maskvolume/ops $(ARGS)
	@$(VENV_PYTHON) benchmarks/speed.py --device cuda

lint: $(INSTALLED_DEV) ## check style, formatting and types
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

format: $(INSTALLED_DEV) ## format the code and apply ruff's fixes
	@$(VENV_PYTHON) -m ruff check --fix-only .
	@$(VENV_PYTHON) -m ruff format .

benchmark-speed: $(INSTALLED) ## measure time and memory beside the original's computation
	@$(VENV_PYTHON) benchmarks/speed.py $(ARGS)

benchmark-quality: $(INSTALLED) ## measure novel views against the truth: held-out cameras, random worlds, a stereo pair
	@$(VENV_PYTHON) benchmarks/evaluate.py $(ARGS)

benchmark-training: $(INSTALLED) ## measure a training step beside the original's
	@$(VENV_PYTHON) benchmarks/train_speed.py $(ARGS)

benchmark-stage-one: $(INSTALLED) ## measure stage one on random worlds, the empty clip and a stereo pair
	@$(VENV_PYTHON) benchmarks/stage_one.py $(ARGS)

benchmark-web: $(INSTALLED_DEV) ## measure the browser's player beside the renderer, in an installed Chromium
	@$(VENV_PYTHON) benchmarks/web.py $(ARGS)

benchmark-data: $(INSTALLED) ## measure how fast training data is read, and how long training waits for it
	@$(VENV_PYTHON) benchmarks/data_reading.py
	@$(VENV_PYTHON) benchmarks/data_wait.py

benchmark-memory: $(INSTALLED) ## measure the memory of the networks, from which the renderer plans
	@$(VENV_PYTHON) benchmarks/memory.py $(ARGS)

clean: ## remove caches and build leftovers
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove .venv too
	@rm -rf .venv

$(INSTALLED): pyproject.toml $(SETUP)
	@sh $(SETUP) "" "$(PYTHON)"
	@touch $@

# Depends on the other one, so that two targets never install at the same time.
$(INSTALLED_DEV): pyproject.toml $(SETUP) $(INSTALLED)
	@sh $(SETUP) dev "$(PYTHON)"
	@touch $@
