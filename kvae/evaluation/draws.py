"""Many z ~ q(z|x) for each x of a stream, scored, in memory that grows with neither number."""

import math

import tensorflow as tf

from kvae.data import arrays, errors, progress

BLOCK = 1_000  # the draws of an example that are asked for at once
_VALUES, _ROWS = 2**18, 4_096  # of x that are scored at once: about what a core's caches hold
_DRAWN = 2**18  # z that are drawn, in blocks, at once


def scorer(model, rows=None):
    """A compiled function (x, positions, block, size, seed) to log p(x|z), log p(z), log q(z|x): numpy (3, n, size).

    x: as the model takes it, (n, ...). positions: (n,), of which the noise is a function. size: the draws of this
    block. rows: how many z are decoded at once; None for a number that suits the size of x.
    """
    rows = rows or max(16, min(_ROWS, _VALUES // math.prod(model.event_shape)))
    dtype = model.variable_dtype
    number = tf.TensorSpec((), "int64")

    def noise(position, block, size, seed):
        shape, key = (size, model.latent_dim), [seed, position * 2**24 + block]
        return tf.random.stateless_normal(shape, key, dtype=dtype, alg="philox")

    @tf.function(input_signature=[signature(model), tf.TensorSpec((None,), "int64")] + 3 * [number], autograph=False)
    def scores(x, positions, block, size, seed):
        posterior, prior = model.posterior(x), model.prior_distribution()
        eps = tf.map_fn(lambda position: noise(position, block, size, seed), positions, fn_output_signature=dtype)
        eps = tf.reshape(eps, (-1, model.latent_dim))
        total = tf.shape(eps, "int64")[0]

        def score(start, parts):
            example = tf.range(start, tf.minimum(start + rows, total)) // size
            z, log_posterior = posterior.take(example).rsample_and_log_prob(eps[start : start + rows])
            repeated = tf.nest.map_structure(lambda part: tf.gather(part, example), x)
            values = tf.stack([model.log_likelihood(repeated, z), prior.log_prob(z), log_posterior], axis=1)
            return start + rows, parts.write(tf.cast(start // rows, "int32"), values)

        parts = tf.TensorArray(dtype, tf.cast(-(-total // rows), "int32"), infer_shape=False, element_shape=(None, 3))
        start = tf.zeros((), "int64")
        _, parts = tf.while_loop(lambda start, _: start < total, score, (start, parts), parallel_iterations=1)
        return tf.reshape(tf.transpose(parts.concat()), (3, -1, size))

    compiled = scores.get_concrete_function()  # called itself, it doesn't count as one more tracing of many
    return lambda x, positions, *numbers: compiled(
        model._scaled(x), positions, *(tf.constant(n, "int64") for n in numbers)
    ).numpy()


def signature(model):
    """The `tf.TensorSpec` of x as the model's networks take it, or more of them."""
    x = model._symbol(model.event_shape, model.variable_dtype)
    return tf.nest.map_structure(lambda part: tf.TensorSpec(part.shape, part.dtype), x)


def check_has_posterior(model):
    """Raise TypeError for a model of another kind."""
    if not hasattr(model, "posterior"):
        raise TypeError(f"{type(model).__name__} has no posterior to draw from; expected a VAE, or a PCA.")


def check_has_prior(model):
    """Raise TypeError for a model of another kind."""
    if not hasattr(model, "prior_distribution"):
        raise TypeError(f"{type(model).__name__} has no p(z) to draw from; expected a VAE, or a PCA.")


def check_simulates(model):
    """Raise TypeError for a model without p(z), ValueError for one whose x depend on labels or aren't known yet."""
    check_has_prior(model)
    model.check_built()
    if hasattr(model, "label_dim"):
        raise ValueError(
            f"A {type(model).__name__} draws images of labels that are given, and here it has to draw the data itself: "
            "use a model without labels, or annealed_importance_sampling, which takes data."
        )


def blocks(samples):
    """(number, size) of the blocks that so many draws of an example are made in."""
    return [(number, min(BLOCK, samples - start)) for number, start in enumerate(range(0, samples, BLOCK))]


def examples_at_once(samples):
    """How many examples' draws are held at once."""
    return max(1, _DRAWN // samples)


def parts(model, data, most, batch_size, verbose, skip=0, skipped=None):
    """x and positions (n,) int64 of at most so many examples at a time, the first `skip` given to `skipped` instead.

    data: as the models take them. With a progress bar, by examples, where verbose is True, or "auto" where one is seen.
    """
    stream = arrays.batches(model._checked(data, "data"), batch_size)
    batches, done = int(stream.cardinality()), 0
    bar = progress.bar(None, "example", verbose)
    with errors.clear_errors():
        for element in stream:
            batch = model._read(element)
            length = len(tf.nest.flatten(batch)[0])
            bar.target = bar.target or (batches * length if batches > 0 else None)
            left_out = min(max(skip - done, 0), length)
            if left_out:
                skipped(rows_of(batch, 0, left_out))
            for start in range(left_out, length, most):
                stop = min(start + most, length)
                yield rows_of(batch, start, stop), tf.range(done + start, done + stop, dtype="int64")
                bar.update(done + stop)
            done += length
    bar.target = done
    bar.update(done, finalize=True)


def rows_of(x, start, stop):
    return tf.nest.map_structure(lambda part: part[start:stop], x)
