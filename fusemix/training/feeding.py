"""Feeds training: which items each step sees, whom they are mixed with, and their latents from where they wait.

All of it follows from (seed, step): a run that goes on from step 5000 gets what an uninterrupted one would have got,
and so does one whose latents wait elsewhere.  What has to come from files, or goes to a GPU, is prepared in a thread
while the step before trains.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import ABSENT, ItemSource, LatentBatch, looked_up, one_pair_a_row, pair_counts
from fusemix.latents.paired import PairedLatents
from fusemix.mixing import draw_lambda, draw_lambdas, partners_by_shift, partners_of_halves
from fusemix.randomness import derive_seed, generator
from fusemix.training.assembly import Ingredients, Mover, Piece, assemble
from fusemix.training.residency import READERS, choose_residency, make_table
from fusemix.training.settings import FuseSettings
from fusemix.training.shares import share_out


@dataclass(frozen=True)
class Feed:
    """One step's input, on the device.

    Attributes:
        batch: B pairs, mixed already; its parents are positions that `Feeder.item_ids` names.
        lam: the lambda, the mean of them where each pair has its own; 1 without mixup.
    """

    batch: LatentBatch
    lam: float


_Prepared = tuple[Ingredients, torch.cuda.Event | None, float]
"""What a batch is made of, when it will be on the device, and lambda."""


@dataclass(frozen=True)
class _Loaded:
    """The N items that a step sees, of all datasets.

    Attributes:
        dataset: (N,) number of each item's dataset.
        items: (N,) positions, counted through all datasets.
        rows: modality -> (N,) rows in the dataset's latents, ABSENT where there is none.
        present: modality -> (N,) bool, where there is one.
        everywhere: modality -> whether that is so for all.
        content: modality -> (N,) hashes, 0 where there is none.
    """

    dataset: Tensor
    items: Tensor
    rows: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    everywhere: Mapping[str, bool]
    content: Mapping[str, Tensor]

    def patterns(self) -> Tensor:
        """Return (N,) int64, equal for items with the same modalities."""
        patterns = torch.zeros_like(self.items)
        for name, mask in self.present.items():
            if not self.everywhere[name]:
                patterns.mul_(2).add_(mask)
        return patterns


class Feeder:
    """Makes the input of any step, from (seed, step) alone.

    Args:
        train: the items to train on, of one dataset or of several; those that have no row of any modality are left
            out.
        settings: batch size, mixup, captions, weights of datasets, residency, seed.
        device: where training runs.

    Raises:
        FusemixError: for what `share_out` and `choose_residency` refuse, such as fewer items than a step takes.
    """

    def __init__(self, train: Sequence[PairedLatents], settings: FuseSettings, device: torch.device) -> None:
        self._settings = settings
        having = [latents.at(pair_counts(latents).nonzero()[:, 0]) for latents in train]
        drawn = [one_pair_a_row(latents) for latents in having] if settings.captions == "all" else having
        self._shares = share_out(drawn, settings)
        chosen = [number for number, share in enumerate(self._shares) if share.taken]
        self._datasets = [drawn[number] for number in chosen]
        self._first_item = torch.tensor([0, *(len(latents) for latents in self._datasets)]).cumsum(0)
        seeds = [derive_seed(settings.seed, latents.dataset.name) for latents in self._datasets]
        self._sources = [
            ItemSource(latents, self._shares[number].taken, settings.seed if len(chosen) == 1 else seed)
            for latents, number, seed in zip(self._datasets, chosen, seeds, strict=True)
        ]
        parts = [having[number] for number in chosen]
        self._residency = choose_residency(parts, settings.residency, device)
        self._tables = {
            name: [
                make_table(latents[name], self._residency.place, device) if name in latents.modalities else None
                for latents in parts
            ]
            for name in sorted({name for latents in parts for name in latents.modalities})
        }
        self._mover = Mover(device)
        self.sends_ahead = not all(table.at_hand for tables in self._tables.values() for table in tables if table)
        """Whether the latents of a step are gathered in the device's memory before it."""
        # Where a CPU has everything at hand, a thread would only take its cores from training.
        self._prepares_ahead = device.type == "cuda" or self.sends_ahead

    def __str__(self) -> str:
        return "\n".join(map(str, [*self._shares, self._residency]))

    def steps(self, start: int, stop: int) -> Generator[Feed]:
        """Yield the input of steps `start` to `stop` - 1; threads end with the iterator.

        The latents of a step are written over when the next step is taken.

        Raises:
            FusemixError: where a file that latents are read from has been cut short.
        """
        memory: dict[str, Tensor] = {}
        with ThreadPoolExecutor(READERS, "reader") as readers:
            if not self._prepares_ahead:
                for step in range(start, stop):
                    yield self._finish(self._prepare(step, readers), memory)
                return
            with ThreadPoolExecutor(1, "feeder") as ahead:
                waiting: Future[_Prepared] | None = None
                for step in range(start, stop):
                    prepared = (waiting or ahead.submit(self._prepare, step, readers)).result()
                    waiting = ahead.submit(self._prepare, step + 1, readers) if step + 1 < stop else None
                    feed = self._finish(prepared, memory)
                    # What the batch was made from would take memory all through the step.
                    del prepared
                    yield feed

    def item_ids(self, items: Tensor) -> list[str]:
        """Return the ids of items, for messages; where there are several datasets, with the dataset's name.

        Args:
            items: positions, as in a batch's `parents`.
        """
        numbers = torch.searchsorted(self._first_item, items.cpu(), right=True) - 1
        named = []
        for number, item in zip(numbers.tolist(), items.tolist(), strict=True):
            latents = self._datasets[number]
            of = f" of {latents.dataset.name}" if len(self._datasets) > 1 else ""
            named.append(f"{latents.items[item - int(self._first_item[number])]}{of}")
        return named

    def _finish(self, prepared: _Prepared, memory: dict[str, Tensor]) -> Feed:
        given, sent, lam = prepared
        batch = assemble(self._mover.receive(given, sent), memory)
        memory.update(batch.values)
        return Feed(batch, lam)

    def _prepare(self, step: int, readers: Executor) -> _Prepared:
        settings = self._settings
        loaded = self._load(step)
        parents = self._parents(loaded, step)
        weight: float | Tensor = 1.0
        if settings.mixup != "none":
            seed = derive_seed(settings.seed, "lambda", step)
            weight = draw_lambda(settings.mixup_alpha, seed)
            if settings.mixup_lambda == "pair":
                weight = draw_lambdas(settings.mixup_alpha, seed, len(parents[0]))[:, None]
        lam = float(weight.mean()) if isinstance(weight, Tensor) else weight
        given = Ingredients(
            {name: self._pieces(name, loaded, parents, readers) for name in self._tables},
            {name: next(table.values.shape[1] for table in tables if table) for name, tables in self._tables.items()},
            {name: mask.index_select(0, parents[0]) for name, mask in loaded.present.items()},
            _of_parents(loaded.items, parents),
            {name: _of_parents(hashes, parents) for name, hashes in loaded.content.items()},
            weight,
        )
        return *self._mover.send(given), lam

    def _load(self, step: int) -> _Loaded:
        drawn = [source.draw(step) for source in self._sources]
        together = sum(len(part.items) for part in drawn)
        order = torch.arange(together)
        if len(drawn) > 1:
            # So that items of several datasets are mixed with one another.
            order = torch.randperm(together, generator=generator(self._settings.seed, "datasets", step))

        def joined(parts: list[Tensor]) -> Tensor:
            return parts[0] if len(parts) == 1 else torch.cat(parts)[order]

        rows: dict[str, list[Tensor]] = {name: [] for name in self._tables}
        content: dict[str, list[Tensor]] = {name: [] for name in self._tables}
        for latents, part in zip(self._datasets, drawn, strict=True):
            for name in self._tables:
                if name in latents.modalities:
                    rows[name].append(part.rows[name])
                    content[name].append(looked_up(latents[name].content, part.rows[name], 0))
                else:
                    rows[name].append(torch.full_like(part.items, ABSENT))
                    content[name].append(torch.zeros_like(part.items))
        rows_of_all = {name: joined(parts) for name, parts in rows.items()}
        present = {name: of_all != ABSENT for name, of_all in rows_of_all.items()}
        return _Loaded(
            joined([torch.full_like(part.items, number) for number, part in enumerate(drawn)]),
            joined([part.items + first for part, first in zip(drawn, self._first_item[:-1], strict=True)]),
            rows_of_all,
            present,
            {name: bool(mask.all()) for name, mask in present.items()},
            {name: joined(parts) for name, parts in content.items()},
        )

    def _parents(self, loaded: _Loaded, step: int) -> tuple[Tensor, ...]:
        """Return where among the loaded items the parents of each pair are: one, or two with mixup."""
        if self._settings.mixup == "none":
            return (torch.arange(len(loaded.items)),)
        partners = partners_of_halves if self._settings.mixup == "halves" else partners_by_shift
        return partners(loaded.patterns(), generator(self._settings.seed, "partners", step))

    def _pieces(self, name: str, loaded: _Loaded, parents: Sequence[Tensor], readers: Executor) -> list[list[Piece]]:
        pieces: list[list[Piece]] = [[] for _ in parents]
        for number, table in enumerate(self._tables[name]):
            everywhere = loaded.everywhere[name] and len(self._datasets) == 1
            mine = loaded.present[name] if everywhere else (loaded.dataset == number) & loaded.present[name]
            if table is None or not mine.any():
                continue
            values, places = table.values, table.find(loaded.rows[name] if everywhere else loaded.rows[name][mine])
            if not table.at_hand:
                values, places = table.gather(places, readers, pinned=self._mover.device.type == "cuda")
            index = places if everywhere else torch.full_like(loaded.items, ABSENT).masked_scatter_(mine, places)
            for of_parent, parent in zip(pieces, parents, strict=True):
                if everywhere:
                    of_parent.append(Piece(values, index.index_select(0, parent), None))
                    continue
                # Of a small share, one half may have nothing, or all.
                where = mine[parent].nonzero()[:, 0]
                if len(where):
                    of_parent.append(
                        Piece(values, index[parent[where]], None if len(where) == len(parent) else where)
                    )
        return pieces


def _of_parents(values: Tensor, parents: Sequence[Tensor]) -> Tensor:
    """Return the values of each pair's parents, (B, parents)."""
    return torch.stack([values.index_select(0, parent) for parent in parents], dim=1)
