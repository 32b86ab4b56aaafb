"""log p(x) by annealing from the prior: it needs no q(z|x), and brackets the truth on data that the model makes."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvae import arguments, html
from kvae.evaluation import draws

_ACCEPTANCE = 0.65  # that is best for Hamiltonian Monte Carlo in many dimensions (Neal 2011, section 4.4.1)


class Bracket(NamedTuple):
    """x: (n, ...), drawn from the model. lower, upper: bounds of log p(x) in expectation, (n,), in nats."""

    x: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    _repr_html_ = html.bracket


def annealed_importance_sampling(
    model, data, steps=1_000, chains=16, leapfrogs=10, *, seed=0, batch_size=32, verbose="auto"
):
    """log p(x) of each example by a path of `steps` distributions from p(z) to p(z|x): (n,), in nats.

    Neal (2001), "Annealed importance sampling"; Wu et al. (2017), "On the quantitative analysis of decoder-based
    generative models": p(z) p(x|z)^beta with beta rising as a sigmoid does, each beta with one transition of
    Hamiltonian Monte Carlo, whose step sizes come from a run before, so that exp of what is returned is an unbiased
    estimate of p(x). It doesn't depend on q(z|x), and costs 2 steps chains (leapfrogs + 1) passes of the decoder
    forwards and backwards an example: for some hundred examples, as a check of `log_likelihood`.

    Args:
        model: a VAE or PCA whose p(x|z) and p(z) have a gradient in z.
        data: a stream of batches or an array.
        steps, chains, leapfrogs: ints; more are better and slower.
        seed: int.
        batch_size: the examples, with all their chains, that are annealed at once.
        verbose: as in `log_likelihood`.

    Raises:
        TypeError: for a model without p(z).
        ValueError: for numbers below 1, and for data that can't be used.
    """
    draws.check_has_prior(model)
    seed = _checked(seed, steps=steps, chains=chains, leapfrogs=leapfrogs, batch_size=batch_size)
    anneal, found = None, []
    for x, positions in draws.parts(model, data, batch_size, batch_size, verbose):
        anneal = anneal or _annealing(model, steps, chains, leapfrogs)
        found.append(_forwards(anneal, model, model._scaled(x), steps, chains, seed + int(positions[0]))[0])
    return np.concatenate(found)


def bidirectional(model, examples=100, steps=1_000, chains=16, leapfrogs=10, *, seed=0):
    """A `Bracket` of log p(x) on simulated data, whose width is the most that annealing so may be wrong by there.

    Grosse, Ghahramani and Adams (2015), "Sandwiching the marginal likelihood using bidirectional Monte Carlo": the z
    that an x was drawn with is an exact draw of p(z|x), from which the path leads back to the prior. Arguments as in
    `annealed_importance_sampling`; a ConditionalVAE, whose labels can't be simulated, raises ValueError.
    """
    draws.check_simulates(model)
    seed = _checked(seed, examples=examples, steps=steps, chains=chains, leapfrogs=leapfrogs)
    generator = keras.random.SeedGenerator(seed)
    z = model.prior_distribution(examples).sample(generator)
    x = model.decoder_distribution(z).sample(generator)
    anneal = _annealing(model, steps, chains, leapfrogs)
    lower, sizes = _forwards(anneal, model, x, steps, chains, seed)
    log_weights, _ = anneal["backwards"](x, tf.repeat(z, chains, axis=0), 4 * seed + 2, sizes)
    return Bracket(x.numpy(), lower, -_log_mean_exp(-log_weights))


def _checked(seed, **counts):
    for name, value in counts.items():
        arguments.integer_at_least(name, value, 1)
    return arguments.seed(seed, random=False)


def _forwards(anneal, model, x, steps, chains, seed):
    """(log p(x), (n,), the step sizes, (steps, n)), these from a first run."""
    examples = len(tf.nest.flatten(x)[0])
    prior = model.prior_distribution(examples * chains)
    sizes = tf.fill((steps, examples), tf.constant(0.5, model.variable_dtype))
    _, sizes = anneal["finding"](x, prior.sample(4 * seed), 4 * seed, sizes)
    log_weights, _ = anneal["forwards"](x, prior.sample(4 * seed + 1), 4 * seed + 1, sizes)
    return _log_mean_exp(log_weights), sizes


def _log_mean_exp(values):
    values = values.numpy().astype("float64")
    return np.logaddexp.reduce(values, axis=1) - np.log(values.shape[1])


def _annealing(model, steps, chains, leapfrogs):
    """Compiled functions (x, z, seed, sizes) to log w (n, chains) and the step sizes (steps, n): {name: function}.

    "finding" finds the sizes on the way, "forwards" and "backwards" take those given. z: (n chains, latent_dim), from
    p(z), backwards from p(z|x).
    """
    dtype = model.variable_dtype
    ramp = 1 / (1 + np.exp(-np.linspace(-4, 4, steps + 1)))
    betas = tf.constant((ramp - ramp[0]) / (ramp[-1] - ramp[0]), dtype)

    def anneal(way, x, z, seed, sizes):
        prior = model.prior_distribution()
        repeated = tf.nest.map_structure(lambda part: tf.repeat(part, chains, axis=0), x)

        def log_likelihood(z):
            return model.log_likelihood(repeated, z)

        def log_density(z, beta):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = prior.log_prob(z) + beta * log_likelihood(z)
            return value, tape.gradient(value, z)

        def transition(z, step, size):
            beta, size = betas[step + 1], tf.repeat(size, chains)[:, None]
            key = tf.cast(step, "int64")
            momentum = tf.random.stateless_normal(tf.shape(z), [seed, 2 * key + 2], dtype=dtype)
            value, gradient = log_density(z, beta)

            def leapfrog(number, end, velocity, _, gradient):
                velocity = velocity + size / 2 * gradient
                end = end + size * velocity
                value, gradient = log_density(end, beta)
                return number + 1, end, velocity + size / 2 * gradient, value, gradient

            state = (0, z, momentum, value, gradient)
            _, end, velocity, end_value, _ = tf.while_loop(lambda number, *_: number < leapfrogs, leapfrog, state)
            energy = end_value - value + tf.reduce_sum(momentum**2 - velocity**2, axis=1) / 2
            accepted = tf.random.stateless_uniform(tf.shape(energy), [seed, 2 * key + 3], dtype=dtype) < tf.exp(energy)
            acceptance = tf.reduce_mean(tf.reshape(tf.cast(accepted, dtype), (-1, chains)), axis=1)
            return tf.where(accepted[:, None], end, z), acceptance

        def forwards_step(step, z, log_weights, size, used):
            log_weights += (betas[step + 1] - betas[step]) * log_likelihood(z)
            size = size if way == "finding" else sizes[step]
            used = used.write(step, size)
            z, acceptance = transition(z, step, size)
            return step + 1, z, log_weights, size * tf.exp(0.1 * (acceptance - _ACCEPTANCE)), used

        def backwards_step(step, z, log_weights, size, used):
            back = steps - 1 - step
            z, _ = transition(z, back, sizes[back])
            log_weights += (betas[back + 1] - betas[back]) * log_likelihood(z)
            return step + 1, z, log_weights, size, used.write(step, size)

        state = (0, z, tf.zeros(tf.shape(z)[:1], dtype), sizes[0], tf.TensorArray(dtype, steps))
        one_step = backwards_step if way == "backwards" else forwards_step
        _, _, log_weights, _, used = tf.while_loop(lambda step, *_: step < steps, one_step, state)
        return tf.reshape(log_weights, (-1, chains)), used.stack()

    others = ((None, model.latent_dim), dtype), ((), "int64"), ((steps, None), dtype)
    signature = [draws.signature(model), *(tf.TensorSpec(*spec) for spec in others)]

    def compiled(way):
        function = tf.function(functools.partial(anneal, way), autograph=False, input_signature=signature)
        function = function.get_concrete_function()
        return lambda x, z, seed, sizes: function(x, z, tf.constant(seed, "int64"), sizes)

    return {way: compiled(way) for way in ("finding", "forwards", "backwards")}
