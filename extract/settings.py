"""Settings of extraction, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from fusemix.errors import FusemixError


@dataclass(frozen=True)
class ExtractSettings:
    """How raw items become latents."""

    dtype: str = "float16"
    """Type in which latents are stored: float16 or float32."""
    workers: int = 2
    """Processes that read and decode files; captions need none."""
    block_rows: int = 256
    """Rows that are committed at once; a kill loses at most these."""

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise FusemixError(f"extract.dtype is {self.dtype!r}: it must be float16 or float32")
        if self.workers < 1:
            raise FusemixError(f"extract.workers is {self.workers}: it must be at least 1")
        if self.block_rows < 1:
            raise FusemixError(f"extract.block_rows is {self.block_rows}: it must be at least 1")
