"""Scores of codes against factors, from ranks alone: `resistant_scores`. Monotone maps and outliers don't move them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from kvae.evaluation.factor_information import Column, Information, bins_for, levels, ranks

_HALVES = 10  # random halves of the rows, for errors and for scores of votes
_VOTES, _DRAWN = 3_000, 64  # votes in each half, and rows in a vote
_TIE = 1.1  # times the least variance: drawn among
_RESOLUTION = 0.05  # of ranks: finer differences of pairs are lost in noise, or a tie would be broken by the sample
_ENOUGH = 0.002  # of the loss of the mean: a predictor that good needs no rival
_FOLDS, _KNOTS = 5, np.linspace(-2.5, 2.5, 8)  # normal scores
_MOST = 10_000  # rows that a predictor reads

SINGLE = ("MIG", "DCI disentanglement", "DCI completeness", "SAP", "modularity", "InfoM", "InfoC")
JOINT = ("DCI informativeness", "explicitness", "InfoE")
VOTES = ("FactorVAE", "beta-VAE")


def resistant_scores(
    columns: list[Column], z: np.ndarray, active: np.ndarray, information: Information, seed: int
) -> dict[str, tuple[float, float]]:
    """{name: (score, its standard error)}. The error is the deviation between random halves of the rows."""
    rng, halves = np.random.default_rng(seed), random_halves(len(z), seed)
    single = single_scores(information.share, information.explained, active)
    scores: dict[str, Any] = dict(zip(SINGLE, single, strict=True))
    resampled = np.array([single_scores(*information.resampled(half), active) for half in halves])
    errors: dict[str, Any] = dict(zip(SINGLE, resampled.std(axis=0, ddof=1), strict=True))
    rank = ranks(z[:, active])
    for name, vote in zip(VOTES, (variance_votes, difference_votes), strict=True):
        results = [_accuracy(vote, columns, rank, half, rng) for half in halves]
        scores[name], errors[name] = np.mean(results), np.std(results, ddof=1)
    rows = rng.permutation(len(z))[:_MOST]
    told = information.share[:, active] > 0
    parts = [half[rows] for half in halves]
    values = np.array([_joint(column.take(rows), rank[rows], told[k], parts) for k, column in enumerate(columns)])
    values = values.mean(axis=0)  # over the factors
    scores |= dict(zip(JOINT, values[0], strict=True))
    errors |= dict(zip(JOINT, values[1:].std(axis=0, ddof=1), strict=True))
    return {name: (float(scores[name]), float(errors[name])) for name in scores}


def random_halves(n: int, seed: int) -> list[np.ndarray]:
    """Ten random halves of n rows, each (n,) bool."""
    rng = np.random.default_rng(seed).spawn(1)[0]
    return [rng.permutation(n) < n // 2 for _ in range(_HALVES)]


def single_scores(share: np.ndarray, explained: np.ndarray, active: np.ndarray) -> list[float]:
    """The scores of `SINGLE`, from (factors, latents) matrices of shares."""
    share, explained = share[:, active], explained[:, active]
    return [
        gap(share),
        dci_disentanglement(share),
        dci_completeness(share),
        gap(explained),
        modularity(share),
        concentration(share),
        concentration(share.T, len(share)),
    ]


def gap(matrix: np.ndarray) -> float:
    """The mean over rows of the largest entry minus the second."""
    padded = np.concatenate([np.zeros((len(matrix), 2)), matrix], axis=1)
    largest = np.sort(padded, axis=1)[:, -2:]
    return float(np.mean(largest[:, 1] - largest[:, 0]))


def dci_disentanglement(importance: np.ndarray) -> float:
    """1 - H(factors) / log(number of factors) of each column, weighted by the column's sum."""
    return _entropic(importance.T)


def dci_completeness(importance: np.ndarray) -> float:
    """1 - H(latents) / log(number of latents) of each row, weighted by the row's sum."""
    return _entropic(importance)


def _entropic(matrix):
    sums = matrix.sum(axis=1)
    if not matrix.size or not sums.sum():
        return 0.0
    shares = matrix[sums > 0] / sums[sums > 0, None]
    entropies = special.entr(shares).sum(axis=1) / np.log(max(2, matrix.shape[1]))
    return float(np.average(1 - entropies, weights=sums[sums > 0]))


def modularity(information: np.ndarray) -> float:
    """1 - sum of the other squares / (largest square (K - 1)) of each column with information, averaged."""
    squares = information[:, information.any(axis=0)] ** 2
    if not squares.size:
        return 0.0
    largest = squares.max(axis=0)
    return float(np.mean(1 - (squares.sum(axis=0) - largest) / (largest * max(1, len(squares) - 1))))


