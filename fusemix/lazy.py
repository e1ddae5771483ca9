"""Exports that are imported when they are first used.

`import fusemix` and `fusemix --help` must not wait for torch, yet users want short import paths.  Each public
package names its exports and the modules that define them; PEP 562 does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package whose exports load on first use.

    Args:
        package: the package's `__name__`.
        exports: exported name -> module that defines it, relative to the package (`"training.fuse"`).
    """

    def load(name: str) -> object:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{exports[name]}"), name)

    def names() -> list[str]:
        return sorted(exports)

    return load, names
