"""The joint space that training starts from: an adapter for each modality of the edges, drawn and standardised.

Weights are drawn from a seed of the modality's name, so that an adapter starts alike whatever stands beside it.
Several datasets share one adapter per modality, which is why their latents must come from one encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusemix.adapters.adapter import Adapter, build_adapter
from fusemix.errors import FusemixError, nearest
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.latents.provenance import EncoderSpec
from fusemix.objective import Objective
from fusemix.randomness import derive_seed
from fusemix.training.settings import FuseSettings
from fusemix.training.statistics import standardisation


def fresh_space(train: Sequence[PairedLatents], settings: FuseSettings, objective: Objective) -> JointSpace:
    """Return an untrained joint space of the modalities that the objective's edges join.

    Args:
        train: the training split of one dataset or several; not each needs to have every modality.
        settings: kind and shape of the adapters, dimension of the joint space, initial temperature and bias, seed.
        objective: says which modalities, temperatures and biases there are.

    Raises:
        FusemixError: for latents of one modality that come from several encoders, a modality without a row, an
            adapter of a modality that no edge joins or of a dimension that it cannot have, and where nothing is to
            train.
    """
    names = objective.modalities
    for name in settings.adapters:
        if name not in names:
            raise FusemixError(f"fuse.adapters.{name}: no edge joins a modality {name!r}: {nearest(name, names)}")
    parts = {name: _of_one_encoder(name, train) for name in names}
    adapters = {name: _fresh_adapter(name, parts[name][0].values.shape[1], settings) for name in names}
    if not any(True for adapter in adapters.values() for _ in adapter.parameters()):
        raise FusemixError(
            f"nothing to train: the adapters of {', '.join(names)} are all of kind identity; give one of them another"
            " kind"
        )
    for name, adapter in adapters.items():
        # The statistics take a reading of all rows, and an identity adapter has no use for them.
        if adapter.kind != "identity":
            adapter.standardise_by(*standardisation(parts[name]))
    specs = {name: _known_spec(parts[name]) for name in names}
    temperatures = dict.fromkeys(objective.temperatures, settings.temperature)
    return JointSpace(adapters, temperatures, specs, dict.fromkeys(objective.biases, settings.bias))


def _fresh_adapter(name: str, dim: int, settings: FuseSettings) -> Adapter:
    shape = settings.adapters.get(name, settings.adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, "weights", name))
        try:
            return build_adapter(shape.config(dim, settings.joint_dim))
        except FusemixError as error:
            raise FusemixError(f"{name}: {error}") from error


def _of_one_encoder(name: str, train: Sequence[PairedLatents]) -> list[ModalityLatents]:
    """Return the latents of a modality in the datasets that have it, after making sure that one adapter fits all."""
    having = [latents for latents in train if name in latents.modalities]
    if not having:
        there = {other for latents in train for other in latents.modalities}
        raise FusemixError(f"no latents of modality {name!r}: {nearest(name, there)}")
    known = [(latents.dataset.name, spec) for latents in having if (spec := latents[name].spec) is not None]
    for dataset, spec in known[1:]:
        first, first_spec = known[0]
        if not first_spec.is_same_encoder(spec):
            raise FusemixError(
                f"the {name} latents of the datasets {first!r} and {dataset!r} come from different encoders"
                f" ({first} / {dataset}: {first_spec.differences(spec)}); extract both with one encoder"
            )
    dims = [(latents.dataset.name, latents[name].values.shape[1]) for latents in having]
    for dataset, dim in dims[1:]:
        first, first_dim = dims[0]
        if dim != first_dim:
            raise FusemixError(
                f"the {name} latents have dimension {first_dim} in the dataset {first!r} and {dim} in {dataset!r}:"
                " use latents of one encoder in both"
            )
    return [latents[name] for latents in having]


def _known_spec(parts: Sequence[ModalityLatents]) -> EncoderSpec | None:
    return next((part.spec for part in parts if part.spec is not None), None)
