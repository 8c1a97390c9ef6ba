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

NATIVE_TESTS := tests/kernels tests/layers
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
BUILD_NATIVE = cmake -S csrc -DPython_EXECUTABLE=$(abspath $(BIN)/python)

# Builds that end on the first bad access, undefined operation or race. Variants that this processor cannot run are left out.
SANITIZED := build/sanitized
RACES := build/races
SANITIZERS := ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1
sanitize: $(VENV)/.dev ## the kernels' tests under AddressSanitizer and UBSan, the thread pool's also under ThreadSanitizer
	$(BUILD_NATIVE) -B $(RACES) -DSANITIZE=thread
	cmake --build $(RACES) -j $(JOBS) --target thread_pool_laws
	$(SANITIZERS) $(RACES)/thread_pool_laws
	$(BUILD_NATIVE) -B $(SANITIZED) -DSANITIZE=address,undefined -DWITH_AVX512=$(if $(shell grep -sm1 avx512_vnni /proc/cpuinfo),ON,OFF)
	cmake --build $(SANITIZED) -j $(JOBS) --target all thread_pool_laws
	$(SANITIZERS) $(SANITIZED)/thread_pool_laws
	RAMIFY_TEST_NATIVE=$(SANITIZED) LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	$(SANITIZERS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NATIVE_TESTS) tests/models/test_gguf.py tests/models/test_hostile_files.py $(ARGS)

EMULATED := build/emulated
emulate: $(VENV)/.dev ## the kernels' tests with the AVX-512 variants in emulation, for a processor without AVX-512
	$(BUILD_NATIVE) -B $(EMULATED) -DEMULATE_AVX512=ON
	cmake --build $(EMULATED) -j $(JOBS)
	RAMIFY_TEST_NATIVE=$(EMULATED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NATIVE_TESTS) $(ARGS)

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
PEERS := openvino llamacpp
$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/pip
	-for peer in $(PEERS); do CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(PIP) -e ".[$$peer]"; done
	touch $@

clean: ## the environment and everything that was built
	rm -rf $(VENV) build dist wheelhouse site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
