"""The information of single latents on single factors, from ranks: no monotone map and no outlier moves it."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special

from kvae.data.factors import Factor

_PERMUTATIONS = 20
_BY_CHANCE = 5  # standard deviations under permutation: less counts as nothing
_ROWS = 5  # rows of a cell of an independent table, at least
_BINS = 20  # as in the literature, if there are rows enough


@dataclasses.dataclass(frozen=True)
class Column:
    """The values of one factor.

    Attributes:
        name, factor: of the factor.
        values: (n,). Those of a categorical factor are numbered; those of a periodic one are phases in [0, 1).
        target: (n, d): one-hot, the value itself, or (cos, sin) of the phase.
        groups: row numbers for each value of the factor `given`; otherwise one group of all rows.
    """

    name: str
    factor: Factor
    values: np.ndarray
    target: np.ndarray
    groups: tuple[np.ndarray, ...]

    def take(self, rows: np.ndarray) -> "Column":
        """The column of these rows."""
        place = np.full(len(self.values), -1)
        place[rows] = np.arange(len(rows))
        groups = tuple(kept for group in self.groups if len(kept := place[group][place[group] >= 0]))
        return dataclasses.replace(self, values=self.values[rows], target=self.target[rows], groups=groups)


def columns(values: Mapping[str, np.ndarray], factors: Mapping[str, Factor]) -> list[Column]:
    """The columns of factors: {name: (n,)}, and {name: `Factor`}."""
    return [_column(name, factors[name], values) for name in factors]


def _column(name, factor, values):
    found, n = values[name], len(values[name])
    groups = (np.arange(n),)
    if factor.kind == "categorical":
        _, found = np.unique(found, return_inverse=True)
        return Column(name, factor, found, np.eye(found.max() + 1)[found], groups)
    found = np.asarray(found, np.float64)
    if factor.kind == "ordered":
        return Column(name, factor, found, found[:, None], groups)
    periods = np.full(n, factor.period_at(None) if factor.given is None else np.nan)
    if factor.given is not None:
        kinds, index = np.unique(values[factor.given], return_inverse=True)
        groups = tuple(np.flatnonzero(index == number) for number in range(len(kinds)))
        for kind, group in zip(kinds.tolist(), groups, strict=True):
            periods[group] = factor.period_at(kind)
    phases = np.round(found / periods, 6) % 1.0  # a full turn is a start again, also after rounding
    angles = 2 * np.pi * phases
    return Column(name, factor, phases, np.stack([np.cos(angles), np.sin(angles)], axis=1), groups)


def ranks(values: np.ndarray) -> np.ndarray:
    """Each value's share of smaller ones in its column, in (0, 1). Ties share their mean."""
    if values.ndim > 1:
        return np.stack([ranks(column) for column in values.T], axis=1) if values.size else np.asarray(values, float)
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[index] / len(values)


def bins_for(n: int) -> int:
    """Equal-mass bins of n rows: 20, or fewer if cells would have less than 5 rows."""
    return int(np.clip(np.sqrt(n / _ROWS), 2, _BINS))


def levels(column: Column, group: np.ndarray, bins: int, start: float = 0.0) -> np.ndarray:
    """The levels of a group's rows: few values as they are; else bins of equal mass, or equal arcs from `start` on."""
    values = column.values[group]
    distinct, index = np.unique(values, return_inverse=True)
    if column.factor.kind == "categorical" or len(distinct) <= bins:
        return index
    if column.factor.kind == "periodic":
        values = (values - start) % 1.0
        share = values / np.max(values) if np.max(values) < 1 - 2 / bins else values
    else:
        share = ranks(values)
    return np.unique(np.minimum(np.floor(share * bins), bins - 1), return_inverse=True)[1]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The tables of a factor and a latent: in each group of rows the levels (n_g,), the cells, the levels' points."""

    groups: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]

    def measure(self, kept=None) -> np.ndarray:
        """(mutual information, entropy, explained variance, variance) over the rows, or the kept ones."""
        total = np.zeros(4)
        for rows, level, cell, points in self.groups:
            chosen = slice(None) if kept is None else kept[rows]
            table = np.bincount(cell[chosen] * len(points) + level[chosen], minlength=(cell.max() + 1) * len(points))
            table = table.reshape(-1, len(points)).astype(float)
            by_cell, by_level, n = table.sum(axis=1), table.sum(axis=0), max(1.0, table.sum())
            deviations = points - by_level @ points / n
            sums = table @ deviations
            entropies = [_entropy(counts, n) for counts in (by_level, by_cell, table.ravel())]
            between = np.sum(sums**2, axis=1)[by_cell > 0] / by_cell[by_cell > 0]
            variances = np.sum(between), by_level @ np.sum(deviations**2, axis=1)
            total += n * (entropies[0] + entropies[1] - entropies[2]), n * entropies[0], *variances
        return total / max(1, sum(np.size(rows) if kept is None else kept[rows].sum() for rows, *_ in self.groups))


def _entropy(counts, n):
    return special.entr(counts / n).sum()