def concentration(share: np.ndarray, among: int | None = None) -> float:
    """(largest share / sum - 1/rows) / (1 - 1/rows) of each column, averaged over the columns with information.

    With `among`, over as many columns: those without information count as 0.
    """
    columns = share[:, share.any(axis=0)]
    if not columns.size:
        return 0.0
    if len(share) == 1:
        return 1.0
    ratios = (columns.max(axis=0) / columns.sum(axis=0) - 1 / len(share)) / (1 - 1 / len(share))
    return float(np.sum(ratios) / (among or columns.shape[1]))


# Votes ----------------------------------------------------------------------------------------------------------------


class Fixed:
    """Draws rows that share a factor's level (and the value of the factor that it depends on)."""

    def __init__(self, column: Column, rows: np.ndarray):
        chosen, count = column.take(rows), 0
        sets = np.empty(len(rows), int)
        for group in chosen.groups:
            index = levels(chosen, group, bins_for(len(rows)))
            sets[group], count = count + index, count + index.max() + 1
        self.sets, self.rows = sets, rows[np.argsort(sets, kind="stable")]
        self.counts = np.bincount(sets)
        self.starts = np.cumsum(self.counts) - self.counts
        self.groups = [rows[group] for group in chosen.groups]
        self.group_of = np.zeros(count, int)
        for number, group in enumerate(chosen.groups):
            self.group_of[sets[group]] = number

    def draw(self, votes: int, drawn: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(rows (votes, drawn), group of each vote)."""
        sets = self.sets[rng.integers(len(self.sets), size=votes)]
        places = rng.random((votes, drawn)) * self.counts[sets, None]
        return self.rows[self.starts[sets, None] + places.astype(int)], self.group_of[sets]


def variance_votes(z, fixed: list[Fixed], votes: int, rng, drawn: int = _DRAWN) -> tuple[np.ndarray, np.ndarray]:
    """(the latent of least relative variance, the fixed factor) of each vote."""
    latents, factors = [], []
    for k, share in enumerate(np.array_split(np.arange(votes), len(fixed))):
        rows, groups = fixed[k].draw(len(share), drawn, rng)
        spreads = np.array([np.var(z[group], axis=0) for group in fixed[k].groups])[groups]
        relative = np.var(z[rows], axis=1) / np.where(spreads > 1e-12, spreads, np.nan)
        relative = np.where(np.isnan(relative), np.inf, relative)
        ties = relative <= _TIE * relative.min(axis=1, keepdims=True)
        latents.append(np.argmax(ties * rng.random(ties.shape), axis=1))
        factors.append(np.full(len(share), k))
    return np.concatenate(latents), np.concatenate(factors)


def difference_votes(z, fixed: list[Fixed], votes: int, rng, drawn: int = _DRAWN) -> tuple[np.ndarray, np.ndarray]:
    """(mean |z - z'| over pairs, (votes, latents); the fixed factor) of each vote."""
    differences, factors = [], []
    for k, share in enumerate(np.array_split(np.arange(votes), len(fixed))):
        total = 0.0
        for _ in range(drawn):  # each pair has a level of its own
            pairs, _ = fixed[k].draw(len(share), 2, rng)
            total = total + np.abs(z[pairs[:, 0]] - z[pairs[:, 1]])
        differences.append(total / drawn)
        factors.append(np.full(len(share), k))
    return np.concatenate(differences), np.concatenate(factors)


def _accuracy(vote: Callable, columns, rank, half, rng):
    """Of a majority vote, or a linear classifier, learned on one half and scored on the other."""
    if not rank.shape[1]:
        return 1 / len(columns)
    known, new = (
        vote(rank, [Fixed(column, np.flatnonzero(rows)) for column in columns], _VOTES, rng) for rows in (half, ~half)
    )
    if vote is variance_votes:
        return majority_accuracy(known, new)
    return linear_accuracy(*((x + _RESOLUTION * rng.normal(size=x.shape), y) for x, y in (known, new)))


def majority_accuracy(known: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of the new (latent, factor) pairs with the factor that the latent had most often."""
    size = 1 + max(known[0].max(), new[0].max()), 1 + known[1].max()
    table = np.bincount(known[0] * size[1] + known[1], minlength=size[0] * size[1]).reshape(size)
    return float(np.mean(table.argmax(axis=1)[new[0]] == new[1]))


def linear_accuracy(known: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]) -> float:
    """Accuracy of logistic regression."""
    from sklearn.linear_model import LogisticRegression

    if known[1].max() == 0:
        return 1.0
    return float(LogisticRegression(C=10.0, max_iter=300).fit(*known).score(*new))


# All latents together -------------------------------------------------------------------------------------------------


def _joint(column, rank, told, halves):
    """(1 + halves, 3): the scores of `JOINT` of a factor, from predictions for rows that weren't fitted.

    told: (latents,), whether the latent alone tells something of the factor.
    """
    target, normal = column.target, special.ndtri(rank)
    additive, best = np.zeros_like(target), np.zeros_like(target)
    for group in column.groups:
        additive[group] = best[group] = target[group].mean(axis=0)
        inputs = {tuple(chosen): normal[group][:, chosen] for chosen in (told, np.ones_like(told)) if chosen.any()}
        if inputs:
            additive[group], best[group] = _predicted(column, list(inputs.values()), group)
    every = [np.ones(len(rank), bool), *halves]
    return np.array([_scores_of(column.take(np.flatnonzero(kept)), additive[kept], best[kept]) for kept in every])


def _predicted(column, inputs, group):
    """(by the best additive model, by the better of it and boosted trees): E[target | latents], each (n, d)."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    target, folds = column.target[group], KFold(_FOLDS, shuffle=True, random_state=0)
    if column.factor.kind == "categorical":
        y, parts, method = column.values[group], [column.values[group]], "predict_proba"
        if np.bincount(y).min() >= _FOLDS:
            folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        linear = [LogisticRegression(C=c, max_iter=150) for c in (1e5, 10.0, 0.1)]
        trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=True, random_state=0)
    else:
        y, parts, method, linear = target, target.T, "predict", [RidgeCV(np.logspace(-6, 3, 10))]
        trees = HistGradientBoostingRegressor(max_iter=200, early_stopping=True, random_state=0)
    best, least = target, np.inf
    enough = _ENOUGH * _loss(column, target, np.broadcast_to(target.mean(axis=0), target.shape))
    for x, model in itertools.product(inputs, linear):
        knots = np.repeat(_KNOTS[:, None], x.shape[1], axis=1)
        spline = SplineTransformer(knots=knots, extrapolation="linear", include_bias=False)
        values = cross_val_predict(make_pipeline(spline, model), x, y, cv=folds, method=method).reshape(target.shape)
        if (loss := _loss(column, target, values)) < least:
            best, least = values, loss
        if least < enough:
            return best, best
    boosted = [cross_val_predict(trees, inputs[-1], part, cv=folds, method=method) for part in parts]
    boosted = np.stack(boosted, axis=-1).reshape(target.shape)
    return best, min((best, boosted), key=lambda values: np.sum((target - values) ** 2))


def _loss(column, target, values):
    if column.factor.kind == "categorical":
        return -np.sum(np.log(np.clip(values[target > 0], 1e-12, 1)))
    return np.sum((target - values) ** 2)


def _scores_of(column, additive, best):
    explained = _explained(column, best)
    if column.factor.kind == "categorical":
        own = np.clip(np.sum(additive * column.target, axis=1), 1e-12, 1)
        explicit = 1 + np.mean(np.log(own)) / special.entr(column.target.mean(axis=0)).sum()
    else:
        explicit = _explained(column, additive)
    return [max(0.0, explained), max(0.0, _separation(column, additive)), max(0.0, explicit)]


def _explained(column, predicted):
    means = np.zeros_like(column.target)
    for group in column.groups:
        means[group] = column.target[group].mean(axis=0)
    return 1 - np.sum((column.target - predicted) ** 2) / np.sum((column.target - means) ** 2)


def _separation(column, predicted):
    """2 AUC - 1 of each level against the others, averaged."""
    total = 0.0
    for group in column.groups:
        level, values = levels(column, group, bins_for(len(group))), predicted[group]
        count = np.bincount(level)
        if column.factor.kind == "categorical":
            scores = values
        elif column.factor.kind == "periodic":
            scores = values @ np.stack([column.target[group][level == k].mean(axis=0) for k in range(len(count))]).T
        else:
            borders = [column.target[group][level == k].max() for k in range(len(count) - 1)]
            spread = max(np.std(column.target[group] - values), 1e-6 * np.std(column.target[group]), 1e-300)
            below = special.ndtr((np.array([-np.inf, *borders, np.inf]) - values) / spread)
            scores = np.diff(below, axis=1)
        own = len(level) * ranks(scores)[np.arange(len(level)), level] + 0.5
        ranksums = np.bincount(level, own)
        others = np.maximum(len(level) - count, 1)
        total += len(group) * np.mean(2 * (ranksums - count * (count + 1) / 2) / (count * others) - 1)
    return total / sum(map(len, column.groups))
