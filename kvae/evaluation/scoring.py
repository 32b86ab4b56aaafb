"""Many z ~ q(z|x) for each x of a stream, scored in bounded memory; checks of the model."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import arguments
from kvae.data import arrays, elements, errors, progress
from kvae.models.base import LatentModel
from kvae.noise import indexed_normal

BLOCK = 1_000  # draws of an example in one call
_VALUES, _ROWS = 2**18, 4_096  # values of x that are scored at once: about a core's caches; and z at most
_DRAWN = 2**18  # z that are drawn, in blocks, before a summary


def scorer(model: Any, rows: int | None = None) -> Callable[..., np.ndarray]:
    """Compile a function to draw and score z ~ q(z|x).

    Args:
        model: a VAE or PCA.
        rows: z to decode at once. None derives it from the size of x.

    Returns:
        function (x, positions, block, count, seed) to numpy (3, n, count): log p(x|z), log p(z), log q(z|x) of the
        draws in the block. x: (n, ...), as the model takes it. positions: (n,). The noise is a function of the seed,
        the position and the block. With seed 0, the first draw of block 0 is `evaluate`'s.
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
        eps = tf.reshape(noise(positions, block, count, seed), (-1, latent_dim))
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
        return tf.reshape(tf.transpose(chunks.concat()), (3, -1, count))

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


def check_is_model(model: Any, name: str = "model") -> None:
    """Raise TypeError for other things than a model of kvae."""
    arguments.instance(name, model, LatentModel, "a model of kvae, such as a fitted kvae.VAE")


def check_has_posterior(model: Any) -> None:
    """Raise TypeError for a model without q(z|x)."""
    check_is_model(model)
    if not hasattr(model, "posterior"):
        raise TypeError(f"{type(model).__name__} has no posterior to draw from; expected a VAE, or a PCA.")


def check_has_prior(model: Any) -> None:
    """Raise TypeError for a model without p(z)."""
    check_is_model(model)
    if not hasattr(model, "prior_distribution"):
        raise TypeError(f"{type(model).__name__} has no p(z) to draw from; expected a VAE, or a PCA.")


def check_simulates(model: Any) -> None:
    """Raise TypeError for a model without p(z), ValueError for a model with labels or an unbuilt one."""
    check_has_prior(model)
    model.check_built()
    if hasattr(model, "label_dim"):
        raise ValueError(
            f"A {type(model).__name__} draws images of labels that are given, and here it has to draw the data itself: "
            "use a model without labels, or annealed_importance_sampling, which takes data."
        )


def blocks(samples: int) -> list[tuple[int, int]]:
    """(number, size) of the blocks of `samples` draws of an example."""
    return [(number, min(BLOCK, samples - start)) for number, start in enumerate(range(0, samples, BLOCK))]


def examples_at_once(samples: int) -> int:
    """Number of examples with all their draws in memory at once."""
    return max(1, _DRAWN // samples)


def chunks(
    model: Any,
    data: Any,
    most: int,
    batch_size: int,
    verbose: bool | str,
    skip: int = 0,
    skipped: Callable[[Any], None] | None = None,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield x and the positions (n,) int64 of at most `most` examples at a time.

    Args:
        model: reads x from the stream's elements.
        data: a stream or arrays, as the models take them.
        most: examples at a time.
        batch_size: of arrays.
        verbose: whether to show a progress bar. "auto" shows one on a terminal and in a notebook.
        skip: number of examples at the start to give to `skipped` instead.
        skipped: function of their x.
    """
    verbose = arguments.verbosity(verbose)
    elements.validate_batch_size(batch_size)
    stream = arrays.batches(model._checked(data, "data"), batch_size)
    batches, done = int(stream.cardinality()), 0
    bar = progress.bar(None, "example", verbose)
    with errors.clear_errors():
        for element in stream:
            batch = model._read(element)
            length = len(tf.nest.flatten(batch)[0])
            bar.target = bar.target or (batches * length if batches > 0 else None)
            left_out = min(max(skip - done, 0), length)
            if left_out and skipped:
                skipped(rows_of(batch, 0, left_out))
            for start in range(left_out, length, most):
                stop = min(start + most, length)
                yield rows_of(batch, start, stop), np.arange(done + start, done + stop, dtype="int64")
                bar.update(done + stop)
            done += length
    bar.target = done
    bar.update(done, finalize=True)


def rows_of(x: Any, start: int, stop: int) -> Any:
    """x[start:stop], of a tensor or each of several."""
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], x)
