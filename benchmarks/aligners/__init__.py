"""Ways to a joint space, each `PairedLatents -> JointSpace`, so that all are measured, saved and searched alike."""

from __future__ import annotations

from collections.abc import Callable

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .asif import asif
from .cca import cca
from .procrustes import procrustes
from .ridge import PENALTIES, ridge
from .trained import fusemix_style, lit_style, sail_style, sharelock_style

Aligner = Callable[[PairedLatents], JointSpace]

__all__ = [
    "PENALTIES",
    "Aligner",
    "asif",
    "cca",
    "fusemix_style",
    "lit_style",
    "procrustes",
    "ridge",
    "sail_style",
    "sharelock_style",
]
