# Everything a checkout needs, in an environment of its own: .venv, pinned by requirements-dev.txt.
#
#   make test         the tests            make quickstart   the whole method on real text, under 10 minutes
#   make lint types   ruff, mypy           make build        the native libraries, in place
#   make slow         the long tests       make clean        forget .venv and all built files
#   make browser      find a Chromium for the tests of the chat page; root on Debian gets one installed
#   make gpu          build for this machine's GPU, test every kernel there, run all micro-benchmarks: 8 minutes
#
# PYTHON=...  the Python to make .venv with (3.11 or newer; by default the first that fits)
# WORKERS=2   processes that share the tests; a file's tests stay together
# ARGS=...    passed on: make test ARGS="-k layer_norm", make quickstart ARGS="--minutes 60"
# INSTRUCTGPT_FAST_SIMT=ON|OFF: also build the emulator that runs the CUDA kernels on the CPU, for the tests (here: ON)
# INSTRUCTGPT_FAST_CUDA=AUTO|ON|OFF, INSTRUCTGPT_FAST_CUDA_ARCHS=90a, MAX_JOBS=2: see README.md

export INSTRUCTGPT_FAST_SIMT ?= ON
VENV := .venv
BIN := $(VENV)/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
  $$python -c "$(NEW_ENOUGH)" 2>/dev/null && { echo $$python; break; }; done)
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: test slow gpu browser quickstart build lint types clean
.DELETE_ON_ERROR:

test: build
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

slow: build
	$(BIN)/python -m pytest -m slow $(ARGS)

# Not in .venv: with a Python that is there and whose torch sees the GPU. Downloads nothing.
gpu:
	@$(PYTHON) tools/run_on_gpu.py $(if $(filter command line environment,$(origin PYTHON)),--python $(PYTHON)) $(ARGS)

# With any Python; the tests of the page skip where there is none, and fail where CI is set.
browser:
	@$(PYTHON) tools/find_or_install_browser.py

quickstart: build
	$(BIN)/instructgpt-fast quickstart $(ARGS)

# Always run: a build with nothing to do takes half a second, and notices what no time stamp would.
build: $(VENV)/installed
	@log=$(VENV)/build.log; $(BIN)/python setup.py --quiet build_ext --inplace >$$log 2>&1 \
	  || { cat $$log; echo "make: the native build failed; its output is above and in $$log" >&2; exit 1; }

lint: $(VENV)/pins
	$(BIN)/ruff check $(ARGS) .

types: $(VENV)/pins
	$(BIN)/mypy $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info instructgpt_fast/lib instructgpt_fast/_build_info.json instructgpt_fast/_host*.so

$(VENV)/pins: requirements-dev.txt requirements-files.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and none was found on PATH;" \
	  "install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c "$(NEW_ENOUGH)" || { echo "make: PYTHON=$(PYTHON) must be Python 3.11 or newer," \
	  "it is $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) \
	  || { echo "make: $(PYTHON) could not make $(VENV); on Debian and Ubuntu it needs the package python3-venv" >&2; exit 1; }
	@echo "Installing the pinned requirements into $(VENV): a few minutes the first time"
	@$(PIP) install --quiet --quiet --requirement requirements-dev.txt
	@$(PIP) install --quiet --quiet --no-deps --requirement requirements-files.txt
	@touch $@

$(VENV)/installed: $(VENV)/pins pyproject.toml setup.py CMakeLists.txt $(wildcard buildtools/*.py)
	@echo "Building the extension in place"
	@$(PIP) install --quiet --quiet --no-deps --no-build-isolation --editable .
	@touch $@
