from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import fusemix
from fusemix.lazy import lazy_exports

PACKAGES = ["fusemix", "fusemix.adapters", "fusemix.extract", "fusemix.benchmarks"]
HEAVY = ["torch", "transformers", "PIL", "h5py", "numpy", "safetensors", "tqdm"]


@pytest.mark.parametrize("module", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(module: str) -> None:
    check = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["fusemix", "fusemix.adapters", "fusemix.extract"])
def test_exports_are_listed_and_stay_what_they_are_once_their_modules_are_loaded(name: str) -> None:
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for export in package.__all__:
        first, second = getattr(package, export), getattr(package, export)
        # A module named like its export would take the export's place in the package.
        assert first is second
        assert not isinstance(second, ModuleType)


def test_a_name_that_is_no_export_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fusemix' has no attribute 'fuze'"):
        fusemix.fuze  # noqa: B018


def test_exports_are_relative_to_their_package() -> None:
    load, names = lazy_exports("fusemix", {"standardisation": "training.statistics"})
    assert names() == ["standardisation"]
    assert callable(load("standardisation"))
