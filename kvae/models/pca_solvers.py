"""The leading principal axes of a stream's rows: from their covariance in one pass, or in a few without it."""

import warnings
from typing import NamedTuple

import keras
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from keras import ops

from kvae.data import elements

SOLVERS = ("auto", "covariance", "randomized")
_OVERSAMPLING = 10
_COVARIANCE_FEATURES = 4096
_DENSE_FEATURES = 2048
_BLOCK_BYTES = 2**22  # less is slower by calls, more by caches


class Solution(NamedTuple):
    """count: of the rows. mean: (features,). total_variance: their covariance's trace (divided by n).
    variances: (rank,), descending. axes: (rank, features), orthonormal rows."""

    count: int
    mean: np.ndarray
    total_variance: float
    variances: np.ndarray
    axes: np.ndarray


def automatic(features, rank, max_passes):
    """The solver's name: "covariance" up to 4,096 features, and where its matrix would be smaller than the basis.

    By an estimate from the times of single passes with 10 axes, it is the faster one up to some 2,000 features where
    rows are read raw and 8,000 where images have to be decoded in every pass.
    """
    small = features <= max(_COVARIANCE_FEATURES, max_passes * (rank + _OVERSAMPLING))
    return "covariance" if small else "randomized"


def covariance(stream, features, rank, verbose=0):
    """A `Solution`, exact, in one pass and 8 features^2 bytes.

    stream: a `tf.data.Dataset` of batches. rank: the number of axes.
    """
    rows, products = _Rows(stream, features, 1, verbose), np.zeros((features, features), order="F")
    for x in rows:
        products = scipy.linalg.blas.dsyrk(1.0, x.T, beta=1.0, c=products, lower=1, overwrite_c=1)
    products = scipy.linalg.blas.dsyr(-rows.count, rows.offset, a=products, lower=1, overwrite_a=1)
    products /= rows.count
    rows.finish()
    return Solution(rows.count, rows.mean, np.trace(products), *_leading_eigenpairs(products, rank))


def randomized(stream, features, rank, seed=None, tolerance=1e-5, max_passes=12, verbose=0):
    """A `Solution` by block Krylov iteration (Musco and Musco 2015, algorithm 2), which never has the covariance C.

    Each pass multiplies C by the newest block of an orthonormal basis of [G, CG, C^2 G, ...], G a random block of
    rank + 10 columns (Halko, Martinsson and Tropp 2011), and takes the best axes within the basis, whose variances
    are those that the data have along them. It ends when a pass raises their sum by less than `tolerance` of itself.
    The basis takes 8 features (rank + 10) bytes a pass, the work of a pass 4 (rank + 10) features operations a row.

    stream: the same rows in every pass, in any order. seed: int or None, of G. max_passes: at least 2. Warns where
    they don't reach the tolerance, raises ValueError for a stream that changes its length.
    """
    rows = _Rows(stream, features, max_passes, verbose)
    block = np.random.default_rng(seed).normal(size=(features, min(rank + _OVERSAMPLING, features)))
    block = np.linalg.qr(block)[0]
    basis, projected, explained = [], np.zeros((0, 0)), 0.0
    while block.shape[1]:
        basis.append(block)
        product, total_variance = _times_covariance(rows, block)
        projected = _grown(projected, np.concatenate([known.T @ product for known in basis]))
        values, vectors = np.linalg.eigh(projected)
        before, explained = explained, values[-rank:].sum()
        gain = explained - before
        if gain <= tolerance * explained:
            break
        if len(basis) == max_passes:
            warnings.warn(
                f"the variance explained by {rank} axes rose by {gain / explained:.1g} of itself in the last of "
                f"{max_passes} passes, more than the tolerance of {tolerance:.1g}: give a larger max_passes, or fewer "
                "axes",
                stacklevel=4,
            )
            break
        block = _new_directions(product, basis, smallest=np.finfo("float64").eps * features * values[-1])
    rows.finish()
    parts = np.split(vectors[:, : -rank - 1 : -1], np.cumsum([known.shape[1] for known in basis])[:-1])
    axes = sum(known @ part for known, part in zip(basis, parts, strict=True))
    return Solution(rows.count, rows.mean, total_variance, values[: -rank - 1 : -1], axes.T)


