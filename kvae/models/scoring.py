"""Many z ~ q(z|x) for each x of a stream, scored in bounded memory, and a score for each row."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae.data import arrays, errors
from kvae.noise import indexed_normal

BLOCK = 1_000  # draws of an example in one call
_VALUES, _ROWS = 2**18, 4_096  # values of x that are scored at once: about a core's caches; and z at most
_GROUPED = 2_048  # rows of small batches that are scored in one call
_DRAWN = 2**18  # z that are drawn, in blocks, before a summary


def scorer(model: Any, rows: int | None = None) -> Callable[..., np.ndarray]:
    """Compile a function to draw and score z ~ q(z|x).

    Args:
        model: a VAE or PCA.
        rows: z to decode at once. None derives it from the size of x.

    Returns:
        function (x, positions, block, count, seed) to numpy (3, n, count): log p(x|z), log p(z), log q(z|x) of the
        draws in the block. x: (n, ...), as the model takes it. positions: (n,), or (1,) for the same noise in all rows.
        The noise is a function of the seed, the position and the block. With seed 0, the first draw of block 0 is
        `evaluate`'s.
    """
    rows = rows or max(16, min(_ROWS, _VALUES // math.prod(model.event_shape)))
    dtype, latent_dim = model.variable_dtype, model.latent_dim

    def noise(positions, block, count, seed):
        """eps (n, count, latent_dim). TensorFlow's kernel makes all but the first draw, in half the time."""

        def others(position):
            key = tf.stack([seed, position * 2**24 + block])
            return tf.random.stateless_normal((count, latent_dim), key, dtype=dtype, alg="philox")

        eps = tf.map_fn(others, positions, fn_output_signature=dtype)
        first = indexed_normal(positions, latent_dim, key=seed, dtype=dtype)
        return tf.concat([tf.where(block == 0, first, eps[:, 0])[:, None], eps[:, 1:]], axis=1)

    def scores(x, positions, block, count, seed):
        posterior, prior = model.posterior(x), model.prior_distribution()
        eps, length = noise(positions, block, count, seed), tf.shape(tf.nest.flatten(x)[0])[0]
        eps = tf.reshape(tf.tile(eps, tf.stack([length // tf.shape(positions)[0], 1, 1])), (-1, latent_dim))
        total = tf.shape(eps, "int64")[0]

        def score(start, chunks):
            example = tf.range(start, tf.minimum(start + rows, total)) // count
            z, log_posterior = posterior.take(example).rsample_and_log_prob(eps[start : start + rows])
            repeated = tf.nest.map_structure(lambda tensor: tf.gather(tensor, example), x)
            values = tf.stack([model.log_likelihood(repeated, z), prior.log_prob(z), log_posterior], axis=1)
            return start + rows, chunks.write(tf.cast(start // rows, "int32"), values)

        chunks = tf.TensorArray(dtype, tf.cast(-(-total // rows), "int32"), infer_shape=False, element_shape=(None, 3))
        start = tf.zeros((), "int64")
        _, chunks = tf.while_loop(lambda start, _: start < total, score, (start, chunks), parallel_iterations=1)
        values = tf.reshape(tf.transpose(chunks.concat()), (3, -1, count))
        return _of_empty_rows(values, x) if model.missing else values

    specs = [signature(model), tf.TensorSpec((None,), "int64"), *3 * [tf.TensorSpec((), "int64")]]
    compiled = tf.function(scores, input_signature=specs, autograph=False)
    compiled = compiled.get_concrete_function()  # a direct call doesn't count as one more tracing of many
    return lambda x, positions, *numbers: compiled(
        model._scaled(x), tf.constant(positions, "int64"), *(tf.constant(number, "int64") for number in numbers)
    ).numpy()


def signature(model: Any) -> Any:
    """The `tf.TensorSpec` of x as the model's networks take it, or several of them."""
    x = model._symbol(model.event_shape, model.variable_dtype)
    return tf.nest.map_structure(lambda symbol: tf.TensorSpec(symbol.shape, symbol.dtype), x)


def _of_empty_rows(values, x):
    """The same (3, n, count) with log p(z) = log q(z|x) for rows without an observed value, whose log p(x) is 0."""
    empty = tf.reduce_all(tf.math.is_nan(x), axis=list(range(1, len(x.shape))))
    log_likelihood, log_prior, log_posterior = tf.unstack(values)
    return tf.stack([log_likelihood, tf.where(empty[:, None], log_posterior, log_prior), log_posterior])


def blocks(samples: int) -> list[tuple[int, int]]:
    """(number, size) of the blocks of `samples` draws of an example."""
    return [(number, min(BLOCK, samples - start)) for number, start in enumerate(range(0, samples, BLOCK))]


def examples_at_once(samples: int) -> int:
    """Number of examples with all their draws in memory at once."""
    return max(1, _DRAWN // samples)


def rows_of(x: Any, start: int, stop: int) -> Any:
    """x[start:stop], of a tensor or each of several."""
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], x)


def row_scores(
    model: Any, data: Any, samples: int, seed: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield (scores (n,), their standard errors (n,), element) for each batch: `LatentModel.score_samples`.

    Args:
        model: a VAE, with log p(x) by importance weighting, or a model whose `exact_scores` needs no draws.
        data: a stream or arrays, checked.
        samples: draws per example.
        seed: of the noise, an int.
        batch_size: of arrays.
    """
    if model._has_exact_scores:
        for scores, element in model._over(data, model._score_batch, batch_size):
            yield scores, np.zeros_like(scores), element
        return
    score, most = model._scorer, examples_at_once(samples)
    with errors.clear_errors():
        for batches, x, ends in _groups(model, arrays.batches(data, batch_size)):
            found = []
            for start in range(0, ends[-1], most):
                rows = rows_of(x, start, start + most)
                parts = [score(rows, [0], block, size, seed) for block, size in blocks(samples)]  # the same noise
                log_likelihood, log_prior, log_posterior = np.concatenate(parts, axis=2, dtype="float64")
                found.append(_mean_weight(log_likelihood + log_prior - log_posterior))
            columns = (np.split(np.concatenate(column), ends[:-1]) for column in zip(*found, strict=True))
            yield from zip(*columns, batches, strict=True)


def _groups(model, stream):
    """Yield some batches at a time: [elements], their x as one, and where each ends. Each call of the scorer costs."""
    rows = max(1, min(_GROUPED, _VALUES // math.prod(model.event_shape)))
    batches, parts, ends = [], [], [0]

    def group():
        return batches, tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *parts), ends[1:]

    for element in stream:
        parts.append(model._read(element))
        batches.append(element)
        ends.append(ends[-1] + len(tf.nest.flatten(parts[-1])[0]))
        if ends[-1] >= rows:
            yield group()
            batches, parts, ends = [], [], [0]
    if batches:
        yield group()


def _mean_weight(log_weights):
    """(log of the mean weight, its standard error to first order: the relative one of the mean), each (n,)."""
    largest = log_weights.max(axis=1, keepdims=True)
    weights = np.exp(log_weights - largest)
    mean, count = weights.mean(axis=1), log_weights.shape[1]
    spread = weights.std(axis=1, ddof=1) if count > 1 else np.full(len(weights), np.nan)
    return np.log(mean) + largest[:, 0], spread / mean / math.sqrt(count)
