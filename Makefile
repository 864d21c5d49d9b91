# make test      everything: static checks, unit tests, real machines; as root also as an ordinary user
# make check     the static part
# make unit, make vm
# make soak      200 sandboxes, four at a time, many of them killed: nothing may be left
# make coverage  what the unit tests and the machine tests reach, as a table

SHELL = /bin/sh
PYTHON = .venv/bin/python
STAMP = .venv/corral-dev
VM_TESTS = tests/vm tests/security tests/conformance

.PHONY: test check unit vm soak vm-as-user coverage setup host clean

test: check unit vm vm-as-user

check: setup
	.venv/bin/ruff format --check src tests bench
	.venv/bin/ruff check src tests bench
	.venv/bin/mypy
	.venv/bin/lint-imports

unit: setup host
	$(PYTHON) -m pytest -q -n 2 --dist loadfile tests/unit

# Two machines at once: under emulation each keeps one core busy.
vm: setup host
	$(PYTHON) -m pytest -q -n 2 --dist loadscope --durations=15 $(VM_TESTS)

# SOAK_COUNT=200 SOAK_TOGETHER=4 SOAK_SEED=a number, else by chance
soak: setup host
	$(PYTHON) -m pytest -q -s tests/soak

vm-as-user: setup host
	tests/as_ordinary_user

# Some tests run corral in folders of their own.
coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage: setup host
	rm -f .coverage .coverage.*
	$(PYTHON) -m coverage run -m pytest -q tests/unit
	$(PYTHON) -m coverage run -m pytest -q -n 2 --dist loadscope $(VM_TESTS)
	$(PYTHON) -m coverage combine -q
	$(PYTHON) -m coverage report

setup: $(STAMP)

$(STAMP): pyproject.toml
	./corral --version
	$(PYTHON) -I -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

# What the host must have; installed by root, explained to everyone else.
host: setup
	./corral doctor --fix --yes

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
