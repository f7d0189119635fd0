"""Tests mirror the modules: whoever changes a module finds its tests under its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import ROOT

TESTS = ROOT / "tests"
# Where the tests of a folder of modules are.
FOLDERS = {
    "securefs": "securefs",
    "securefs/app": "app",
    "securefs/cli": "cli",
    "securefs/integrations": "integrations",
    "securefs/integrations/django": "integrations/django",
    "securefs/integrations/django/management": "integrations/django",
    "securefs/integrations/django/management/commands": "integrations/django",
    "securefs/keys": "keys",
    "middleware": "middleware",
    "audit": "audit",
}
# Modules without a test file of their name, each with the reason.
EXCEPTIONS = {
    "__init__": "holds names alone: packaging/test_packaging.py pins them",
    "_version": "is one string: cli/test_main.py has it printed, packaging/test_packaging.py built",
    "__main__": "calls the command line: cli/test_main.py runs it as a program",
}
MODULES = [
    pytest.param(path, TESTS / tests / f"test_{path.stem.replace('.', '_')}.py", id=f"{folder}/{path.name}")
    for folder, tests in FOLDERS.items()
    for path in sorted((ROOT / folder).glob("*.py"))
    if path.stem not in EXCEPTIONS
]


@pytest.mark.parametrize(("module", "tests"), MODULES)
def test_each_module_has_a_test_file_of_its_name(module, tests):
    assert tests.exists(), f"{module.relative_to(ROOT)} has no {tests.relative_to(ROOT)}"


def test_each_folder_of_modules_is_looked_at():
    packages = {path.parent for room in ("securefs", "middleware", "audit") for path in _inits(ROOT / room)}
    found = {path.relative_to(ROOT).as_posix() for path in packages}
    # A source distribution has copies where the repository has links.
    assert found - {"securefs/middleware", "securefs/audit"} == set(FOLDERS)


def _inits(folder: Path):
    """Return the packages under a folder; not by way of the links that securefs has to its rooms."""
    return [
        path for path in folder.rglob("__init__.py") if not any(part.is_symlink() for part in path.parents)
    ]


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_is_a_module(name):
    assert list((ROOT / "securefs").glob(f"{name}.py"))
