from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fusemix

REPOSITORY = Path(__file__).parents[1]
# The folders below `fusemix/` that are links are found under their own names.
MODULES = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("adapters", "benchmarks", "extract", "fusemix", "tests")
    for path in (REPOSITORY / folder).rglob("*.py")
    if path.resolve() == path
)


def test_modules_are_found() -> None:
    assert {Path("fusemix/cli.py"), Path("extract/registry.py"), Path("tests/test_repository.py")} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_is_short_and_named_for_what_it_holds(module: Path) -> None:
    assert len((REPOSITORY / module).read_text().splitlines()) <= 400
    assert module.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize("folder", ["extract", "adapters", "benchmarks"])
def test_a_folder_refuses_to_be_imported_under_its_own_name(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: this folder is the package fusemix.{folder}: import fusemix.{folder}"


@pytest.mark.parametrize("folder", ["extract", "adapters", "benchmarks"])
def test_a_folder_is_linked_into_the_package(folder: str) -> None:
    link = REPOSITORY / "fusemix" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder


def test_every_public_name_resolves() -> None:
    assert fusemix.__all__ == sorted(fusemix.__all__)
    for name in fusemix.__all__:
        assert getattr(fusemix, name).__module__.startswith("fusemix.")
    assert set(fusemix.__all__) <= set(dir(fusemix))


def test_the_makefile_lists_its_targets_and_variables() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    makefile = (REPOSITORY / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert {"setup", "extract", "fuse", "benchmark", "test", "lint"} <= set(phony.split())
    for target in phony.split():
        assert re.search(rf"^{target} +\S", shown, re.MULTILINE), target
    for variable in re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE):
        assert re.search(rf"{variable}  ", shown), variable


def test_make_without_a_target_is_help() -> None:
    plain, asked = (
        subprocess.run(["make", *target], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        for target in ([], ["help"])
    )
    assert plain == asked


def test_the_version_is_told_once() -> None:
    assert f'version = "{fusemix.__version__}"' in (REPOSITORY / "pyproject.toml").read_text()
