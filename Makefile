# Every target sets up what it needs, from a bare clone: a virtual environment with pinned versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint docs examples models bench web wheels sanitize emulate setup clean

demo: $(VENV)/.core ## the main job: methods compared at equal compute on the bundled models
	$(BIN)/ramify demo

test: $(VENV)/.dev ## all tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## style, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs ## the site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

examples: $(VENV)/.core ## each script of examples/
	for example in examples/*.py; do echo "== $$example"; $(BIN)/python $$example || exit 1; done

models: $(VENV)/.dev ## train the bundled models anew (hours; resumes where it stopped)
	$(BIN)/python -m training all

bench: $(VENV)/.core $(VENV)/.bench ## speed, side by side with peers; ARGS="--quick" for a short run
	$(BIN)/python -m benchmarks $(ARGS)

web: ## the page and the viewer, from web/ into the package
	cd web && npm ci --no-fund --no-audit && npm run check && npm run build

wheels: $(VENV)/bin/pip ## wheels for all supported Pythons, in wheelhouse/
	$(PIP) cibuildwheel
	$(BIN)/cibuildwheel --output-dir wheelhouse

# The kernels' tests with a build that ends on the first bad access or undefined operation.
SANITIZED := build/sanitized
sanitize: $(VENV)/.dev ## the kernels' tests under AddressSanitizer and UBSan
	cmake -S csrc -B $(SANITIZED) -DSANITIZE=address,undefined -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build $(SANITIZED) -j
	RAMIFY_TEST_NATIVE=$(SANITIZED) LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/kernels $(ARGS)

EMULATED := build/emulated
emulate: $(VENV)/.dev ## the kernels' tests with the AVX-512 variants in emulation, for a processor without AVX-512
	cmake -S csrc -B $(EMULATED) -DEMULATE_AVX512=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build $(EMULATED) -j
	RAMIFY_TEST_NATIVE=$(EMULATED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/kernels $(ARGS)

setup: $(VENV)/.dev $(VENV)/.docs ## everything a developer needs

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ramify needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

NATIVE := $(wildcard csrc/*.* csrc/*/*.*)

$(VENV)/.core: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/pip
	$(PIP) -e .
	touch $@

$(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/pip
	$(PIP) -e '.[$*]'
	touch $@ $(VENV)/.core

# llama.cpp is compiled, which takes ten minutes. A peer that cannot be installed is named by the benchmark and left out.
$(VENV)/.bench: constraints.txt | $(VENV)/bin/pip
	-$(PIP) openvino-genai gguf
	-CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(PIP) llama-cpp-python
	touch $@

clean: ## the environment and everything that was built
	rm -rf $(VENV) build dist wheelhouse site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
