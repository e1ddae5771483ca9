"""Probes against their objective minimised elsewhere, and votes counted by hand."""

from __future__ import annotations

import builtins
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.benchmarks.labelled import Fold, LabelledRows, holdout, leave_one_out
from fusemix.benchmarks.probes import LinearProbe, NeighbourProbe, best_step, knn_probe, linear_probe
from fusemix.errors import FusemixError

from .labelled_world import Floats, clusters, labelled

NONE = np.empty(0, np.int64)


def minimised(rows: LabelledRows, train: Any, test: Any, c: float) -> Floats:
    """Test scores of the weights that minimise |W|^2 / 2 + C sum of cross-entropies, the bias not penalised."""
    x, y = rows.features.double(), torch.from_numpy(rows.labels)
    weights = torch.zeros(x.shape[1], len(rows.names), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(rows.names), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        entropy = torch.nn.functional.cross_entropy(x[train] @ weights + bias, y[train], reduction="sum")
        value = weights.square().sum() / 2 + c * entropy
        value.backward()
        return value

    optimiser.step(loss)
    return np.asarray((x[test] @ weights + bias).detach())


def accuracies(scores: Floats, labels: Any) -> tuple[float, float]:
    places = (scores > scores[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    return float((places < 1).mean()), float((places < 2).mean())


def votes(rows: LabelledRows, fold: Fold, probe: NeighbourProbe) -> Floats:
    """Votes of the k nearest by a sort; no two cosines may tie."""
    x = rows.features.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    train = np.concatenate([fold.train, fold.validation])
    found = np.zeros((len(fold.test), len(rows.names)))
    for row, query in enumerate(fold.test):
        cosines = x[train] @ x[query]
        for place in np.argsort(-cosines)[: probe.k]:
            weight = 1.0 if probe.temperature is None else np.exp(cosines[place] / probe.temperature)
            found[row, rows.labels[train[place]]] += weight
    return found


@pytest.mark.parametrize(("classes", "c"), [(4, 0.316), (4, 0.01), (2, 3.0)])
def test_the_linear_probe_minimises_the_penalised_cross_entropy(classes: int, c: float) -> None:
    rows = clusters(160, classes, 5, noise=1.5, seed=0)
    [fold] = holdout(rows)
    result = linear_probe(rows, [fold], LinearProbe(c=c), k=(1, 2), draws=10)
    scores = minimised(rows, np.concatenate([fold.train, fold.validation]), fold.test, c)
    first, second = accuracies(scores, rows.labels[fold.test])
    assert 0.3 < first < 1
    assert result.metrics["acc1"].value == pytest.approx(first)
    if classes > 2:
        assert result.metrics["acc2"].value == pytest.approx(second)
    assert result.settings["C"] == {"test": c}
    assert (result.rows, result.notes) == (len(fold.test), ())


def test_the_strength_of_the_penalty_matters() -> None:
    rows = clusters(90, 3, 20, noise=3.0, seed=1)
    weak, strong = (linear_probe(rows, holdout(rows), LinearProbe(c=c), draws=10) for c in (100.0, 1e-4))
    assert weak.metrics["acc1"].value != strong.metrics["acc1"].value


def test_the_last_fit_has_the_validation_rows_too() -> None:
    rows = clusters(120, 4, 6, noise=2.0, seed=2)
    [fold] = holdout(rows)
    both = Fold("test", np.concatenate([fold.train, fold.validation]), NONE, fold.test)
    without = Fold("test", fold.train, NONE, fold.test)
    for probe in (linear_probe, knn_probe):
        results = [probe(rows, [one], draws=10).metrics for one in (fold, both, without)]
        assert results[0] == results[1] != results[2]


def test_the_penalty_is_chosen_on_the_validation_rows() -> None:
    rows = clusters(150, 4, 12, noise=2.5, seed=3)
    [fold] = holdout(rows)
    result = linear_probe(rows, [fold], LinearProbe(c=None, max_iter=3000), draws=10)
    chosen = dict(result.settings["C"])["test"]  # type: ignore[call-overload]

    def validated(c: float) -> float:
        return (
            linear_probe(rows, [Fold("val", fold.train, NONE, fold.validation)], LinearProbe(c, 3000), draws=10)
            .metrics["acc1"]
            .value
        )

    assert np.log10(chosen) * 8 == pytest.approx(round(np.log10(chosen) * 8))
    assert validated(chosen) >= max(validated(10.0**exponent) for exponent in range(-6, 7, 2))
    assert result.settings["C chosen on validation"]
    shuffled = LabelledRows(**{**vars(rows), "labels": rows.labels.copy()})
    shuffled.labels[fold.test] = np.roll(shuffled.labels[fold.test], 1)
    assert linear_probe(shuffled, [fold], LinearProbe(None, 3000), draws=10).settings["C"] == {"test": chosen}


@pytest.mark.parametrize("peak", [0, 1, 15, 40, 53, 95, 96])
def test_the_search_finds_the_peak_of_a_curve_with_one(peak: int) -> None:
    asked: list[int] = []

    def accuracy(step: int) -> float:
        asked.append(step)
        return -abs(step - peak)

    assert best_step(accuracy) == peak
    assert len(asked) == len(set(asked)) <= 15
    assert asked[:7] == [0, 16, 32, 48, 64, 80, 96]


def test_of_equally_good_penalties_the_strongest_is_taken() -> None:
    assert best_step(lambda step: 0.5) == 0
    assert best_step(lambda step: float(step >= 48)) == 48


def test_a_fit_that_does_not_converge_is_said() -> None:
    rows = clusters(90, 3, 20, noise=1.0, seed=1)
    with pytest.warns(UserWarning, match=r"fold test: logistic regression with C = 100 did not converge in 2 iter"):
        result = linear_probe(rows, holdout(rows), LinearProbe(c=100.0, max_iter=2), draws=10)
    assert [note for note in result.notes if "did not converge in 2 iterations" in note]
    with pytest.warns(UserWarning, match="did not converge") as said:
        result = linear_probe(rows, holdout(rows), LinearProbe(c=None, max_iter=2), draws=10)
    assert re.match(r"fold test: \d+ of the classifiers tried to choose C did not converge", result.notes[0])
    assert {str(one.message) for one in said} == set(result.notes)


def test_other_warnings_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression.fit

    def warning(self: Any, *arguments: Any) -> Any:
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return fit(self, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", warning)
    rows = clusters(60, 3, 4, noise=1.0, seed=0)
    with pytest.warns(RuntimeWarning, match="something else"):
        assert linear_probe(rows, holdout(rows), draws=10).notes == ()


@pytest.mark.parametrize("temperature", [0.07, 1.0, None])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_nearest_vote(k: int, temperature: float | None) -> None:
    rows = clusters(150, 5, 6, noise=1.5, seed=4)
    [fold] = holdout(rows)
    probe = NeighbourProbe(k, temperature)
    result = knn_probe(rows, [fold], probe, k=(1, 2), draws=10)
    counted, of = votes(rows, fold, probe), rows.labels[fold.test]
    own = counted[np.arange(len(of)), of][:, None]
    better, tied = (counted > own + 1e-9).sum(axis=1), (np.abs(counted - own) <= 1e-9).sum(axis=1) - 1
    for n in (1, 2):
        expected = np.clip((n - better) / (tied + 1), 0, 1).mean()
        assert result.metrics[f"acc{n}"].value == pytest.approx(expected)
    assert result.tie_rate == pytest.approx((tied > 0).mean())
    assert result.settings == {"neighbours": k, "temperature": temperature}


def test_a_low_temperature_leaves_the_vote_to_the_nearest() -> None:
    rows = clusters(150, 5, 6, noise=1.5, seed=4)
    alone, low = (
        knn_probe(rows, holdout(rows), probe, draws=10) for probe in (NeighbourProbe(1), NeighbourProbe(20, 1e-7))
    )
    assert alone.metrics["acc1"] == low.metrics["acc1"]


def test_votes_of_duplicates_do_not_depend_on_their_order() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(12, 3))
    features = np.concatenate([base, base, base, base[:8]])
    labels = rng.integers(3, size=len(features))
    rows = labelled(features, labels.tolist(), classes=3, splits=["train"] * 36 + ["test"] * 8)
    for probe in (NeighbourProbe(2, None), NeighbourProbe(4, 0.1)):
        expected = knn_probe(rows, holdout(rows), probe, draws=10).metrics
        for seed in range(3):
            shuffled = rows.at(np.random.default_rng(seed).permutation(len(rows)))
            found = knn_probe(shuffled, holdout(shuffled), probe, draws=10).metrics
            assert {k: v.value for k, v in found.items()} == pytest.approx({k: v.value for k, v in expected.items()})


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_every_fold_is_tested_by_what_the_others_taught(probe: Any) -> None:
    rows = clusters(120, 3, 6, noise=1.5, seed=5, splits=[f"fold{number}" for number in range(1, 6)])
    folds = leave_one_out(rows)
    whole = probe(rows, folds, draws=10)
    assert (whole.rows, list(whole.folds)) == (120, [f"fold{number}" for number in range(1, 6)])
    for fold in folds:
        alone = probe(rows, [fold], draws=10)
        assert whole.folds[fold.name]["acc1"] == pytest.approx(alone.metrics["acc1"].value)
    weights = [len(fold.test) for fold in folds]
    mean = np.average([whole.folds[fold.name]["acc1"] for fold in folds], weights=weights)
    assert whole.metrics["acc1"].value == pytest.approx(mean)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_a_class_that_is_only_tested_is_missed_and_said(probe: Any) -> None:
    rng = np.random.default_rng(0)
    labels = [0, 1] * 15 + [2, 2, 0, 1]
    features = np.eye(3)[labels] + 0.01 * rng.normal(size=(34, 3))
    rows = labelled(features, labels, classes=4, splits=["train"] * 30 + ["test"] * 4)
    result = probe(rows, holdout(rows), k=(1, 3), draws=10)
    assert (result.metrics["acc1"].value, result.metrics["acc3"].value) == (0.5, 0.5)
    assert result.notes == (
        "1 of 4 classes have no row ('d'): they are left out of the mean per-class recall",
        "up to 1 classes have test rows but no training rows: those rows count as missed",
    )


def test_latents_and_embeddings_are_told_apart() -> None:
    rows = clusters(60, 3, 4, noise=1.0, seed=0)
    assert knn_probe(rows, holdout(rows), NeighbourProbe(3), draws=10).kind == "embeddings"
    raw = LabelledRows(**{**vars(rows), "kind": "latents"})
    assert knn_probe(raw, holdout(raw), NeighbourProbe(3), draws=10).kind == "latents"


def test_what_cannot_be_probed_is_refused() -> None:
    one = labelled(np.ones((6, 2)), [0, 0, 0, 0, 1, 1], classes=2, splits=["train"] * 4 + ["test"] * 2)
    with pytest.raises(FusemixError, match="the training rows of 'small' have 1 of the 2 classes"):
        linear_probe(one, holdout(one))
    with pytest.raises(FusemixError, match="20 neighbours are to vote, but 'small' has 4 training rows: lower k"):
        knn_probe(one, holdout(one))
    with pytest.raises(FusemixError, match="fold 'test' has no validation rows to choose C on"):
        linear_probe(one, holdout(one), LinearProbe(c=None))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LinearProbe(c=0), "c is 0: it must be above 0"),
        (lambda: LinearProbe(max_iter=0), "max_iter is 0: it must be at least 1"),
        (lambda: NeighbourProbe(k=0), "k is 0: it must be at least 1"),
        (lambda: NeighbourProbe(temperature=-1), "temperature is -1: it must be above 0"),
        (lambda: NeighbourProbe(temperature=float("nan")), "temperature is nan: it must be above 0"),
    ],
)
def test_settings_without_sense_are_refused(make: Any, said: str) -> None:
    with pytest.raises(FusemixError, match=said):
        make()


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    rows = clusters(60, 3, 4, noise=1.0, seed=0)
    with pytest.raises(FusemixError) as error:
        linear_probe(rows, holdout(rows))
    assert str(error.value) == "the linear probe needs the package 'sklearn': pip install 'fusemix[probes]'"
