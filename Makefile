# The environment lives in .venv and holds what requirements.lock says. It is made by the first target that needs it,
# and again when the lock or pyproject.toml changes; otherwise `make` needs no network.

PYTHON ?= python3
UV ?= uv
READY := .venv/.installed
BENCH := .venv-bench/.installed

# Threads that wait their turn asleep: on a machine that is doing something else too, PyTorch's busy waiting makes
# everything many times slower.
export OMP_WAIT_POLICY := PASSIVE

# Set-up leaves it to Python to compile what is imported, and to keep it. Where it is told not to, as in many containers, every
# process would compile PyTorch anew, and take three times as long to begin.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help tour test browser lab notebooks experiments student grade site bench lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

tour: $(READY)  ## Run the tour of one minute, print its table, and say where its page is
	@.venv/bin/python -m helpers.pages tour

# The notebooks that take longest come first, so that none of them is left for one worker at the end.
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
LONG := $(foreach number,08 09 10 00 06,$(filter notebooks/$(number)_%,$(NOTEBOOKS)))

# Consecutive lines, so that the first failure stops. The guard makes nbval fail where it would compare nothing. There is a
# process of tests for each processor, and with threads of their own these would be in each other's way.
test: export OMP_NUM_THREADS := 1
test: $(READY)  ## Check style, run the unit tests, and run every notebook against its stored outputs
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m pytest -n auto --dist loadfile tests
	.venv/bin/python -m pytest -n auto --dist loadfile -p tests.nbval_guard --nbval-lax \
		$(LONG) $(filter-out $(LONG),$(NOTEBOOKS))

browser: $(READY)  ## Run every notebook in JupyterLab in a real browser, and move its widgets (needs Chromium)
	.venv/bin/python -m pytest -m browser tests

# Jupyter starts above notebooks/, where jupytext finds its settings in pyproject.toml.
lab: $(READY)  ## Open the notebooks in JupyterLab
	@.venv/bin/jupyter lab --LabApp.default_url=/lab/tree/notebooks

notebooks: $(READY)  ## Run every notebook from its .py and write its .ipynb with outputs
	@.venv/bin/python -m helpers.pages run

experiments: $(READY)  ## Run the paper's experiments, or some of them: make experiments NAMES="mnist-lenet" (hours)
	@.venv/bin/python -m helpers.experiments run $(NAMES)

student: $(READY)  ## Write the edition for students, without solutions, to build/student
	@.venv/bin/python -m helpers.course student

grade: $(READY)  ## Grade what students handed in, as folder/STUDENT/NN_name.ipynb: make grade SUBMISSIONS=folder
	@.venv/bin/python -m helpers.course grade "$(or $(SUBMISSIONS),$(error name the folder: make grade SUBMISSIONS=folder))"

# For a machine that does nothing else, with the busy waiting that every method has by default.
bench: $(BENCH)  ## Compare speed and memory with plain loops and other libraries: make bench NETWORKS="LeNet MLP"
	@env -u OMP_WAIT_POLICY .venv-bench/bin/python -m tests.benchmarks.averaging $(NETWORKS)

site: $(READY)  ## Make web pages of the suite from the stored outputs, in build/site
	@.venv/bin/python -m helpers.site

# Pins that still fit are kept, so that a new requirement moves nothing else. The extra `bench` stays out.
EXTRAS := notebooks course site cluster tests
lock:  ## Write requirements.lock anew from pyproject.toml (needs uv; newest versions: UPGRADE=--upgrade)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: $(PYTHON) -m pip install uv"; exit 1; }
	$(UV) pip compile pyproject.toml --quiet $(EXTRAS:%=--extra %) --universal --python-version 3.11 \
		--custom-compile-command "make lock" $(UPGRADE) -o requirements.lock

clean:  ## Remove pages and caches; environments, the data sets and grades stay
	test ! -d build || find build -mindepth 1 -maxdepth 1 ! -name grades -exec rm -rf {} +
	rm -rf *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

define CHECK_VERSION
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d. Name another: make PYTHON=..." % sys.version_info[:2])
endef
export CHECK_VERSION

# The stamp comes last, so that an installation that was interrupted is taken up again. Python compiles the modules that
# are imported when they are: to do it for all of these packages would take a third of the time. The lock is complete, and
# pip need not look for what else its packages ask for.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Name a Python 3.11 or newer: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c "$$CHECK_VERSION"
	@echo "Installing requirements.lock in .venv. On Linux that is about 5 GB, and takes some minutes, once."
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --disable-pip-version-check --no-compile --no-deps -r requirements.lock
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@touch $@

# Beside what .venv holds, the libraries to compare with. Without them the table says so.
$(BENCH): $(READY)
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -c "import sysconfig, pathlib; here = pathlib.Path(sysconfig.get_path('purelib')); \
		(here / 'suite.pth').write_text(str(pathlib.Path('.venv').resolve() / here.relative_to(pathlib.Path('.venv-bench').resolve())))"
	@.venv-bench/bin/python -m pip install --disable-pip-version-check -c requirements.lock -e ".[bench]" || \
		echo "Not all libraries to compare with could be installed."
	@touch $@