def _pair(column, latent, bins, order: Callable[[np.ndarray], np.ndarray]):
    """The tables of a column with a latent (n,). `order` permutes a group's rows, or leaves them."""
    groups = []
    for group in column.groups:
        rank, rows = ranks(latent[group]), order(group)
        tables = [_tables(column, group, rows, rank, bins, start) for start in _starts(column, rows, rank, bins)]
        groups.append(max(tables, key=lambda each: _Pair((each,)).measure()[0]))
    return _Pair(tuple(groups))


def _tables(column, group, rows, rank, bins, start):
    level = levels(column, rows, bins, start)
    counts = np.bincount(level)
    means = np.stack([np.bincount(level, target) for target in column.target[rows].T], axis=1) / counts[:, None]
    return group, level, _cells(rank, level, bins), means


def _starts(column, rows, rank, bins):
    """The phases to count levels from: the middle of a wide gap, or the phases at the latent's ends.

    Bins see a latent best from its jump (of an angle) or its turning point (of a cosine).
    """
    phases = np.unique(column.values[rows]) if column.factor.kind == "periodic" else []
    if len(phases) <= bins:
        return (0.0,)
    gaps = np.diff(phases, append=phases[0] + 1)
    middles = phases + gaps / 2
    if np.max(gaps) > 2 / bins:
        return (middles[np.argmax(gaps)],)
    low, high = rank < max(0.25 / bins, np.min(rank)), rank > min(1 - 0.25 / bins, np.max(rank))
    ends = low, high, low | high, (rank == np.min(rank)) | (rank == np.max(rank))
    turns = [np.angle(np.sum(np.exp(2j * np.pi * column.values[rows][end]))) / (2 * np.pi) for end in ends if end.any()]
    starts = [middles[np.argmin(np.abs((middles - turn + 0.5) % 1 - 0.5))] for turn in turns]
    return {start + shift for start in starts for shift in (0, 0.5 / bins)}


def _cells(rank, level, bins):
    """Cells of a latent: its values if they are few; otherwise bins of equal mass, cut between the levels, too.

    The levels are put in the order of their mean ranks. A cut has the most rows of one level below it and of the next
    above it, so a latent that tells levels apart does so wherever their border is.
    """
    distinct, index = np.unique(rank, return_inverse=True)
    if len(distinct) <= 2 * bins:
        return index
    by_rank = np.argsort(rank, kind="stable")
    places = np.argsort(np.argsort(np.bincount(level, rank) / np.bincount(level)))[level[by_rank]]
    rows = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    ordered, cuts = rank[by_rank], list(np.arange(1, bins) / bins)
    for below, above in itertools.pairwise(rows):
        both = np.sort(np.concatenate([below, above]))
        gains = np.cumsum(np.where(places[both] == places[below[0]], 1, -1))
        last = both[np.flatnonzero(gains == gains.max())]
        last = last[len(last) // 2]
        cuts.append((ordered[last] + ordered[min(last + 1, len(ordered) - 1)]) / 2)
    return np.searchsorted(np.unique(cuts), rank)


class Information:
    """Every factor against every latent. What chance alone gives (mean over permutations) is removed.

    Args:
        columns: the factors.
        z: codes (n, latents).
        active: (latents,), the others have no information.
        rng: a numpy generator.

    Attributes:
        share: (factors, latents), the mutual information as a share of the factor's entropy, 0 within chance.
        explained: (factors, latents), the share of a factor's variance between the latent's cells.
        entropies: (factors,), nats.
    """

    def __init__(self, columns: list[Column], z: np.ndarray, active: np.ndarray, rng: Any):
        bins, shape = bins_for(len(z)), (len(columns), z.shape[1])
        self.share, self.explained = np.zeros(shape), np.zeros(shape)
        self.entropies = np.zeros(len(columns))
        self._pairs = {}
        for k, column in enumerate(columns):
            for j in np.flatnonzero(active):
                pair = _pair(column, z[:, j], bins, lambda group: group)
                null = np.array(
                    [_pair(column, z[:, j], bins, rng.permutation).measure()[::2] for _ in range(_PERMUTATIONS)]
                )
                chance, found = null.mean(axis=0), pair.measure()
                clear = found[::2] > chance + _BY_CHANCE * null.std(axis=0, ddof=1)
                self._pairs[k, j] = pair, chance, clear
                self.share[k, j], self.explained[k, j] = _adjusted(found, chance, clear)
                self.entropies[k] = found[1]

    def resampled(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(share, explained) of half of the rows, `kept` (n,) bool. Chance gives twice as much there."""
        share, explained = np.zeros_like(self.share), np.zeros_like(self.share)
        for (k, j), (pair, chance, clear) in self._pairs.items():
            share[k, j], explained[k, j] = _adjusted(pair.measure(kept), 2 * chance, clear)
        return share, explained


def _adjusted(found, chance, clear):
    """Chance-adjusted shares (information, explained): 0 for what chance gives, 1 for all there is."""
    found, whole = found[::2], found[1::2]
    return np.where(clear, np.clip((found - chance) / np.maximum(whole - chance, 1e-12), 0, 1), 0.0)
