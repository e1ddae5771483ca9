"""Settings of training, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError


@dataclass(frozen=True)
class FuseSettings:
    """How adapters are trained on latents."""

    steps: int = 1000
    """Steps of the optimiser, the length of the cosine."""
    batch_size: int = 20480
    """Pairs that enter the loss; with mixup twice as many items are loaded."""
    mixup_alpha: float = 1.0
    """Mixup draws lambda ~ Beta(alpha, alpha), one a batch; 0 turns mixup off."""
    joint_dim: int = 512
    """Dimension of the joint space."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    """Shape of the adapters."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    final_learning_rate: float = 1e-6
    """Learning rate at the last step, and the one that the warm-up starts from."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """AdamW's decay of weight matrices; vectors and temperatures have none."""
    temperature: float = 0.07
    """Initial temperature; learned, and kept in [0.001, 0.5]."""
    validate_every: int = 50
    """Steps between validations, each of which writes a checkpoint."""
    patience: int = 10
    """Validations without a better one after which training stops."""
    seed: int = 0
    """All randomness follows from it and the step."""

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "mixup_alpha": (self.mixup_alpha >= 0, "at least 0"),
            "joint_dim": (self.joint_dim >= 1, "at least 1"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "final_learning_rate": (self.final_learning_rate >= 0, "at least 0"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "temperature": (0.001 <= self.temperature <= 0.5, "in [0.001, 0.5]"),
            "validate_every": (self.validate_every >= 1, "at least 1"),
            "patience": (self.patience >= 1, "at least 1"),
        }
        for name, (valid, bounds) in rules.items():
            if not valid:
                raise FusemixError(f"fuse.{name} is {getattr(self, name)}: it must be {bounds}")
