"""The leading principal axes of a stream's rows: from their covariance in one pass, or in a few passes without it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from keras import ops
from scipy.linalg import blas

from kvae.data import elements
from kvae.data.shares import Share

SOLVERS = ("auto", "covariance", "randomized")
_OVERSAMPLING = 10
_COVARIANCE_FEATURES = 4096
_DENSE_FEATURES = 2048
_EXACT_ROWS = 1024
BLOCK_BYTES = 2**22  # less is slower by calls, more by caches


class Solution(NamedTuple):
    """The axes of a stream.

    count is the number of rows with a weight above 0 and mean, (features,), their weighted mean; total_variance is the
    trace of their covariance, divided by the sum of the weights. variances, (rank,), descend; axes, (rank, features),
    are orthonormal rows.
    """

    count: int
    mean: np.ndarray
    total_variance: float
    variances: np.ndarray
    axes: np.ndarray


def automatic(features: int, rank: int, max_passes: int) -> str:
    """The solver's name: "covariance" up to 4,096 features, or as long as its matrix is smaller than the basis.

    By the times of single passes with 10 axes, the covariance is faster up to some 2,000 features if rows are read
    raw, and up to 8,000 if images are decoded in every pass.
    """
    is_small = features <= max(_COVARIANCE_FEATURES, max_passes * (rank + _OVERSAMPLING))
    return "covariance" if is_small else "randomized"


def covariance(stream: Any, features: int, rank: int, verbose: int | str = 0, share: Share | None = None) -> Solution:
    """The exact axes, in one pass and 8 features^2 bytes.

    Args:
        stream: a `tf.data.Dataset` of batches.
        features: the number of values of an example.
        rank: the number of axes.
        verbose: 0 for no progress bar.
        share: of several workers the `Share` of this one, with the stream's batches; the axes are those of all.
    """
    rows = _Rows(stream, features, 1, verbose, share)
    products = _pixel_covariance(rows) if rows.are_pixels else _covariance(rows)
    rows.finish()
    return Solution(rows.count, rows.mean, float(np.trace(products)), *_leading_eigenpairs(products, rank))


def randomized(
    stream: Any,
    features: int,
    rank: int,
    seed: int | None = None,
    tolerance: float = 1e-5,
    max_passes: int = 12,
    verbose: int | str = 0,
    share: Share | None = None,
) -> Solution:
    """The axes by block Krylov iteration, without the covariance matrix C.

    Each pass multiplies C by the newest block of an orthonormal basis of [G, CG, C^2 G, ...], with a random block G of
    rank + 10 columns, and takes the best axes within the basis. Their variances are the data's own along them. The
    basis takes 8 features (rank + 10) bytes a pass, and the work of a pass 4 (rank + 10) features operations a row.

    Args:
        stream: a `tf.data.Dataset` of batches, with the same rows in every pass, in any order.
        features: the number of values of an example.
        rank: the number of axes.
        seed: int or None, of G.
        tolerance: the solver stops after a pass that raises the sum of the variances by a smaller share.
        max_passes: at least 2. The solver warns if they don't reach the tolerance.
        verbose: 0 for no progress bar.
        share: as for `covariance`; all workers must be given one seed, as `share.seed` finds it.

    Raises:
        ValueError: for a stream that changes its length.

    Reference:
        Musco and Musco (2015), algorithm 2; Halko, Martinsson and Tropp (2011).
    """
    rows = _Rows(stream, features, max_passes, verbose, share)
    block = np.random.default_rng(seed).normal(size=(features, min(rank + _OVERSAMPLING, features)))
    block = np.linalg.qr(block)[0]
    basis, projected, explained = [], np.zeros((0, 0)), 0.0
    total_variance, values, vectors = 0.0, np.zeros(0), np.zeros((0, 0))
    while block.shape[1]:
        basis.append(block)
        product, total_variance = _times_covariance(rows, block)
        projected = _grown(projected, np.concatenate([earlier.T @ product for earlier in basis]))
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
    parts = np.split(vectors[:, : -rank - 1 : -1], np.cumsum([block.shape[1] for block in basis])[:-1])
    axes: Any = sum(block @ part for block, part in zip(basis, parts, strict=True))
    return Solution(rows.count, rows.mean, total_variance, values[: -rank - 1 : -1], axes.T)


class _Rows:
    """A stream's rows in blocks of float64, centered on the first block's mean in the first pass, then on their own.

    With sample weights, each row comes times the square root of its weight, so that products of rows are weighted.

    After a pass, `count` is the number of rows with a weight above 0, `weight` the sum of the weights (without any, the
    number of rows), `mean` the weighted mean, and `offset` that of the centered rows: 0 but for rounding after the
    first pass. With a `share` these are of all workers' rows.
    """

    def __init__(self, stream: Any, features: int, max_passes: int, verbose: int | str, share: Share | None = None):
        self.stream, self.features, self.max_passes = stream, features, max_passes
        self.share = share or Share()
        self.passes, self.batches = 0, 0
        self.count: Any = None
        self.mean: Any = None
        self.weight: Any = None
        self.offset: Any = None
        batches = int(stream.cardinality())
        target = batches * max_passes if batches > 0 else None
        self.bar = keras.utils.Progbar(target, unit_name="batch", verbose=1 if verbose else 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        count, weight, total, shift = 0, 0.0, np.zeros(self.features), self.mean
        blocks = self._blocks()
        if shift is None:
            first = next(blocks, None)
            means, number = self.share.sum(total if first is None else first[0].mean(axis=0), first is not None)
            shift = means / max(number, 1)
            blocks = itertools.chain([] if first is None else [first], blocks)
        for x, weights in blocks:
            x = x - shift
            if weights is None:
                count, weight, total = count + len(x), weight + len(x), total + x.sum(axis=0)
            else:
                count, weight, total = count + np.count_nonzero(weights), weight + weights.sum(), total + weights @ x
                x *= np.sqrt(weights)[:, None]
            yield x
        count, weight, total = self.share.sum(count, weight, total)
        count = int(count)
        self.passes += 1
        if self.count not in (None, count):
            raise ValueError(
                f"x has {self.count} examples in the first pass and {count} in pass {self.passes}: the randomized "
                'solver needs the same ones in every pass; give such a stream, or take solver="covariance", which '
                "reads x once"
            )
        if not weight:
            raise ValueError("the sample weights of x are all 0: expected a weight above 0 for more than one example")
        self.count, self.weight, self.offset = count, weight, total / weight
        self.mean = shift + self.offset
        if self.bar.target is None:
            self.bar.target = self.batches * self.max_passes

    def _blocks(self):
        """Yields (x, sample weights or None), some 4 MB at a time."""
        most = max(32, BLOCK_BYTES // (8 * self.features))
        for element in self.stream:
            batch, _, weights = elements.unpack(element)
            if weights is not None:
                weights = np.asarray(elements.weight_per_example(weights, len(batch)), "float64")
            for start in range(0, len(batch), most):
                x = ops.convert_to_numpy(elements.scale(batch[start : start + most], "float64"))
                yield x.reshape(-1, self.features), None if weights is None else weights[start : start + most]
            self.batches += 1
            self.bar.add(1)

    @property
    def are_pixels(self) -> bool:
        """Whether the rows are uint8, without sample weights."""
        spec = getattr(self.stream, "element_spec", None)
        x, _, weights = elements.unpack(spec)
        return spec is not None and weights is None and x.dtype == "uint8"

    def pixels(self) -> Iterator[np.ndarray]:
        """One pass over uint8 rows, as they are, in blocks."""
        most = max(32, min(_EXACT_ROWS, BLOCK_BYTES // (4 * self.features)))
        for element in self.stream:
            batch = np.asarray(elements.unpack(element)[0]).reshape(-1, self.features)
            for start in range(0, len(batch), most):
                yield batch[start : start + most]
            self.batches += 1
            self.bar.add(1)

    def finish(self):
        if self.bar.target != self.batches:
            self.bar.target = self.batches
            self.bar.update(self.batches, finalize=True)


def _covariance(rows):
    """The lower triangle of C."""
    products = np.zeros((rows.features, rows.features), order="F")
    for x in rows:
        products = blas.dsyrk(1.0, x.T, beta=1.0, c=products, lower=1, overwrite_c=1)
    (products,) = rows.share.sum(products)
    products = np.asfortranarray(products)
    products = blas.dsyr(-rows.weight, rows.offset, a=products, lower=1, overwrite_a=1)
    products /= rows.weight
    return products


def _pixel_covariance(rows):
    """The lower triangle of C of uint8 rows, in half the time.

    All sums are of integers, and exact: 1,024 products of two numbers up to 128 are at most 2^24, the last integer
    that float32 counts to; more of them are added up in float64.
    """
    features, pending = rows.features, 0
    few, products = (np.zeros((features, features), dtype, order="F") for dtype in (np.float32, np.float64))
    total, count = np.zeros(features), 0
    for batch in rows.pixels():
        x = batch.astype(np.float32)
        x -= 128
        if pending + len(x) > _EXACT_ROWS:
            products += few
            pending = 0
        few = blas.ssyrk(1.0, x.T, beta=float(pending > 0), c=few, lower=1, overwrite_c=1)
        total += x.sum(axis=0)
        count, pending = count + len(x), pending + len(x)
    products += few
    count, total, products = rows.share.sum(count, total, products)
    if not count:
        raise ValueError("x has no examples")
    products, mean = np.asfortranarray(products), np.rint(total / count)  # an integer: all stays exact
    products = blas.dsyr2(-1.0, mean, total, a=products, lower=1, overwrite_a=1)
    products = blas.dsyr(float(count), mean, a=products, lower=1, overwrite_a=1)
    offset = total / count - mean
    products = blas.dsyr(-float(count), offset, a=products, lower=1, overwrite_a=1)
    products /= count * 255.0**2
    rows.count, rows.mean = int(count), (128 + total / count) / 255
    return products


def _times_covariance(rows, block):
    """(C block, trace of C), in one pass."""
    product, squares = np.zeros(block.shape), 0.0
    for x in rows:
        product += x.T @ (x @ block)
        squares += np.vdot(x, x)
    product, squares = rows.share.sum(product, squares)
    product /= rows.weight
    product -= np.outer(rows.offset, rows.offset @ block)
    return product, squares / rows.weight - rows.offset @ rows.offset


def _grown(projected, columns):
    """The symmetric matrix with these new columns, and their transpose as new rows."""
    old = len(projected)
    corner = (columns[old:] + columns[old:].T) / 2
    return np.block([[projected, columns[:old]], [columns[:old].T, corner]])


def _new_directions(product, basis, smallest):
    """Orthonormal columns for the directions that `product` adds to the basis; below `smallest` they are rounding."""
    directions, sizes, _ = np.linalg.svd(_without(product, basis), full_matrices=False)
    return np.linalg.qr(_without(directions[:, sizes > smallest], basis))[0]


def _without(block, basis):
    for directions in basis:
        block = block - directions @ (directions.T @ block)
    return block


def _leading_eigenpairs(lower, count):
    """The `count` largest eigenvalues, descending, and their eigenvectors as rows; `lower` holds one triangle."""
    size = len(lower)
    if size <= _DENSE_FEATURES:
        values, vectors = scipy.linalg.eigh(lower, lower=True, subset_by_index=[size - count, size - 1])
    else:
        product = scipy.sparse.linalg.LinearOperator(
            lower.shape, lambda v: blas.dsymv(1.0, lower, v, lower=1), dtype=lower.dtype
        )
        start = np.random.default_rng(0).normal(size=size)
        values, vectors = scipy.sparse.linalg.eigsh(product, count, v0=start)
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order].T
