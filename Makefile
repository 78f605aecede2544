# Each target sets up .venv if it is missing; nothing but Python, pip, make and git is needed.
# PYTHON=/path/to/python chooses the interpreter; otherwise the first fitting one on the PATH is taken.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := gluon_asymmnet benchmarks examples tools symbols tests *.py
DEMO := demo

# Two processes, each test file in one of them; the campaigns have targets of their own.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
CAMPAIGNS := slow or browser or horovod

.PHONY: demo demo-fashion demo-ssd demo-decomposition test test-all test-kernels test-slow mutate lint format goldens tables docs faults test-browser fuzz test-horovod clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.digits $(DEMO)

# Pictures of clothes: some half an hour on two idle cores; downloads 31 MB without Debian's package.
demo-fashion: $(VENV)/demo.stamp
	$(BIN)/python -m examples.fashion $(DEMO)/fashion

# The detector's demo: some 12 minutes on two idle cores; BACKBONE=random trains it from scratch.
demo-ssd: $(VENV)/demo-ssd.stamp
	$(BIN)/python -m examples.digits_ssd $(DEMO) --backbone $(or $(BACKBONE),digits)

# Decomposes a net with regular convolutions, trained on the digits: some 10 minutes.
demo-decomposition: $(VENV)/demo.stamp
	$(BIN)/python -m examples.decomposition $(DEMO)

# What matters most, in some minutes. Downloads 390 MB, once.
test: $(VENV)/dev.stamp
	$(PYTEST) -m "not thorough and not ($(CAMPAIGNS))"

# Everything else but the campaigns: more networks, commands, workers, and what needs PyTorch.
# Downloads 270 MB more with a CPU build of PyTorch; several gigabytes where pip takes the one for CUDA:
# TORCH_INDEX=URL names PyTorch's index of CPU builds (see PyTorch's installation page).
test-all: $(VENV)/test-all.stamp
	$(PYTEST) -m "thorough and not ($(CAMPAIGNS))"

# The numerical tests with the instruction sets of other processors.
test-kernels: $(VENV)/dev.stamp
	$(BIN)/python -m tests.kernels

# Wrong operators, constants and returned values, one at a time: which does no test see?
mutate: $(VENV)/test-all.stamp
	$(BIN)/python -m tests.mutate --report benchmarks/mutants

# Long and rarely changing checks; not part of `make test`, `make test-all` nor of CI.
test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

# The pages in a headless Chromium; prints how to install one if there is none.
# Screenshots: make test-browser SCREENSHOTS=folder
test-browser: $(VENV)/dev.stamp
	SCREENSHOTS=$(SCREENSHOTS) $(BIN)/python -m pytest -m browser

# 100,000 damaged inputs for every parser, an hour or two; the report is docs/data/fuzzing.json.
fuzz: $(VENV)/test-all.stamp
	$(BIN)/python -m tests.fuzz.campaign --report docs/data/fuzzing.json
	$(BIN)/python -m tools.tables

# Several workers by Horovod, which is built first: some minutes, once.
test-horovod: $(VENV)/horovod.stamp
	$(BIN)/python -m pytest -m horovod

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Rebuild the golden symbols after an intended change of architecture; the diff is the review.
goldens: $(VENV)/dev.stamp
	$(BIN)/python symbols/make_goldens.py

# Rewrite the tables in the documents from their data.
tables: $(VENV)/dev.stamp
	$(BIN)/python -m tools.tables
	$(BIN)/python -m tests.faults --page

# The documentation site with the API reference; a broken link or a missing docstring is an error.
docs: $(VENV)/docs.stamp
	$(BIN)/python -m mkdocs build --quiet
	@echo "open build/site/index.html, or, with search: $(BIN)/python -m http.server -d build/site"

# Kill, starve and damage real runs some 270 times; a quarter of an hour, and rewrites benchmarks/faults.*
faults: $(VENV)/dev.stamp
	$(BIN)/python -m tests.faults

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

# OpenCV's plain wheel wants libGL, which bare machines lack; the headless one is the same otherwise.
$(VENV)/%.stamp: setup.py constraints.txt | $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  -c constraints.txt -e '.[$*]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --quiet \
	  --disable-pip-version-check --no-deps --force-reinstall opencv-python-headless==4.9.0.80
	@touch $@

$(VENV)/horovod.stamp: tools/build_horovod.sh $(VENV)/dev.stamp
	sh tools/build_horovod.sh $(BIN)/python
	@touch $@

$(VENV):
	@sh tools/make_venv.sh $(VENV) $(PYTHON)
