"""Settings of training, readable without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import inf, isfinite
from typing import Literal

from fusemix.adapters.settings import AdapterSettings
from fusemix.edge import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, OWN, SHARED, Edge, check_distinct
from fusemix.errors import FusemixError, nearest


@dataclass(frozen=True)
class FuseSettings:
    """How adapters are trained on latents."""

    steps: int = 1000
    """Steps of the optimiser, the length of the cosine."""
    batch_size: int = 20480
    """Pairs that enter the loss; with mixup of halves twice as many items are loaded."""
    micro_batch: int | None = None
    """Items whose activations in the adapters are held at once, the whole batch if left out.  Less costs a second
    forward pass and draws other dropout, but leaves the batch bounded by the latents alone."""
    captions: Literal["one", "all"] = "one"
    """`one`: a step draws one row of each of its items.  `all`: every row (every caption) is a pair of its own, as in
    FuseMix's release, so that an item weighs as much as it has rows and may meet itself in a batch."""
    mask_equal_content: bool = True
    """Whether items of equal content (the same caption, or one caption of the same picture and another) are left out
    of each other's negatives; after mixup, items with an equal parent."""
    dataset_weights: Mapping[str, float] = field(default_factory=dict)
    """Of several datasets: name -> weight, by which each is drawn; its number of pairs where it is left out."""
    residency: Literal["auto", "device", "host", "disk"] = "auto"
    """Where latents wait for their step: on the `device`, in `host` memory, or in their files on `disk`; `auto` takes
    the first of these that has room.  The numbers are the same."""
    mixup: Literal["halves", "shift", "none"] = "halves"
    """Whom an item is mixed with: `halves`, an item of the other half of twice as many, as in FuseMix; `shift`,
    another item of the batch; or `none`."""
    mixup_alpha: float = 1.0
    """Mixup draws lambda ~ Beta(alpha, alpha)."""
    mixup_lambda: Literal["batch", "pair"] = "batch"
    """One lambda for the whole `batch`, as in FuseMix, or one for each `pair`."""
    joint_dim: int = 512
    """Dimension of the joint space."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    """Adapter of each modality."""
    adapters: Mapping[str, AdapterSettings] = field(default_factory=dict)
    """Modality -> its adapter, instead of the one for all: {image: {kind: identity}}."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    final_learning_rate: float = 1e-6
    """Learning rate at the last step, and the one that the warm-up starts from."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """AdamW's decay of weight matrices; vectors and temperatures have none."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all parameters; longer ones are scaled down to it.  Not clipped if left out."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type in which adapters compute: `auto` is float32 on a CPU, bfloat16 on GPUs that have it, else float16 with a
    scaled loss."""
    edges: tuple[Edge, ...] = ()
    """Pairs of modalities to align, every pair if empty: [{a: image, b: text, weight: 1.0, temperature: shared, loss:
    info_nce}].  A temperature is `shared` by all edges that say so, the edge's `own`, or a number, which is then not
    learned.  A loss is `info_nce` or `sigmoid`."""
    anchor: str | None = None
    """Instead of edges: the modality that each other one is aligned with, a star."""
    temperature: float = 0.07
    """Initial temperature; learned, and kept in [0.001, 0.5].  SigLIP's sigmoid loss starts at 0.1."""
    bias: float = -10.0
    """Initial bias of an edge with the sigmoid loss; learned.  -10 is SigLIP's and SAIL's; LiT's has -2.71."""
    validate_every: int = 50
    """Steps between validations.  A checkpoint follows each that is the best, and others as far as that takes no more
    than a tenth of the time."""
    patience: int = 10
    """Validations without a better one after which training stops."""
    refit: bool = False
    """Whether to train anew at last, on the items of train and val together, for as many steps as validation has
    selected: where items are few, those of val are worth learning from.  None is left to validate the result on."""
    seed: int = 0
    """All randomness follows from it and the step."""

    def __post_init__(self) -> None:
        for name, (valid, bounds) in self._rules().items():
            if not valid:
                raise FusemixError(f"fuse.{name} is {getattr(self, name)}: it must be {bounds}")
        check_distinct(self.edges)
        for edge in self.edges:
            if isinstance(edge.temperature, str) and edge.temperature not in (SHARED, OWN):
                raise FusemixError(
                    f"edge {edge.name}: its temperature is {edge.temperature!r}: it must be {SHARED}, {OWN}, or a"
                    " number that stays"
                )

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """Return, for each setting with bounds, whether it keeps them and what they are."""
        return {
            "steps": (self.steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "micro_batch": (self.micro_batch is None or self.micro_batch >= 1, "at least 1"),
            "captions": (self.captions in ("one", "all"), "one or all"),
            "dataset_weights": (
                all(0 <= weight < inf for weight in self.dataset_weights.values()),
                "numbers of at least 0",
            ),
            "residency": (self.residency in ("auto", "device", "host", "disk"), "auto, device, host or disk"),
            "mixup": (self.mixup in ("halves", "shift", "none"), "halves, shift or none"),
            "mixup_alpha": (0 < self.mixup_alpha < inf, "above 0; to turn mixup off, set fuse.mixup to none"),
            "mixup_lambda": (self.mixup_lambda in ("batch", "pair"), "batch or pair"),
            "joint_dim": (self.joint_dim >= 1, "at least 1"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "final_learning_rate": (self.final_learning_rate >= 0, "at least 0"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0"),
            "precision": (
                self.precision in ("auto", "float32", "bfloat16", "float16"),
                "auto, float32, bfloat16 or float16",
            ),
            "anchor": (self.anchor is None or not self.edges, "left out where fuse.edges are given"),
            "temperature": (
                LOWEST_TEMPERATURE <= self.temperature <= HIGHEST_TEMPERATURE,
                f"in [{LOWEST_TEMPERATURE}, {HIGHEST_TEMPERATURE}]",
            ),
            "bias": (isfinite(self.bias), "a finite number"),
            "validate_every": (self.validate_every >= 1, "at least 1"),
            "patience": (self.patience >= 1, "at least 1"),
        }

    @property
    def learned_splits(self) -> tuple[str, ...]:
        """The splits that the adapters have learned from in the end."""
        return ("train", "val") if self.refit else ("train",)

    def edges_between(self, modalities: Iterable[str]) -> tuple[Edge, ...]:
        """Return the edges that the settings ask for, with an edge's own temperature named after the edge.

        Args:
            modalities: those that there are latents of.

        Raises:
            FusemixError: where an edge or the anchor names another modality.
        """
        names = list(modalities)
        if self.anchor is not None:
            if self.anchor not in names:
                raise FusemixError(
                    f"fuse.anchor is {self.anchor!r}, which has no latents: {nearest(self.anchor, names)}"
                )
            return tuple(Edge(self.anchor, name) for name in names if name != self.anchor)
        if not self.edges:
            return tuple(Edge(a, b) for a, b in combinations(names, 2))
        for edge in self.edges:
            for name in (edge.a, edge.b):
                if name not in names:
                    raise FusemixError(f"edge {edge.name}: no latents of {name!r}: {nearest(name, names)}")
        return tuple(replace(edge, temperature=edge.name) if edge.temperature == OWN else edge for edge in self.edges)