class _Rows:
    """A stream's rows in blocks of float64, centred on the first block's mean in the first pass, then on their own.

    After a pass: `count`; `mean` of the rows; `offset`, what the blocks' own mean was, 0 but in the first pass.
    """

    def __init__(self, stream, features, max_passes, verbose):
        self.stream, self.features, self.max_passes = stream, features, max_passes
        self.passes, self.batches, self.count, self.mean = 0, 0, None, None
        batches = int(stream.cardinality())
        target = batches * max_passes if batches > 0 else None
        self.bar = keras.utils.Progbar(target, unit_name="batch", verbose=1 if verbose else 0)

    def __iter__(self):
        count, total, shift = 0, np.zeros(self.features), self.mean
        most = max(32, _BLOCK_BYTES // (8 * self.features))
        for element in self.stream:
            batch = elements.unpack(element)[0]
            for start in range(0, len(batch), most):
                x = ops.convert_to_numpy(elements.scale(batch[start : start + most], "float64"))
                x = x.reshape(-1, self.features)
                shift = x.mean(axis=0) if shift is None else shift
                x = x - shift
                count, total = count + len(x), total + x.sum(axis=0)
                yield x
            self.batches += 1
            self.bar.add(1)
        self.passes += 1
        if self.count not in (None, count):
            raise ValueError(
                f"x has {self.count} examples in the first pass and {count} in pass {self.passes}: the randomized "
                'solver needs the same ones in every pass; give such a stream, or take solver="covariance", which '
                "reads x once"
            )
        self.count, self.offset = count, total / count
        self.mean = shift + self.offset
        if self.bar.target is None:
            self.bar.target = self.batches * self.max_passes

    def finish(self):
        if self.bar.target != self.batches:
            self.bar.target = self.batches
            self.bar.update(self.batches, finalize=True)


def _times_covariance(rows, block):
    """(C block, trace of C), in one pass."""
    product, squares = np.zeros(block.shape), 0.0
    for x in rows:
        product += x.T @ (x @ block)
        squares += np.vdot(x, x)
    product /= rows.count
    product -= np.outer(rows.offset, rows.offset @ block)
    return product, squares / rows.count - rows.offset @ rows.offset


def _grown(projected, columns):
    """A symmetric matrix with these columns, of its new size, and their transpose added."""
    old = len(projected)
    corner = (columns[old:] + columns[old:].T) / 2
    return np.block([[projected, columns[:old]], [columns[:old].T, corner]])


def _new_directions(product, basis, smallest):
    """Orthonormal columns for what `product` adds to the basis' span, without what is `smallest`, rounding alone."""
    directions, sizes, _ = np.linalg.svd(_without(product, basis), full_matrices=False)
    return np.linalg.qr(_without(directions[:, sizes > smallest], basis))[0]


def _without(block, basis):
    for known in basis:
        block = block - known @ (known.T @ block)
    return block


def _leading_eigenpairs(lower, count):
    """The `count` largest eigenvalues, descending, and their eigenvectors as rows; `lower` holds one triangle."""
    size = len(lower)
    if size <= _DENSE_FEATURES:
        values, vectors = scipy.linalg.eigh(lower, lower=True, subset_by_index=[size - count, size - 1])
    else:
        product = scipy.sparse.linalg.LinearOperator(
            lower.shape, lambda v: scipy.linalg.blas.dsymv(1.0, lower, v, lower=1), dtype=lower.dtype
        )
        start = np.random.default_rng(0).normal(size=size)
        values, vectors = scipy.sparse.linalg.eigsh(product, count, v0=start)
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order].T
