"""Published ways to train adapters on frozen latents, each as settings of `fuse`.

They differ from FuseMix in what is trained, in the loss and in the absence of mixup.  Steps, batch, optimiser and
validation stay the recipe's, so that none has more training than another.  The styles are named after systems that
use other data, sizes and schedules: a figure here says nothing of theirs.
"""

from __future__ import annotations

from dataclasses import replace

from fusemix.adapters.settings import AdapterSettings
from fusemix.edge import Edge
from fusemix.training.settings import FuseSettings

# A gated block has 3 D^2 weights: with 3,584 dims 38 million, on perhaps a thousand items.
WIDEST_GATED = 1024
DROPOUT = 0.2


def fusemix_style(settings: FuseSettings, a: str, b: str) -> FuseSettings:
    """Return the settings for one pair of modalities: its edge, and its adapters."""
    edges = [edge for edge in settings.edges if {edge.a, edge.b} == {a, b}]
    return replace(
        settings,
        edges=tuple(edges) or (Edge(a, b),),
        anchor=None,
        adapters={name: of for name, of in settings.adapters.items() if name in (a, b)},
        dataset_weights={},
    )


def lit_style(settings: FuseSettings, a: str, b: str, dims: tuple[int, int]) -> FuseSettings:
    """Lock `a`, whose latents are the joint space, and train the adapter of `b` (LiT, arXiv 2111.07991).

    LiT trains a whole text tower; here it is the recipe's adapter on a frozen one.

    Args:
        settings: of the recipe.
        a: modality that is locked.
        b: modality that is trained.
        dims: dimensions of their latents.
    """
    trained = fusemix_style(settings, a, b).adapters.get(b, settings.adapter)
    if trained.kind == "identity":
        trained = AdapterSettings(depth=0)
    return _locked(settings, a, b, dims[0], trained)


def sharelock_style(settings: FuseSettings, a: str, b: str, dims: tuple[int, int]) -> FuseSettings:
    """Lock `a` and train an MLP of four hidden maps on `b` (ShareLock, arXiv 2410.07173).

    Two residual blocks stand for its plain layers.  Arguments as in `lit_style`.
    """
    return _locked(settings, a, b, dims[0], AdapterSettings(depth=2, expansion=4, dropout=DROPOUT))


def sail_style(settings: FuseSettings, a: str, b: str, dims: tuple[int, int]) -> FuseSettings:
    """Train a gated adapter on each side by the sigmoid loss (SAIL, arXiv 2412.04616).

    Its hidden layer is eight times as wide as the latents, and the loss starts at temperature 0.1 and bias -10.
    Latents of more than 1,024 dims get a linear adapter instead, since a gated one would have too many weights for
    the time that the others take.

    Args:
        settings: of the recipe.
        a: one modality.
        b: the other.
        dims: dimensions of their latents.
    """
    gated = AdapterSettings(kind="gated", depth=1, expansion=8, dropout=DROPOUT)
    linear = AdapterSettings(kind="linear")
    return replace(
        _plain(settings, Edge(a, b, loss="sigmoid")),
        adapters={name: gated if dim <= WIDEST_GATED else linear for name, dim in zip((a, b), dims, strict=True)},
        temperature=0.1,
        bias=-10.0,
    )


def _locked(settings: FuseSettings, a: str, b: str, dim: int, trained: AdapterSettings) -> FuseSettings:
    adapters = {a: AdapterSettings(kind="identity"), b: trained}
    return replace(_plain(settings, Edge(a, b)), adapters=adapters, joint_dim=dim)


def _plain(settings: FuseSettings, edge: Edge) -> FuseSettings:
    """Return the settings without what is FuseMix's own."""
    return replace(settings, edges=(edge,), anchor=None, dataset_weights={}, mixup="none")
